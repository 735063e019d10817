"""CUDA kernels: how they are declared, compiled, kept on disk and launched.

    @kernel(threads=256)
    def scale(x: pointer(float32), n: int32, factor: float32):      types stand at the parameters
        i = cuda.grid(1)
        if i < n:
            store(x, i, load(x, i) * factor)

    scale((blocks,), x, n, 2.0)                                     grid, then the arguments

Kernels take flat pointers and numbers, so that a launch unpacks no array descriptors. One source has three lives:

- In the simulator (`NUMBA_ENABLE_CUDASIM=1`) it runs as Python, on NumPy memory.
- `compile_cubin(kernel, arch)` makes machine code without a GPU or a driver: for tests, and for machines whose toolkit
  cannot compile.
- Launched on a GPU, its cubin is loaded through CuPy, on CuPy's current device and stream, without synchronising.

Cubins are kept beside the CPU's compiled kernels, one file for each kernel and architecture, in a folder named after a
hash of the sources and the versions of the toolkit; constants that a kernel closes over and its options are in the
file's name. (Numba's own cache knows neither.)
"""

import hashlib
import inspect
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import prod

import numpy as np
from numba import cuda, types
from numba.core import config

from . import store
from .jit import closure_of, source_hash

SIMULATED = config.ENABLE_CUDASIM
# Shared memory that every launch may use; more has to be asked for.
DEFAULT_SHARED = 48 * 1024

ELEMENTS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}

TOOLKIT = (
    "numba", "numba-cuda", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvcc-cu12",
    "nvidia-nvjitlink-cu12",
)  # fmt: skip


def pointer(element):
    """The type of a flat array in global memory."""
    return types.CPointer(element)


def element_of(array):
    """Numba's type for an array's numbers: what kernels that exist for several dtypes are made for. Of bfloat16, which
    Numba's simulator does not know, kernels see the bits."""
    try:
        return ELEMENTS[array.dtype]
    except KeyError:
        if array.dtype.name != "bfloat16":
            raise
        return types.uint16


@cache
def toolkit_hash() -> str:
    """Hash of the versions of everything that turns a kernel into machine code."""
    versions = []
    for package in TOOLKIT:
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return hashlib.sha256(repr(versions).encode()).hexdigest()[:8]


def kernel(*, threads, blocks=1):
    """Declare a kernel that is launched with `threads` threads a block, `blocks` of which shall fit on a processor."""
    return lambda function: Kernel(function, threads, blocks)


class Kernel:
    """A kernel that can be launched, simulated or only compiled."""

    def __init__(self, function, threads, blocks):
        self.function, self.threads, self.blocks = function, threads, blocks
        self.block = threads if isinstance(threads, tuple) else (threads,)
        self.types = tuple(inspect.get_annotations(function).values())
        if len(self.types) != len(inspect.signature(function).parameters):
            raise TypeError(f"{function.__qualname__}: every parameter of a kernel needs its type")
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._scalars = [None if isinstance(t, types.CPointer) else np.dtype(str(t)).type for t in self.types]
        self._sources, self._constants = closure_of(function)
        self._loaded = {}  # by device
        if SIMULATED:
            self._simulated = cuda.jit(function)

    def __call__(self, grid, *args, shared=0):
        """Launch `prod(grid)` blocks, with `shared` bytes of dynamic shared memory; nothing where there are none."""
        if prod(grid) == 0:
            return
        if SIMULATED:
            # As the simulator's own arrays they are not copied to and fro, so that two arguments may be one array.
            args = [_fake(arg) if scalar is None else scalar(arg) for scalar, arg in zip(self._scalars, args)]
            self._simulated[grid, self.block, 0, shared](*args)
        else:
            self._launch(grid, args, shared)

    def _launch(self, grid, args, shared):
        import cupy

        device = cupy.cuda.runtime.getDevice()
        loaded = self._loaded.get(device)
        if loaded is None:
            loaded = self._loaded[device] = _load(self, cupy.cuda.Device(device).compute_capability)
        if shared > loaded.shared:
            _allow_shared(loaded, shared)
        args = [arg if scalar is None else scalar(arg) for scalar, arg in zip(self._scalars, args)]
        loaded.function(grid, self.block, args, shared)

    def file_name(self, arch):
        """The name of its cubin."""
        key = self.name, self._constants, repr(self.types), self.threads, self.blocks, arch
        return f"{self.function.__name__}-{arch}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.cubin"

    def folder_name(self):
        return f"{source_hash(*self._sources)}-{toolkit_hash()}"


def _fake(array):
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    array = np.asarray(array)
    return FakeCUDAArray(array.view(np.uint16) if array.dtype.name == "bfloat16" else array)


class _Loaded:
    """A kernel on one device. The module has to live as long as its function is used."""

    __slots__ = ("module", "function", "shared")

    def __init__(self, module, function):
        self.module, self.function, self.shared = module, function, DEFAULT_SHARED


def _load(kernel, capability):
    import cupy

    arch = f"sm_{capability}" + ("a" if int(capability) >= 90 else "")
    cubin = kept_cubin(kernel, arch)
    module = cupy.cuda.function.Module()
    module.load(cubin)
    return _Loaded(module, module.get_function(entry_of(cubin)))


def _allow_shared(loaded, shared):
    import cupy

    attribute = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    cupy.cuda.driver.funcSetAttribute(loaded.function.ptr, attribute, shared)
    loaded.shared = shared


def kept_cubin(kernel, arch) -> bytes:
    """The kernel's machine code for an architecture, from the cache or compiled now."""
    file = store.cache_folder() / kernel.folder_name() / kernel.file_name(arch)
    return store.get(file, lambda: compile_cubin(kernel, arch))


def compile_cubin(kernel, arch: str) -> bytes:
    """The kernel's machine code for an architecture such as "sm_90a". Needs the toolkit, no GPU and no driver."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    major, minor, suffix = re.fullmatch(r"sm_(\d+)(\d)([a-z]?)", arch).groups()
    capability = (int(major), int(minor), *suffix)
    try:
        codes, _ = cuda.compile_all(
            kernel.function, types.void(*kernel.types), device=False, abi="numba", cc=capability, output="ltoir",
            launch_bounds=(prod(kernel.block), kernel.blocks),
        )  # fmt: skip
        objects = [code if isinstance(code, ObjectCode) else ObjectCode.from_ltoir(bytes(code)) for code in codes]
        options = LinkerOptions(arch=arch, link_time_optimization=True)
        return bytes(Linker(*objects, options=options).link("cubin").code)
    except Exception as error:
        raise RuntimeError(f"{kernel.name}: cannot be compiled for {arch}: {error}") from error


def entry_of(cubin: bytes) -> str:
    """The name of the kernel in its machine code."""
    return re.search(rb"\.text\.([\w$]+)", cubin).group(1).decode()
