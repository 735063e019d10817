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
  cannot compile. (Tests execute the PTX that it is made of, tests/support/ptx_machine.py.)
- Launched on a GPU, its cubin is loaded through CuPy, on CuPy's current device and stream, without synchronising. The
  arguments are checked and packed here and handed to the driver: 5.2 us for six of them on an EPYC of 2017, before a
  driver that does nothing, where it was 8.4 by way of CuPy's `Function`, which takes them one by one.
  (Tested with CuPy over a CUDA that is pretended, and not yet run on a GPU.)

Cubins are kept beside the CPU's compiled kernels, one file for each kernel and architecture, in a folder named after a
hash of the sources and the versions of the toolkit; constants that a kernel closes over and its options are in the
file's name. (Numba's own cache knows neither.) `$HANDLOOM_CUBINS` may name another folder, made elsewhere by
`handloom warmup --device cuda`: it is looked into first, and the versions of the toolkit do not matter there.
"""

import ctypes
import hashlib
import inspect
import operator
import os
import re
import struct
import threading
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numba import cuda, types
from numba.core import config

from . import store, threads
from .jit import closure_of, source_hash

SIMULATED = config.ENABLE_CUDASIM
# Shared memory that every launch may use; more has to be asked for.
DEFAULT_SHARED = 48 * 1024
# What CUDA allows on every GPU.
MAX_THREADS, MAX_BLOCKS = 1024, 2**31 - 1
# How many parameters a kernel may have here; CUDA allows 4096 bytes.
PARAMETERS = 64
# The types of its numbers, and their letters in struct.
NUMBERS = {
    np.int8: "b", np.int16: "h", np.int32: "i", np.int64: "q", np.uint8: "B", np.uint16: "H", np.uint32: "I",
    np.float16: "e", np.float32: "f", np.float64: "d",
}  # fmt: skip

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


def architecture(capability) -> str:
    """Of GPUs of a compute capability, such as "90": "sm_90a", with all instructions that they alone have."""
    return f"sm_{capability}" + ("a" if int(capability) >= 90 else "")


def architecture_of(array) -> str | None:
    """Of the GPU that an array is on; None in the simulator."""
    return None if isinstance(array, np.ndarray) else architecture(array.device.compute_capability)


def kernel(*, threads, blocks=1, only=None):
    """Declare a kernel that is launched with `threads` threads a block, `blocks` of which shall fit on a processor;
    `only`: the one architecture that has its instructions."""
    return lambda function: Kernel(function, threads, blocks, only)


class Kernel:
    """A kernel that can be launched, simulated or only compiled."""

    def __init__(self, function, threads, blocks, only):
        self.function, self.threads, self.blocks, self.only = function, threads, blocks, only
        self.block = threads if isinstance(threads, tuple) else (threads,)
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.types = tuple(inspect.get_annotations(function).values())
        self.parameters = tuple(inspect.signature(function).parameters)
        if len(self.types) != len(self.parameters):
            raise TypeError(f"{self.name}: every parameter of a kernel needs its type")
        if not 0 < prod(self.block) <= MAX_THREADS:
            raise ValueError(f"{self.name}: threads is {threads}: a block must have 1 to {MAX_THREADS}")
        kinds = list(enumerate(self.types))
        self._pointers = [(i, np.dtype(str(t.dtype))) for i, t in kinds if isinstance(t, types.CPointer)]
        self._numbers = [(i, np.dtype(str(t)).type) for i, t in kinds if not isinstance(t, types.CPointer)]
        self.floats = [i for i, number in self._numbers if issubclass(number, np.floating)]
        if any(number not in NUMBERS for _, number in self._numbers):
            raise TypeError(f"{self.name}: numbers must be floats, signed integers or uint32 and smaller")
        if len(self.types) > PARAMETERS:
            raise TypeError(f"{self.name}: has {len(self.types)} parameters: must be {PARAMETERS} at most")
        self._pack = struct.Struct("<" + "".join(map(_packed, self.types))).pack_into
        self._dimensions = (*self.block, 1, 1)[:3]
        self._sources, self._constants = closure_of(function)
        self._loaded = {}  # by device

    def __call__(self, grid, *args, shared=0):
        """Launch `prod(grid)` blocks, with `shared` bytes of dynamic shared memory; nothing where there are none.

        grid : a tuple of one to three numbers of blocks, together below 2**31.
        args : for a pointer a C-contiguous array of any shape, on CuPy's current GPU and of the pointer's dtype (for
        uint16 bfloat16 too); for a number a number that its type can hold.

        Raises TypeError, ValueError : arguments that are none of these.  RuntimeError, MemoryError : what the driver
        says. All name the kernel and the argument. A kernel that fails while it runs is reported by a later call.
        """
        x, y, z = (*grid, 1, 1)[:3]
        if not 0 < (blocks := x * y * z) <= MAX_BLOCKS:
            if blocks == 0:
                return
            raise ValueError(f"{self.name}: grid is {grid}: it must have at most {MAX_BLOCKS} blocks, launch it twice")
        if SIMULATED:
            self._simulate(grid, args, shared)
            return
        try:
            current_device, current_stream, launch = _asked_often()
            device = current_device()
            loaded = self._loaded.get(device) or self._load(device)
            if shared > loaded.shared:
                _allow_shared(loaded, shared)
            given = list(args)
            for i, dtype in self._pointers:
                array = args[i]
                memory = array.data
                # CuPy's own `_c_contiguous`, because `flags` makes an object: 0.6 us an array
                if memory.device_id != device or array.dtype is not dtype or not array._c_contiguous:
                    _check_arguments(self, args, device)
                given[i] = memory.ptr
            buffer, addresses, entered = _here.packing
            if device not in entered:
                _enter(device, entered)
            if (recorder := threads.recorder) is not None:
                recorder.captured(self, grid, args, shared)
            stream = current_stream().ptr
            self._pack(buffer, 0, *given)
            launch(loaded.pointer, x, y, z, *self._dimensions, shared, stream, addresses, 0)
        except Exception as error:
            _explain(self, grid, args, shared, error)
            raise

    @cached_property
    def simulated(self):
        """The kernel in the simulator."""
        return cuda.jit(self.function)

    def _simulate(self, grid, args, shared):
        _check_arguments(self, args)
        args = list(args)
        for i, _ in self._pointers:
            # As the simulator's own arrays they are not copied to and fro, so that two arguments may be one array.
            args[i] = _fake(args[i])
        for i, number in self._numbers:
            args[i] = number(args[i])
        self.simulated[grid, self.block, 0, shared](*args)

    def _load(self, device):
        loaded = self._loaded[device] = _load(self, _cupy().cuda.Device(device).compute_capability)
        return loaded

    def file_name(self, arch):
        """The name of its cubin."""
        key = self.name, self._constants, repr(self.types), self.threads, self.blocks, arch
        return f"{self.function.__name__}-{arch}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.cubin"

    def folder_name(self):
        return f"{source_hash(*self._sources)}-{toolkit_hash()}"


def _fake(array):
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    array = np.asarray(array).reshape(-1)
    return FakeCUDAArray(array.view(np.uint16) if array.dtype.name == "bfloat16" else array)


@cache
def _cupy():
    import cupy

    return cupy


@cache
def _asked_often():
    cuda = _cupy().cuda
    return cuda.runtime.getDevice, cuda.get_current_stream, cuda.driver.launchKernel


def _packed(kind):
    """How an argument stands in eight bytes, in struct's letters: pointers as integers, numbers in their own size."""
    if isinstance(kind, types.CPointer):
        return "Q"
    number = np.dtype(str(kind)).type
    return f"{NUMBERS[number]}{8 - number().itemsize}x"


