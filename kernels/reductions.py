"""Reductions among the threads of a CUDA kernel: each ends with its result in every thread.

    group_sum, group_highest, group_lowest      of a number in each of `lanes` neighbouring lanes, by shuffles: a power
                                                of two, 32 at most, the same for all lanes of the warp, which all take
                                                part
    block_sum, block_highest, block_lowest      of a number in each thread of a block of THREADS; all take part

The order is fixed, so that the same numbers always give the same bits. After a shuffle both lanes of a pair hold the
same: a + b is b + a, and so all lanes end with one result.

A number that depends on a condition is made before the call, not in it: of `return group_sum(a if c else b, lanes)`
Python makes two calls from 3.12 on, one behind each branch, and half of a warp would wait in each for the other half.
"""

from numba import cuda, int32

from .ptx import load, store

WARP = 32
THREADS = 256
WARPS = THREADS // WARP
ALL = 0xFFFFFFFF  # lanes that take part

device = cuda.jit(device=True, forceinline=True)


@device
def higher(a, b):
    """The larger one; NaN if there is one."""
    return b if b > a or b != b else a


@device
def group_sum(value, lanes):
    """The sum of the lanes' numbers."""
    other = int32(lanes >> 1)
    while other > 0:
        value += cuda.shfl_xor_sync(ALL, value, other)
        other = int32(other >> 1)
    return value


@device
def group_highest(value, lanes):
    """The largest of the lanes' numbers; NaN if there is one."""
    other = int32(lanes >> 1)
    while other > 0:
        value = higher(value, cuda.shfl_xor_sync(ALL, value, other))
        other = int32(other >> 1)
    return value


@device
def group_lowest(value, lanes):
    """The smallest of the lanes' numbers, which are integers."""
    other = int32(lanes >> 1)
    while other > 0:
        value = min(value, cuda.shfl_xor_sync(ALL, value, other))
        other = int32(other >> 1)
    return value


def over_block(group):
    """The same among all threads of a block: in each warp first, then each warp joins what all found. `shared` is
    shared memory for a number of each warp, and free again after."""

    @device
    def reduce(value, shared):
        value = group(value, WARP)
        if cuda.threadIdx.x % WARP == 0:
            store(shared, cuda.threadIdx.x // WARP, value)
        cuda.syncthreads()
        value = group(load(shared, cuda.threadIdx.x % WARPS), WARPS)
        cuda.syncthreads()
        return value

    return reduce


block_sum, block_highest, block_lowest = map(over_block, (group_sum, group_highest, group_lowest))
