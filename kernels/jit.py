"""Compiling kernels: one decorator, one disk cache, one way to run a kernel over threads.

    @jit                            a serial function, compiled on first use and cached on disk
    launch = threaded(chunk_kernel) launch(chunks, work, *args) runs chunk_kernel(chunk, *args) for every chunk

**Cache.** Numba's own cache keys a function by its file's time stamp, forgets what that file imports, and keeps
an index that two processes can race for. Here every compiled signature is one file of its own, in a folder named
after a hash of all sources the kernel's module imports (and of the versions and the processor): an edit anywhere
below a kernel leads to a new folder, a file is written aside and renamed, and there is no index to disagree with.
A lock file per signature lets one process compile while the others wait for its result.

The cache lives in `$HANDLOOM_CACHE_DIR`, else `$XDG_CACHE_HOME/handloom`, else `~/.cache/handloom`. Where that is
not writable, kernels are compiled anew in every process, and one line on stderr says so.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pickle
import re
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba
import numpy
from numba.core import caching, compiler
from numba.core.serialize import dumps

# Flags that keep NaN and Inf: products may join sums, sums may be reordered by the vectoriser.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

_IMPORT = re.compile(r"^\s*from (\.+)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def cache_folder() -> Path:
    """The folder that compiled kernels are kept in; it need not exist yet."""
    if folder := os.environ.get("HANDLOOM_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handloom"


def _imported_files(path: Path) -> list[Path]:
    """Files that `path` imports relatively (`from . import x`, `from ..a.b import c`)."""
    found = []
    for dots, module, names in _IMPORT.findall(path.read_text()):
        base = path.parents[len(dots) - 1].joinpath(*filter(None, module.split(".")))
        for name in names.strip("()").replace("\n", " ").split(","):
            stems = (base / name.split()[0], base) if name.split() else ()
            candidates = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
            found += [file for file in candidates if file.is_file()][:1]
    return found


@functools.cache
def source_hash(path: str) -> str:
    """Hash of a source file, of every file of this package it imports, of the versions and the processor."""
    files, todo = set(), [Path(path)]
    while todo:
        file = todo.pop()
        if file not in files:
            files.add(file)
            todo += _imported_files(file)
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(file.parents[2])).encode() + b"\0" + file.read_bytes())
    codegen = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    digest.update(repr((sys.version, numba.__version__, llvmlite.__version__, numpy.__version__, codegen)).encode())
    return digest.hexdigest()[:20]


def _say(text: str) -> None:
    print(f"handloom: {text}", file=sys.stderr, flush=True)


@functools.cache
def _say_compiling() -> None:
    """One line, the first time this process has to compile anything."""
    _say("compiling kernels for this machine (once; kept in " + str(cache_folder()) + ")")


@functools.cache
def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        _say(
            f"cannot keep compiled kernels in {folder} ({error.strerror}): they are compiled anew in every process; "
            "set HANDLOOM_CACHE_DIR to a folder that can be written"
        )
        return False


class KernelCache(caching._Cache):
    """Numba's cache interface for one function: one file per signature, no index."""

    def __init__(self, function, name, options):
        self._function, self._name, self._options = function, name, options
        self._locks = {}

    @property
    def cache_path(self):
        return str(cache_folder() / source_hash(self._function.__code__.co_filename))

    def enable(self):
        pass

    disable = flush = enable

    def _file(self, sig) -> Path:
        key = repr((self._name, self._options, sig)).encode()
        return Path(self.cache_path) / f"{self._name.rpartition('.')[2]}-{hashlib.sha256(key).hexdigest()[:16]}.bin"

    def _read(self, file, target_context):
        try:
            payload = pickle.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        return compiler.CompileResult._rebuild(target_context, *payload)

    def load_overload(self, sig, target_context):
        """The compiled result of a signature; or None, and then this process holds the lock until `release`."""
        target_context.refresh()
        if not _writable(Path(self.cache_path)):
            _say_compiling_uncached()
            return None
        file = self._file(sig)
        if (result := self._read(file, target_context)) is not None:
            return result
        lock = open(file.with_suffix(".lock"), "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (result := self._read(file, target_context)) is not None:  # another process was first
            lock.close()
            return result
        self._locks[sig] = lock
        _say_compiling()
        return None

    def save_overload(self, sig, result):
        if sig not in self._locks:
            return
        file = self._file(sig)
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(dumps(result._reduce()))
            os.replace(temporary, file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            _say(f"could not keep a compiled kernel in {file.parent}: {error.strerror}")
        self.release(sig)

    def release(self, sig):
        if lock := self._locks.pop(sig, None):
            lock.close()


@functools.cache
def _say_compiling_uncached() -> None:
    _say("compiling kernels for this machine (for this process only)")


def jit(function=None, *, parallel=False, inline=False, inner=False, name=None):
    """Compile a function for the CPU: no Python objects, no GIL, cached on disk.

    inline : ask LLVM to inline it into its callers (helpers on vectors).
    inner : only compiled code calls it. Unpacking Python arguments is a third of a small kernel's compile time.
    name : the cache's name for it; needed where one source line makes several functions.
    """
    if function is None:
        return functools.partial(jit, parallel=parallel, inline=inline, inner=inner, name=name)
    options = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH, "parallel": parallel}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inline or inner}
    if inline:
        options["forceinline"] = True
    dispatcher = numba.njit(**options)(function)
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    constants = [value for value in closure if isinstance(value, int | float | str | bool)]
    name = name or f"{function.__module__}.{function.__qualname__}"
    cache = dispatcher._cache = KernelCache(function, name, repr((parallel, inline, inner, constants)))
    compile_signature = dispatcher.compile

    def compile_and_release(sig):
        try:
            return compile_signature(sig)
        finally:
            cache.release(sig)  # also when compilation failed: other processes must not wait for it

    dispatcher.compile = compile_and_release
    return dispatcher
