"""What all losses share: the limits of probabilities, and how the blocks' parts become one number."""

import math
from functools import cache

from numba import cuda, int64

from ...arrays import namespace
from ...launch import kernel, pointer
from ...ptx import load, log, store
from ...reductions import THREADS, WARPS, block_sum, device

# Terms that are added up before they are added to a total.
BLOCK = 32
# Probabilities are kept this far from 0 and 1, as Keras does; and so are their logarithms, as 1 - 1e-7 is no float32.
LOWEST, HIGHEST = 1e-7, 1.0 - 1e-7
LOG_LOWEST, LOG_HIGHEST = math.log(LOWEST), math.log(HIGHEST)


@device
def log_of_clipped(p):
    """log(p), p kept between LOWEST and HIGHEST."""
    T = type(p)
    y = log(T(LOWEST) if p < T(LOWEST) else p)
    return T(LOG_HIGHEST) if y > T(LOG_HIGHEST) else y


@device
def is_clipped(p):
    return p < type(p)(LOWEST) or p > type(p)(HIGHEST)


@cache
def add_up(T):
    @kernel(threads=THREADS)
    def add_up_parts(parts: pointer(T), count: int64, total: pointer(T)):
        """One block; one thread: every 256th part."""
        shared = cuda.shared.array(WARPS, T)
        mine = T(0)
        for block in range(int64(cuda.threadIdx.x), count, BLOCK * THREADS):
            some = T(0)
            for i in range(block, min(count, block + BLOCK * THREADS), THREADS):
                some += load(parts, i)
            mine += some
        mine = block_sum(mine, shared)
        if cuda.threadIdx.x == 0:
            store(total, 0, mine)

    return add_up_parts


def total_of(T, parts):
    """The sum of the blocks' parts as an array without dimensions."""
    if parts.size == 1:
        return parts.reshape(())
    total = namespace(parts).empty((1,), parts.dtype)
    add_up(T)((1,), parts, parts.size, total)
    return total.reshape(())


def scale_of(dloss, y, count):
    """What kernels multiply gradients by: (an array, whether to multiply by its number, another number)."""
    if isinstance(dloss, float):
        return y, False, dloss / count
    return dloss, True, 1.0 / count
