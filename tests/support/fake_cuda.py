"""As much of CuPy as launches kernels and captures streams, and no GPU: it notes, or does on the host, what it is told.

What the real one does is not tested with it, only what handloom asks of it.
"""

import ctypes
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np

from handloom.kernels import launch


class CUDADriverError(RuntimeError):
    """As CuPy's: a text, and the driver's number."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Array:
    """`cupy.ndarray`, by what a launch looks at."""

    __module__ = "cupy"

    def __init__(self, data, gpu=0):
        self._data = data
        self.data = SimpleNamespace(device_id=gpu, ptr=data.ctypes.data)
        self.dtype, self.shape, self.strides, self.flags = data.dtype, data.shape, data.strides, data.flags
        self._c_contiguous = data.flags.c_contiguous


class Function:
    """A kernel in a module: `launches` lists (grid, block, arguments, shared) of all, `error` is raised instead.

    Arguments are the first bytes at the addresses that the driver was given, eight each.
    """

    launches, allowed, error = [], [], None

    ptr, parameters = 77, 4

    @staticmethod
    def launch(function, x, y, z, block_x, block_y, block_z, shared, stream, addresses, extra):
        assert (function, stream, extra) == (Function.ptr, Stream.current.ptr, 0)
        if Function.error is not None:
            raise Function.error
        words = (ctypes.c_size_t * Function.parameters).from_address(addresses)
        args = b"".join(ctypes.string_at(address, 8) for address in words)
        Function.launches.append(((x, y, z), (block_x, block_y, block_z), args, shared))


class Module:
    loaded = []

    def load(self, cubin):
        Module.loaded.append((Stream.gpu, cubin))

    def get_function(self, name):
        return Function()


class Graph:
    def __init__(self, operations):
        self.operations = operations

    def launch(self):
        assert Stream.current.operations is None, "launched on a stream that is captured"
        for operation in self.operations:
            operation()


class Stream:
    """`current` is CuPy's; `operations` what has been captured of this one, None where it is not."""

    gpu = 0
    current = None
    ptr = 5

    def __init__(self, non_blocking=False):
        self.operations, self.fault, self._before = None, None, []

    def __enter__(self):
        self._before.append(Stream.current)
        Stream.current = self
        return self

    def __exit__(self, *error):
        Stream.current = self._before.pop()

    def begin_capture(self):
        assert Stream.current is self and self.operations is None
        self.operations = []

    def end_capture(self):
        assert Stream.current is self
        operations, self.operations = self.operations, None
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return Graph(operations)


def do(operation):
    """What a launch comes to: now, or, on a stream that is captured, when the graph is launched."""
    if Stream.current.operations is None:
        operation()
    else:
        Stream.current.operations.append(operation)


def synchronize():
    """What reading an array comes to: forbidden while a stream is captured, whose graph is lost by it."""
    if Stream.current.operations is not None:
        Stream.current.fault = CUDADriverError(901, "cudaErrorStreamCaptureInvalidated")
        raise CUDADriverError(900, "cudaErrorStreamCaptureUnsupported")


class Memory:
    def __init__(self, size):
        self.size = size


class MemoryPool:
    """`current` is the `malloc` that arrays are made by."""

    current = "the default pool's"

    def __init__(self, allocate):
        self.malloc = allocate


def install(monkeypatch):
    """A module `cupy` until the test ends, with GPU 0 in use."""

    @contextmanager
    def using_allocator(allocator):
        before, MemoryPool.current = MemoryPool.current, allocator
        try:
            yield
        finally:
            MemoryPool.current = before

    def function_set_attribute(function, attribute, value):
        assert (function, attribute) == (Function.ptr, 8)
        if value > 200_000:
            raise CUDADriverError(1, "CUDA_ERROR_INVALID_VALUE: invalid argument")
        Function.allowed.append(value)

    for owner, name, value in (
        (Function, "launches", []),
        (Function, "allowed", []),
        (Function, "error", None),
        (Module, "loaded", []),
        (Stream, "gpu", 0),
        (Stream, "current", Stream()),
    ):
        monkeypatch.setattr(owner, name, value)
    cupy = ModuleType("cupy")
    cupy.ndarray = Array
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)
    cupy.cuda = SimpleNamespace(
        Device=lambda index: SimpleNamespace(compute_capability="90"),
        Memory=Memory,
        MemoryPointer=lambda memory, offset: SimpleNamespace(mem=memory),
        MemoryPool=MemoryPool,
        Stream=Stream,
        get_current_stream=lambda: Stream.current,
        using_allocator=using_allocator,
        runtime=SimpleNamespace(getDevice=lambda: Stream.gpu, memGetInfo=lambda: (1, 1)),
        function=SimpleNamespace(Module=Module),
        driver=SimpleNamespace(
            funcSetAttribute=function_set_attribute,
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            launchKernel=Function.launch,
        ),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(launch, "_cupy", lambda: cupy)
    monkeypatch.setattr(launch, "_asked_often", launch._asked_often.__wrapped__)  # not the one that remembers
    monkeypatch.setattr(launch, "kept_cubin", lambda kernel, arch: f"{arch}.text.{kernel.function.__name__} ".encode())
    return cupy


def ones(shape=(4,), dtype=np.float32, gpu=0):
    return Array(np.ones(shape, dtype), gpu)