class _Here(threading.local):
    """What a thread packs arguments with; the driver reads them before it returns.

    packing : the buffer; the address of a table with the address of each eight bytes of it; the devices on which this
    thread has launched.
    """

    def __init__(self):
        buffer = ctypes.create_string_buffer(8 * PARAMETERS)
        start = ctypes.addressof(buffer)
        self._table = (ctypes.c_void_p * PARAMETERS)(*range(start, start + 8 * PARAMETERS, 8))
        self.packing = buffer, ctypes.addressof(self._table), set()


_here = _Here()


def _enter(device, entered):
    """The driver launches in the thread's context, which the runtime makes when the thread first asks it something."""
    _cupy().cuda.runtime.memGetInfo()
    entered.add(device)


class _Loaded:
    """A kernel on one device. The module has to live as long as its function is used."""

    __slots__ = ("module", "pointer", "shared")

    def __init__(self, module, function):
        self.module, self.pointer, self.shared = module, function.ptr, DEFAULT_SHARED


def _load(kernel, capability):
    arch = architecture(capability)
    try:
        cubin = kept_cubin(kernel, arch)
    except ImportError as error:
        raise RuntimeError(
            f"{kernel.name}: cannot be compiled for {arch}, the CUDA toolkit is not complete ({error}): pip install "
            "'handloom[cuda12]' or 'handloom[cuda13]', as the driver's version of CUDA is"
        ) from error
    module = _cupy().cuda.function.Module()
    module.load(cubin)
    return _Loaded(module, module.get_function(entry_of(cubin)))


