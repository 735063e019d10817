"""Reductions among the threads of a CUDA kernel: each ends with its result in every thread.

    group_sum, group_highest, group_lowest      of a number in each of `lanes` neighbouring lanes, by shuffles: a power
                                                of two, 32 at most, the same for all lanes of the warp, which all take
                                                part
    block_sum                                   of a number in each thread of a block of whole warps; all take part

The order is fixed, so that the same numbers always give the same bits. After a shuffle both lanes of a pair hold the
same: a + b is b + a, and so all lanes end with one result.

A number that depends on a condition is made before the call, not in it: of `return group_sum(a if c else b, lanes)`
Python makes two calls from 3.12 on, one behind each branch, and half of a warp would wait in each for the other half.

    row_lanes, row_and_lane                     for kernels in which a group has a row: how large it is, and who is who
"""

from numba import cuda, int32, int64, uint32

from .ptx import load, shift_right, store

WARP = 32
ALL = 0xFFFFFFFF  # lanes that take part
# How many accesses to a row a lane has, before another one shares it: what a row costs besides is several times that.
ACCESSES = 4

device = cuda.jit(device=True, forceinline=True)


def row_lanes(length: int, width: int) -> tuple[int, int]:
    """How many lanes share a row, of which an access takes `width` numbers; and the logarithm of that."""
    bits = min(5, (-(-length // (ACCESSES * width)) - 1).bit_length())
    return 1 << bits, bits


@device
def row_and_lane(threads, lanes, lanes_bits):
    """The row that a thread of a block of so many works at, and its place among the row's lanes."""
    thread = int32(cuda.threadIdx.x)
    number = int32(shift_right(uint32(thread), lanes_bits))
    rows = int32(shift_right(uint32(threads), lanes_bits))
    return int64(cuda.blockIdx.x) * rows + number, int32(thread - number * lanes)


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


@device
def block_sum(value, shared):
    """The sum of the threads' numbers; `shared` is shared memory for a number of each warp, and free again after."""
    value = group_sum(value, WARP)
    if cuda.threadIdx.x % WARP == 0:
        store(shared, cuda.threadIdx.x // WARP, value)
    cuda.syncthreads()
    value = load(shared, 0)
    for warp in range(1, cuda.blockDim.x // WARP):
        value += load(shared, warp)
    cuda.syncthreads()
    return value
