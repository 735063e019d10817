"""The disk cache of compiled kernels: whatever happens to it, the results are right and nobody waits for ever."""

import ast
import fcntl
import gc
import importlib.util
import os
from importlib import import_module
from pathlib import Path

import pytest
from processes import COUNTING, finish, run, start

from handloom import kernels
from handloom.kernels import jit, store

HELPER = """
from handloom.kernels.jit import jit

@jit
def change(x):
    return 3 * x + 1
"""
KERNEL = """
from handloom.kernels.jit import jit
from handloom.kernels.threads import threaded
from .helper import change

@jit
def chunk_kernel(chunk, x, y):
    for i in range(chunk * 10, chunk * 10 + 10):
        y[i] = change(x[i])

launch = threaded(chunk_kernel)
"""
# Calls the kernel on one dtype after another and checks every number.
CALL = (
    COUNTING
    + """
import numpy as np
from woven.kernel import launch

def call(dtype):
    x, y = np.arange(30, dtype=dtype), np.empty(30, dtype)
    launch(3, 0, x, y)
    assert (y == 3 * x + 1).all(), (dtype, y)
"""
)
DTYPES = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16"]


@pytest.fixture
def package(tmp_path):
    """A folder with a package of one kernel and the helper that it imports; the cache in it is empty."""
    folder = tmp_path / "woven"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text(HELPER)
    (folder / "kernel.py").write_text(KERNEL)
    return tmp_path


def cached_files(package):
    return sorted((package / "cache").glob("*/*.bin"))


# Each process compiles its own signature, waits until all eight have one to save, and saves while the others do; then
# all want the same further signature at once.
CROWD = (
    CALL
    + """
import os, time
from pathlib import Path
from handloom.kernels.jit import KernelCache

save, barrier = KernelCache.save_overload, Path("barrier")

def save_together(cache, sig, result):
    (barrier / str(os.getpid())).touch()
    end = time.monotonic() + 200
    while len(list(barrier.iterdir())) < {crowd}:
        assert time.monotonic() < end
        time.sleep(0.01)
    save(cache, sig, result)

KernelCache.save_overload = save_together
call("{dtype}")
KernelCache.save_overload = save
call("complex128")
"""
)


def test_eight_processes_fill_an_empty_cache_and_a_ninth_compiles_nothing(package):
    (package / "barrier").mkdir()
    crowd = [start(CROWD.format(dtype=dtype, crowd=len(DTYPES)), package) for dtype in DTYPES]
    for process in crowd:
        finish(process)
    everything = f"for dtype in {[*DTYPES, 'complex128']}: call(dtype)\nprint(compiled())"
    out, err = run(CALL + everything, package)
    assert (out, err) == ("0\n", "")
    assert not [file for file in package.glob("cache/*/*") if file.suffix not in (".bin", ".lock")]


def test_the_first_process_says_that_it_compiles_and_the_second_compiles_nothing(package):
    code = CALL + "call('float32')\nprint(compiled())"
    out, err = run(code, package)
    assert int(out) > 0
    assert err == f"handloom: compiling kernels for this machine (once; kept in {package / 'cache'})\n"
    assert run(code, package) == ("0\n", "")


@pytest.mark.parametrize("edited", ["helper.py", "kernel.py"])
def test_an_edit_anywhere_below_a_kernel_is_seen(package, edited):
    run(CALL + "call('float32')", package)
    before = cached_files(package)
    file = package / "woven" / edited
    file.write_text(file.read_text().replace("3 * x + 1", "4 * x + 1").replace("change(x[i])", "x[i] + x[i]"))
    later = file.stat().st_mtime + 2  # Python's cache of bytecode looks at whole seconds and the size alone
    os.utime(file, (later, later))
    out, _ = run(CALL + "x, y = np.ones(30), np.ones(30)\nlaunch(3, 0, x, y)\nprint(y[0])", package)
    assert out == {"helper.py": "5.0\n", "kernel.py": "2.0\n"}[edited]
    after = cached_files(package)
    assert set(before) < set(after)
    assert {file.name for file in after} > {file.name for file in before}


def test_a_folder_that_cannot_be_written_costs_one_line(package):
    (package / "file").touch()
    code = CALL + "call('float32')\ncall('float64')\nprint(compiled())"
    out, err = run(code, package, HANDLOOM_CACHE_DIR=str(package / "file" / "below"))
    assert int(out) > 0
    first, second = err.splitlines()
    assert first.startswith(f"handloom: cannot keep compiled kernels in {package / 'file' / 'below'}")
    assert "set HANDLOOM_CACHE_DIR to a folder that can be written" in first
    assert second == "handloom: compiling kernels for this machine (for this process only)"


def test_what_a_read_only_folder_holds_is_used(package):
    read_only = "from handloom.kernels import store\nstore.writable = lambda folder: False\n"
    run(CALL + "call('float32')", package)
    assert run(CALL + read_only + "call('float32')\nprint(compiled())", package) == ("0\n", "")


