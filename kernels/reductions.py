"""Reductions among the threads of a CUDA kernel: each ends with its result in every thread.

    warp_sum, warp_highest, warp_lowest     of a number in each lane, by shuffles; all 32 lanes must take part
    block_sum                               of a number in each thread of a block of whole warps; all must take part

The order is fixed, so that the same numbers always give the same bits. After a shuffle both lanes of a pair hold the
same: a + b is b + a, and so all lanes end with one result.
"""

from numba import cuda

from .ptx import load, store

WARP = 32
ALL = 0xFFFFFFFF  # lanes that take part

device = cuda.jit(device=True, forceinline=True)


@device
def higher(a, b):
    """The larger one; NaN if there is one."""
    return b if b > a or b != b else a


@device
def warp_sum(value):
    """The sum of the lanes' numbers."""
    value += cuda.shfl_xor_sync(ALL, value, 16)
    value += cuda.shfl_xor_sync(ALL, value, 8)
    value += cuda.shfl_xor_sync(ALL, value, 4)
    value += cuda.shfl_xor_sync(ALL, value, 2)
    value += cuda.shfl_xor_sync(ALL, value, 1)
    return value


@device
def warp_highest(value):
    """The largest of the lanes' numbers; NaN if there is one."""
    value = higher(value, cuda.shfl_xor_sync(ALL, value, 16))
    value = higher(value, cuda.shfl_xor_sync(ALL, value, 8))
    value = higher(value, cuda.shfl_xor_sync(ALL, value, 4))
    value = higher(value, cuda.shfl_xor_sync(ALL, value, 2))
    return higher(value, cuda.shfl_xor_sync(ALL, value, 1))


@device
def warp_lowest(value):
    """The smallest of the lanes' numbers, which are integers."""
    value = min(value, cuda.shfl_xor_sync(ALL, value, 16))
    value = min(value, cuda.shfl_xor_sync(ALL, value, 8))
    value = min(value, cuda.shfl_xor_sync(ALL, value, 4))
    value = min(value, cuda.shfl_xor_sync(ALL, value, 2))
    return min(value, cuda.shfl_xor_sync(ALL, value, 1))


@device
def block_sum(value, shared):
    """The sum of the threads' numbers; `shared` is shared memory for a number of each warp, and free again after."""
    value = warp_sum(value)
    if cuda.threadIdx.x % WARP == 0:
        store(shared, cuda.threadIdx.x // WARP, value)
    cuda.syncthreads()
    value = load(shared, 0)
    for warp in range(1, cuda.blockDim.x // WARP):
        value += load(shared, warp)
    cuda.syncthreads()
    return value
