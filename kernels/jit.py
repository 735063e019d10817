"""Compiling kernels: `@jit` makes a serial function that is compiled on first use, and a cache on disk keeps it.

**Cache.** Numba's own cache keys a function by its file's time stamp, forgets what that file imports, and keeps
an index that two processes can race for. Here every compiled signature is one file of its own, in a folder named
after a hash of all sources the kernel's module imports (and of the versions and the processor): an edit anywhere
below a kernel leads to a new folder, and there is no index to disagree with. store.py says how the files are shared.

**Optimizing.** Numba optimizes every function by itself, makes machine code of it, and links it into those that call
it, which are optimized again. Here most functions are only called by others: they are linked as they are, and optimized
in those that Python calls (`LinkedLibrary`). The code is as fast (within 1 %, 90 cases), and made sooner: on a Zen 1, a
first product took 22 seconds and takes 11, a first LSTM 28 and 17, `handloom warmup` 154 and 99.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import re
import sys
from pathlib import Path

import llvmlite
import numba
import numpy
from numba.core import caching, compiler
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps

from . import store

# Flags that keep NaN and Inf: products may join sums, sums may be reordered by the vectoriser.
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}

# `from ..a.b import c, d` and `from handloom.kernels.a import (c, d)`. Reading with a pattern takes a tenth of the time
# of parsing; a test holds it against the parser.
_KERNELS = __package__
_IMPORT = re.compile(rf"^[ \t]*from (\.+|{re.escape(_KERNELS)}\b)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_COMMENT = re.compile("#.*")


def _imported_files(path: Path) -> list[Path]:
    """Files that `path` imports relatively, or from this package by its full name."""
    found = []
    for root, module, names in _IMPORT.findall(_COMMENT.sub("", path.read_text())):
        folder = Path(__file__).parent if root == _KERNELS else path.parents[len(root) - 1]
        base = folder.joinpath(*filter(None, module.split(".")))
        for name in names.strip("()").split(","):
            stems = (base / name.split()[0], base) if name.split() else ()
            candidates = [file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py")]
            found += [file for file in candidates if file.is_file()][:1]
    return found


@functools.cache
def _source(path: Path) -> tuple[bytes, list[Path]]:
    """A source file's digest and the files it imports, as they were when this process first looked."""
    return hashlib.sha256(path.read_bytes()).digest(), _imported_files(path)


@functools.cache
def source_hash(*paths: str) -> str:
    """Hash of source files and of every file of this package that they import.

    Taken when a kernel is defined, not when it is compiled: an edit in between must not put old code under a new name.
    """
    files, todo = set(), [Path(path) for path in paths]
    while todo:
        file = todo.pop()
        if file not in files:
            files.add(file)
            todo += _source(file)[1]
    digest = hashlib.sha256()
    for file in sorted(files):
        # Two names, because the third may be that of the checkout: cubins are carried from one to another.
        digest.update("/".join(file.parts[-2:]).encode() + b"\0" + _source(file)[0])
    return digest.hexdigest()[:12]


@functools.cache
def machine_hash() -> str:
    """Hash of everything else that compiled code depends on: versions, the processor, Numba's settings."""
    versions = sys.version, numba.__version__, llvmlite.__version__, numpy.__version__
    codegen = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()
    settings = numba.config.OPT, numba.config.BOUNDSCHECK, numba.config.DEBUGINFO_DEFAULT
    return hashlib.sha256(repr((versions, codegen, settings)).encode()).hexdigest()[:8]


