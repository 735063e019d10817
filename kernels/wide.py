"""Runs of neighbouring numbers for one thread of a CUDA kernel, 16 bytes an access where the arrays allow it.

    fetch, put = accesses(T, count, width)
    numbers = cuda.local.array(count, T)
    fetch(x, first, left, numbers)          numbers = x[first : first + count], of which `left` numbers are there
    put(y, first, left, numbers)            and back

A kernel made for a width of 1 takes arrays that start anywhere; the host chooses, with `width_of`.
"""

from functools import cache

from numba import cuda

from .arrays import address
from .ptx import load, load4, store, store4

VECTOR = 16  # bytes


def width_of(*arrays) -> int:
    """How many numbers of these flat arrays one access takes: those in 16 bytes, or 1 where one starts between.
    None is skipped."""
    if all(array is None or address(array) % VECTOR == 0 for array in arrays):
        return VECTOR // arrays[0].itemsize
    return 1


@cache
def vector_of(V):
    """The function that makes a tuple of V numbers from numbers[at] on."""

    @cuda.jit(device=True, forceinline=True)
    def two(numbers, at):
        return numbers[at], numbers[at + 1]

    @cuda.jit(device=True, forceinline=True)
    def four(numbers, at):
        return numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]

    return four if V == 4 else two


@cache
def accesses(T, count, width):
    """(fetch, put) for `count` numbers of type T, `width` of them at once (1, or as many as there are in 16 bytes)."""
    vector = vector_of(8 * VECTOR // T.bitwidth)

    @cuda.jit(device=True, forceinline=True)
    def fetch(memory, first, left, numbers):
        """numbers = memory[first : first + count], and zeros where there are not as many left."""
        if width > 1 and left >= count:
            for v in range(0, count, width):
                loaded = load4(memory, first + v)
                for k in range(width):
                    numbers[v + k] = loaded[k]
        else:
            for v in range(count):
                numbers[v] = T(0)
                if v < left:
                    numbers[v] = load(memory, first + v)

    @cuda.jit(device=True, forceinline=True)
    def put(memory, first, left, numbers):
        """memory[first : first + count] = numbers, as far as there are `left`."""
        if width > 1 and left >= count:
            for v in range(0, count, width):
                store4(memory, first + v, vector(numbers, v))
        else:
            for v in range(count):
                if v < left:
                    store(memory, first + v, numbers[v])

    return fetch, put