@pytest.mark.parametrize("damage", ["cut", "emptied", "changed"])
def test_damaged_files_are_compiled_anew(package, damage):
    code = CALL + "call('float32')\nprint(compiled())"
    first, _ = run(code, package)
    for file in cached_files(package):
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes({"cut": whole[: len(whole) // 2], "emptied": b"", "changed": whole}[damage])
    assert run(code, package)[0] == first
    assert run(code, package) == ("0\n", "")


def test_a_failed_compilation_lets_the_next_process_try(package):
    helper = package / "woven" / "helper.py"
    helper.write_text(HELPER.replace("3 * x + 1", "3 * x + 1 + 'a'"))
    failing = "import numba\ntry:\n    call('float32')\nexcept numba.TypingError:\n    print('no')\nfree()"
    free = """
import fcntl
def free():
    from pathlib import Path
    for file in Path("cache").glob("*/*.lock"):
        with open(file, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print("free")
"""
    for _ in range(2):
        out, _ = run(CALL + free + failing, package)
        assert out.startswith("no\nfree\n")
    helper.write_text(HELPER)
    run(CALL + "call('float32')", package)


def test_a_child_forked_while_its_parent_compiles_does_not_keep_the_lock(tmp_path):
    file = tmp_path / "x.lock"
    cache = jit.KernelCache((__file__,), ("x",))
    cache._locks["sig"] = lock = store.lock_file(file)
    inherited = os.dup(lock.fileno())  # what a fork leaves in the child
    cache.release("sig")
    with open(file, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(inherited)


def test_a_file_system_without_locks_is_no_obstacle(package):
    code = "import fcntl\ndef flock(*_):\n    raise OSError(95, 'not supported')\nfcntl.flock = flock\n"
    run(code + CALL + "call('float32')", package)
    assert run(CALL + "call('float32')\nprint(compiled())", package) == ("0\n", "")


def test_a_full_disk_costs_one_line(package):
    full = "import os\ndef replace(*_):\n    raise OSError(28, 'No space left on device')\nos.replace = replace\n"
    _, err = run(CALL + full + "call('float32')\ncall('float64')", package)
    (complaint,) = [line for line in err.splitlines() if "compiling" not in line]
    assert complaint.startswith(
        f"handloom: cannot keep compiled kernels in {package / 'cache'} (No space left on device)"
    )
    assert {file.suffix for file in package.glob("cache/*/*")} == {".lock"}


def test_functions_without_a_file_are_compiled_and_not_kept(package):
    code = "from handloom.kernels.jit import jit\nf = jit(eval('lambda x: x + 1'))\nprint(f(1))"
    assert run(code, package) == ("2\n", "")


def test_the_cache_lies_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path / "a"))
    assert store.cache_folder() == tmp_path / "a"
    monkeypatch.delenv("HANDLOOM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert store.cache_folder() == tmp_path / "b" / "handloom"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / ".cache" / "handloom"


# What the cache relies on, held against all kernels there are.

SOURCES = sorted(Path(kernels.__file__).parent.rglob("*.py"))


def imported_by_the_parser(path):
    """The files that a source imports relatively, found by Python's own parser."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for stem in [base / alias.name for alias in node.names]:
                candidates = [p for s in (stem, base) for p in (s.with_suffix(".py"), s / "__init__.py") if p.is_file()]
                found.update(candidates[:1])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_every_import_of_a_kernel_is_found(path):
    assert set(jit._imported_files(path)) == imported_by_the_parser(path)


def test_imports_are_found_however_they_are_written(tmp_path):
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "sub").mkdir()
    source = tmp_path / "sub" / "source.py"
    source.write_text(
        "from .. import (  # with (brackets)\n    a,  # and (more)\n    b as other,\n)\n"
        "def f():\n    from ..c import d as e, f\n"
        "from handloom.kernels import jit\nfrom handloom.kernels.checks import floats\nfrom ..missing import x\n"
    )
    found = {path.name for path in jit._imported_files(source)}
    assert found == {"a.py", "b.py", "c.py", "jit.py", "checks.py"}


def test_no_two_kernels_share_a_key_and_none_depends_on_an_address():
    for path in SOURCES:
        if path.name == "cpu.py" or path.parent.name == "cpu":
            import_module(".".join(("handloom", "kernels", *path.relative_to(SOURCES[0].parent).with_suffix("").parts)))
    caches = [found for found in gc.get_objects() if type(found) is jit.KernelCache]
    keys = [(cache.cache_path, repr(cache.key)) for cache in caches]
    assert len(keys) > 10
    assert not [key for key in keys if " at 0x" in key[1]]
    assert len(set(keys)) == len(keys), sorted({key[1] for key in keys if keys.count(key) > 1})


def test_sources_are_read_when_a_kernel_is_defined(tmp_path):
    """An edit between the import and the first compilation must not put the old code under the new sources' name."""
    file = tmp_path / "kernel_edited_meanwhile.py"
    file.write_text("from handloom.kernels.jit import jit\n\n\n@jit\ndef double(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location("kernel_edited_meanwhile", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = module.double._cache.cache_path
    file.write_text(file.read_text().replace("2 * x", "3 * x"))
    assert module.double._cache.cache_path == before
    jit._source.cache_clear()
    jit.source_hash.cache_clear()
    spec.loader.exec_module(module)
    assert module.double._cache.cache_path != before