def _allow_shared(loaded, shared):
    driver = _cupy().cuda.driver
    driver.funcSetAttribute(loaded.pointer, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
    loaded.shared = shared


# ---------------------------------------------------------------------------------------------------------------------
# What may be wrong with a launch


def _check_arguments(kernel, args, device=None):
    """Raises for the first argument that the kernel cannot take; `device` is the current one, None in the simulator."""
    if len(args) != len(kernel.types):
        raise TypeError(f"{kernel.name}: got {len(args)} arguments: must be {', '.join(kernel.parameters)}")
    for i, dtype in kernel._pointers:
        array, what = args[i], f"{kernel.name}: {kernel.parameters[i]} is"
        if not hasattr(array, "flags") or (device is None) != isinstance(array, np.ndarray):
            raise TypeError(f"{what} a {type(array).__name__}: must be an array on the GPU, a CuPy array")
        if array.dtype != dtype and (array.dtype.name, dtype.name) != ("bfloat16", "uint16"):
            raise TypeError(f"{what} {array.dtype}: must be {dtype}, cast it with astype")
        if not array.flags.c_contiguous:
            raise ValueError(
                f"{what} {array.shape} with strides {array.strides}: must be C-contiguous, take arrays.contiguous of it"
            )
        if device is not None and array.data.device_id != device:
            other = array.data.device_id
            raise ValueError(
                f"{what} on GPU {other} and CuPy's current GPU is {device}: kernels run on the current one, launch it "
                f"inside `with cupy.cuda.Device({other})`, or move the array"
            )
    for i, number in kernel._numbers:
        try:
            with np.errstate(over="ignore"):
                held = number(operator.index(args[i]) if issubclass(number, np.integer) else args[i])
            if np.isinf(held) and not np.isinf(args[i]):
                raise OverflowError
        except (TypeError, ValueError, OverflowError) as error:
            what = f"{kernel.name}: {kernel.parameters[i]} is {args[i]!r}"
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{what}: must be a number that {number.__name__} can hold") from error


# Status codes of the driver; the runtime's are the same.
INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONFIGURATION, NO_BINARY, OUT_OF_RESOURCES = 1, 2, 9, 209, 701
# After these, which a kernel causes while it runs, CUDA refuses all that the process asks for.
STICKY = {214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719}
CAPTURE = range(900, 909)
LIMITS = "a grid may be 2147483647 x 65535 x 65535, and shared at most what the GPU has, 64 KB to 227 KB"


def _explain(kernel, grid, args, shared, error):
    """Raises an error with the names of kernel and arguments for one of the driver, or of an argument."""
    status = getattr(error, "status", None)
    if status is None:  # not the driver's
        _check_arguments(kernel, args, _cupy().cuda.runtime.getDevice())
        return
    given = ", ".join(f"{name}: {_describe(arg)}" for name, arg in zip(kernel.parameters, args))
    launch = f"{kernel.name}: cannot be launched ({error}); grid {grid}, block {kernel.block}, shared {shared}, {given}"
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"{launch}: the GPU's memory is full: take smaller batches, or delete arrays") from error
    if status in STICKY:
        way_out = (
            "a kernel that ran before failed, this one or another, and CUDA does nothing more for this process: start "
            "it again, with CUDA_LAUNCH_BLOCKING=1 to learn which one it was"
        )
    elif status in (INVALID_VALUE, INVALID_CONFIGURATION, OUT_OF_RESOURCES):
        way_out = LIMITS
    elif status == NO_BINARY:
        way_out = "it was compiled for another GPU: delete the folder of compiled kernels, HANDLOOM_CACHE_DIR"
    elif status in CAPTURE:
        way_out = "a stream that is being captured does not allow it, or what went before it"
    else:
        way_out = "see the CUDA driver's manual for this error"
    raise RuntimeError(f"{launch}: {way_out}") from error