class KernelCache(caching._Cache):
    """Numba's cache interface for one function: one file per signature, no index."""

    def __init__(self, sources, key):
        self.sources, self.key = sources, key
        self._source_hash = source_hash(*sources)
        self._locks = {}

    @property
    def cache_path(self):
        return str(store.cache_folder() / f"{self._source_hash}-{machine_hash()}")

    def enable(self):
        pass

    disable = flush = enable

    def _file(self, sig) -> Path:
        name = self.key[0].rpartition(".")[2]
        return Path(self.cache_path) / f"{name}-{hashlib.sha256(repr((self.key, sig)).encode()).hexdigest()[:16]}.bin"

    def _read(self, file, target_context):
        """The compiled result kept in a file; None where there is none or the file is damaged."""
        if (payload := store.read(file)) is None:
            return None
        result = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        # What has to be started before this runs (a pool of threads) is needed by whatever is compiled against it too.
        result.library._reload_init.update(result.reload_init)
        return result

    def load_overload(self, sig, target_context):
        """The compiled result of a signature; or None, and then this process holds the lock until `release`."""
        target_context.refresh()
        file = self._file(sig)
        if (result := self._read(file, target_context)) is not None:
            return result
        if not (kept := store.writable(file.parent)):
            store.say_compiling(kept)
            return None
        lock = self._locks[sig] = store.lock_file(file.with_suffix(".lock"))
        if lock and (result := self._read(file, target_context)) is not None:  # another process was first
            self.release(sig)
            return result
        store.say_compiling(kept)
        return None

    def save_overload(self, sig, result):
        file = self._file(sig)
        if store.writable(file.parent):
            store.write(file, dumps(result._reduce()))

    def release(self, sig):
        """Let the processes that wait for this signature go on."""
        if lock := self._locks.pop(sig, None):
            store.unlock(lock)


def closure_of(function):
    """What a function closes over: source files, and a text for each value, the same in every process."""
    sources, texts = [function.__code__.co_filename], []
    for value in (cell.cell_contents for cell in function.__closure__ or ()):
        if isinstance(cache := getattr(value, "_cache", None), KernelCache):
            sources += cache.sources
            texts.append(repr(cache.key))
        elif (inner := getattr(value, "py_func", None)) is not None:  # a device function, whose repr is an address
            files, values = closure_of(inner)
            sources += files
            texts.append(repr((inner.__module__, inner.__qualname__, inner.__code__.co_firstlineno, values)))
        else:
            texts.append(repr(value))
    return tuple(dict.fromkeys(sources)), tuple(texts)


class LinkedLibrary(JITCodeLibrary):
    """The code of a function that only other compiled code calls, kept as bitcode for it: neither optimized nor loaded
    by itself. What Numba asks of loaded code has no answer here."""

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    serialize_using_object_code = JITCodeLibrary.serialize_using_bitcode

    def get_pointer_to_function(self, name):
        self._ensure_finalized()
        return 0

    @property
    def codegen(self):
        return self

    def set_env(self, *_):
        pass


@contextlib.contextmanager
def _compiling_to(library):
    """Numba puts what it compiles, or reads from the cache, into such a library."""
    codegen = numba.core.registry.cpu_target.target_context.codegen()
    with global_compiler_lock:
        before, codegen._library_class = codegen._library_class, library
        try:
            yield
        finally:
            codegen._library_class = before


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
    if inline or inner:
        # They make no arrays. Otherwise Numba counts references to their array arguments wherever its pass that removes
        # such pairs gives up, as it does in loops with branches: two threads that fought over one count made a
        # depthwise convolution fifteen times slower.
        options["_nrt"] = False
    if inline:
        options["forceinline"] = True
    dispatcher = numba.njit(**options)(function)
    if not os.path.isfile(function.__code__.co_filename):  # typed into a notebook or a prompt
        return dispatcher
    sources, values = closure_of(function)
    name = name or f"{function.__module__}.{function.__qualname__}"
    cache = dispatcher._cache = KernelCache(sources, (name, parallel, inline, inner, values))
    compile_signature = dispatcher.compile

    def compile_and_release(sig):
        linked = dispatcher.targetoptions["no_cpython_wrapper"] and not parallel
        try:
            with _compiling_to(LinkedLibrary if linked else JITCodeLibrary):
                return compile_signature(sig)
        finally:
            cache.release(sig)  # also when compilation failed: other processes must not wait for it

    dispatcher.compile = compile_and_release
    return dispatcher
