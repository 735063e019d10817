"""Arrays wherever they live: NumPy's on the CPU, CuPy's on a GPU, and stand-ins for those in the simulator.

Contracts and launchers make and lay out arrays through `namespace(x)`, which is NumPy, CuPy or, for the stand-ins, what
of NumPy is needed here.
"""

import operator

import numpy as np

from .recording import on_host


class SimulatedArray(np.ndarray):
    """NumPy memory that goes to the CUDA kernels, which then run in Numba's simulator (`NUMBA_ENABLE_CUDASIM=1`).

    >>> simulated(np.zeros(2, np.float32)).dtype
    dtype('float32')
    """


def simulated(array) -> SimulatedArray:
    """A copy of an array that the CUDA kernels take for one on a GPU."""
    return np.array(array).view(SimulatedArray)


class _Simulated:
    """NumPy's functions, giving stand-ins."""

    @staticmethod
    def empty(shape, dtype):
        return np.empty(shape, dtype).view(SimulatedArray)

    @staticmethod
    def zeros(shape, dtype):
        return np.zeros(shape, dtype).view(SimulatedArray)

    @staticmethod
    def ascontiguousarray(x, dtype=None):
        return np.ascontiguousarray(x, dtype).view(SimulatedArray)

    @staticmethod
    def concatenate(parts):
        return np.concatenate(parts).view(SimulatedArray)

    may_share_memory = staticmethod(np.may_share_memory)

    @staticmethod
    def broadcast_to(x, shape):
        return np.broadcast_to(x, shape, subok=True)


def namespace(x):
    """The module that makes arrays like `x`."""
    if type(x) is np.ndarray:
        return np
    if isinstance(x, np.ndarray):  # or a subclass that is NumPy's, such as np.memmap
        return _Simulated if isinstance(x, SimulatedArray) else np
    import cupy

    return cupy


def is_contiguous(x) -> bool:
    """Whether x is in C order. CuPy makes an object for `flags`, at five times the price of what it looks at."""
    return x.flags.c_contiguous if isinstance(x, np.ndarray) else x._c_contiguous


def contiguous(x, dtype=None):
    """x in C order and that dtype: itself where it is so, else a copy, which a replay makes again (recording.py)."""
    if is_contiguous(x) and (dtype is None or x.dtype == dtype):
        return x
    return copy_of(x, dtype)


def flat(x):
    """x in C order and one dimension: a view of it where it is contiguous."""
    return contiguous(x).reshape(-1)


def copy_of(x, dtype=None):
    """A copy in C order, which a replay makes again."""
    copy = namespace(x).empty(x.shape, x.dtype if dtype is None else dtype)
    compute(operator.setitem, copy, ..., x)
    return copy


def compute(function, result, *args):
    """function(result, *args), now and at each replay: something in NumPy's words, which writes to `result`."""
    if isinstance(result, np.ndarray):
        on_host(function, result, *args)
    else:
        function(result, *args)  # CuPy launches it as kernels are launched, and it is captured with them (graphs.py)


def address(x) -> int:
    """Where an array's memory starts."""
    return x.ctypes.data if isinstance(x, np.ndarray) else x.data.ptr