def _describe(arg):
    return f"{arg.dtype} {arg.shape}" if hasattr(arg, "shape") and arg.shape != () else repr(arg)


def kept_cubin(kernel, arch) -> bytes:
    """The kernel's machine code for an architecture: carried here, from the cache, or compiled now."""
    folder = os.environ.get("HANDLOOM_CUBINS")
    if folder and (carried := store.read(carried_file(kernel, arch, Path(folder)))) is not None:
        return carried
    file = store.cache_folder() / kernel.folder_name() / kernel.file_name(arch)
    try:
        return store.get(file, lambda: compile_cubin(kernel, arch))
    except (ImportError, RuntimeError) as error:
        if folder:
            error.add_note(
                f"nor is it in HANDLOOM_CUBINS={folder}: make it anew from these sources, with "
                f"handloom warmup --device cuda --arch {arch} --out FOLDER"
            )
        raise


def carried_file(kernel, arch, folder) -> Path:
    """Where `handloom warmup --out` puts a kernel's machine code, whatever the versions of the toolkit."""
    return folder / source_hash(*kernel._sources) / kernel.file_name(arch)


def compile_cubin(kernel, arch: str) -> bytes:
    """The kernel's machine code for an architecture such as "sm_90a". Needs the toolkit, no GPU and no driver."""
    from cuda.core import Linker, LinkerOptions

    major, minor = map(int, re.fullmatch(r"sm_(\d+)(\d)[a-z]?", arch).groups())
    try:
        objects = _before_linking(kernel, min((major, minor), (8, 0)))
        options = LinkerOptions(arch=arch, link_time_optimization=True)
        return bytes(Linker(*objects, options=options).link("cubin").code)
    except Exception as error:
        raise RuntimeError(f"{kernel.name}: cannot be compiled for {arch}: {error}") from error


@cache
def _before_linking(kernel, capability):
    """What the linker makes machine code of, for this architecture and every later one. Nearly all the time goes into
    it. Made for sm_80 or for sm_90a, all 86 float32 kernels of the tests became the same instructions for sm_90a."""
    from cuda.core import ObjectCode

    with _for(capability), _row_stack():
        codes, _ = cuda.compile_all(
            kernel.function, types.void(*kernel.types), device=False, abi="numba", cc=capability, output="ltoir",
            launch_bounds=(prod(kernel.block), kernel.blocks),
        )  # fmt: skip
    return [code if isinstance(code, ObjectCode) else ObjectCode.from_ltoir(bytes(code)) for code in codes]


@contextmanager
def _for(capability):
    """For the functions that a kernel calls, Numba asks the current GPU what it is. Here it is told, and needs none."""
    from numba.cuda import dispatcher

    ask, told = dispatcher.get_current_device, SimpleNamespace(compute_capability=capability)
    dispatcher.get_current_device = lambda: told
    try:
        yield
    finally:
        dispatcher.get_current_device = ask


@contextmanager
def _row_stack():
    """np.row_stack, which NumPy 2.5 no longer has. numba-cuda 0.30 looks for it before it compiles anything."""
    if hasattr(np, "row_stack"):
        yield
        return
    np.row_stack = lambda arrays: np.vstack(arrays)
    try:
        yield
    finally:
        del np.row_stack


def entry_of(cubin: bytes) -> str:
    """The name of the kernel in its machine code."""
    return re.search(rb"\.text\.([\w$]+)", cubin).group(1).decode()
