"""Random numbers on an NVIDIA GPU: one thread, one block of Philox; the counter is the thread's number.

The bits are those of the CPU. So are uniform numbers, permutations and the masks of dropout, exactly; normal numbers
are computed in float64 here as there, with the same polynomials but the GPU's own logarithm, and differ by two units in
the last place of float64 at most.
"""

import math
from functools import cache

import numpy as np
from numba import cuda, float64, int32, int64, uint32, uint64

from ..arrays import namespace
from ..launch import element_of, kernel, pointer
from ..ptx import load, log, multiply_high, sqrt, store
from ..wide import accesses, width_of
from .series import COS, ERF_SQRT2, PROBIT, SIN, TAU, W_HALF

THREADS = 256

LOW = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
MAX_INT64 = (1 << 63) - 1


@cuda.jit(device=True, forceinline=True)
def philox(block, step, stream, key_0, key_1):
    """The four 32-bit words of a block. Both halves of a product become one instruction, and Python's integers wrap
    nowhere: hence the types."""
    a, b, c, d = uint32(block & LOW), uint32(block >> 32), uint32(step), uint32(stream)
    for _ in range(10):
        upper_a = multiply_high(a, uint32(MULTIPLIER_0))
        lower_a = uint32(uint64(a) * uint64(MULTIPLIER_0) & uint64(LOW))
        upper_c = multiply_high(c, uint32(MULTIPLIER_1))
        lower_c = uint32(uint64(c) * uint64(MULTIPLIER_1) & uint64(LOW))
        a, b = uint32(upper_c ^ b ^ key_0), lower_c
        c, d = uint32(upper_a ^ d ^ key_1), lower_a
        key_0 = uint32((uint64(key_0) + uint64(WEYL_0)) & uint64(LOW))
        key_1 = uint32((uint64(key_1) + uint64(WEYL_1)) & uint64(LOW))
    return a, b, c, d


@cuda.jit(device=True, forceinline=True)
def long_of(words, k):
    """Word k of 64 bits: the lower half comes first."""
    return uint64(words[2 * k]) | uint64(words[2 * k + 1]) << uint64(32)


# ---------------------------------------------------------------------------------------------------------------------
# Uniform


@cache
def uniform_kernel(T, width):
    each = 128 // T.bitwidth  # numbers from a block
    _, put = accesses(T, each, width)

    @kernel(threads=THREADS)
    def draw_uniform(
        out: pointer(T), size: int64, low: T, unit: T, below: T, step: uint32, stream: uint32, key_0: uint32,
        key_1: uint32,
    ):  # fmt: skip
        """One thread: the 16 bytes of a block, low + unit * (the upper 24 or 53 bits of a word), never above `below`,
        the last number under the upper end."""
        block = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if block * each < size:
            words = philox(block, step, stream, key_0, key_1)
            numbers = cuda.local.array(each, T)
            for k in range(each):
                if each == 4:
                    whole = T(uint32(words[k] >> uint32(8)))
                else:
                    whole = T(long_of(words, k) >> uint64(11))
                number = cuda.fma(whole, unit, low)
                if number > below:
                    number = below
                numbers[k] = number
            put(out, block * each, size - block * each, numbers)

    return draw_uniform


def _grid(threads):
    return (-(-threads // THREADS),)


def uniform(out, low, high, key):
    bits = 24 if out.itemsize == 4 else 53
    below = np.nextafter(out.dtype.type(high), out.dtype.type(low))
    draw = uniform_kernel(element_of(out), width_of(out))
    blocks = -(-out.nbytes // 16)
    draw(_grid(blocks), out, out.size, low, (high - low) * 2.0**-bits, below, *key)


# ---------------------------------------------------------------------------------------------------------------------
# Normal, in float64 for both dtypes


def _polynomial(coefficients):
    """A device function: the polynomial of x, by Horner's rule."""
    highest, rest = coefficients[-1], coefficients[-2::-1]

    @cuda.jit(device=True, forceinline=True)
    def value(x):
        total = float64(highest)
        for coefficient in rest:
            total = cuda.fma(total, x, coefficient)
        return total

    return value


_sin, _cos, _probit = _polynomial(SIN), _polynomial(COS), _polynomial(PROBIT)
ONE_RADIAN = TAU * 2.0**-53  # 2π t of a whole number t of 53 bits


@cuda.jit(device=True, forceinline=True)
def box_muller(u, t):
    """√(-2 ln u) times (cos 2πt, sin 2πt) of u, t in units of 2**-53: the nearest quarter turn is taken off t, which
    leaves at most an eighth."""
    radius = sqrt(log(float64(u) * 2.0**-53) * -2.0)
    turn = (t + (int64(1) << 50)) >> 51
    x = float64(t - (turn << 51)) * ONE_RADIAN
    sine, cosine = x * _sin(x * x), _cos(x * x)
    first, second = cosine, sine
    if turn & 1:
        first, second = sine, cosine
    if (turn + 1) & 2:
        first = -first
    if turn & 2:
        second = -second
    return radius * first, radius * second


@cache
def normal_kernel(T):
    @kernel(threads=THREADS)
    def draw_normal(
        out: pointer(T), size: int64, mean: float64, stddev: float64, step: uint32, stream: uint32, key_0: uint32,
        key_1: uint32,
    ):  # fmt: skip
        """One thread: the two numbers of a block, of which one word gives the radius, the other the angle."""
        block = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if 2 * block < size:
            words = philox(block, step, stream, key_0, key_1)
            u, t = int64(long_of(words, 0) >> uint64(11)) + 1, int64(long_of(words, 1) >> uint64(11))
            z, z_next = box_muller(u, t)
            store(out, 2 * block, T(cuda.fma(z, stddev, mean)))
            if 2 * block + 1 < size:
                store(out, 2 * block + 1, T(cuda.fma(z_next, stddev, mean)))

    return draw_normal


def normal(out, mean, stddev, key):
    normal_kernel(element_of(out))(_grid(-(-out.size // 2)), out, out.size, mean, stddev, *key)


@cache
def truncated_normal_kernel(T):
    @kernel(threads=THREADS)
    def draw_truncated_normal(
        out: pointer(T), size: int64, mean: float64, stddev: float64, step: uint32, stream: uint32, key_0: uint32,
        key_1: uint32,
    ):  # fmt: skip
        """One thread: the two numbers of a block, each the inverse distribution function of 52 bits, kept within two
        by its last rounding."""
        block = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if 2 * block < size:
            words = philox(block, step, stream, key_0, key_1)
            for k in range(2):
                whole = float64(int64(long_of(words, k) >> uint64(12)))
                v = cuda.fma(whole, 2.0**-51, 2.0**-52 - 1.0) * ERF_SQRT2
                w = -log((1.0 - v) * (1.0 + v))
                z = v * _probit(cuda.fma(w, 1 / W_HALF, -1.0))
                z = min(max(z, -2.0), 2.0)
                if 2 * block + k < size:
                    store(out, 2 * block + k, T(cuda.fma(z, stddev, mean)))

    return draw_truncated_normal


def truncated_normal(out, mean, stddev, key):
    truncated_normal_kernel(element_of(out))(_grid(-(-out.size // 2)), out, out.size, mean, stddev, *key)


# ---------------------------------------------------------------------------------------------------------------------
# Permutation: a bitonic sort of (random key, number). No two pairs are equal, so every way of sorting gives the same
# order. (K. Batcher: "Sorting Networks and Their Applications", AFIPS 1968.)

# Pairs that a block sorts in shared memory: two a thread.
TILE = 2 * THREADS


@kernel(threads=THREADS)
def draw_pairs(
    keys: pointer(int64), order: pointer(int64), room: int64, n: int64, step: uint32, stream: uint32, key_0: uint32,
    key_1: uint32,
):  # fmt: skip
    """One thread: the two pairs of a block. Those from n on fill up the room; they sort behind all others."""
    block = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    words = philox(block, step, stream, key_0, key_1)
    for k in range(2):
        number, drawn = 2 * block + k, int64(long_of(words, k) >> uint64(1))
        if number < room:
            store(keys, number, drawn if number < n else int64(MAX_INT64))
            store(order, number, number)


@cuda.jit(device=True, forceinline=True)
def exchange(keys, order, first, stride, rising):
    """Put the pairs at `first` and `first` + stride in order."""
    second = first + stride
    key, number, key_next, number_next = load(keys, first), load(order, first), load(keys, second), load(order, second)
    above = key > key_next or (key == key_next and number > number_next)
    if above == rising:
        store(keys, first, key_next)
        store(order, first, number_next)
        store(keys, second, key)
        store(order, second, number)


@kernel(threads=THREADS)
def merge_far(keys: pointer(int64), order: pointer(int64), size: int64, stride: int64):
    """One thread: one exchange over a distance that no block spans. Runs of `size` rise and fall in turn."""
    i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    first = 2 * i - (i & (stride - 1))
    exchange(keys, order, first, stride, (first & size) == 0)


@kernel(threads=THREADS)
def merge_near(keys: pointer(int64), order: pointer(int64), size: int64, last: int64):
    """One block: 512 pairs in shared memory (8 KB), through all exchanges within them that make sorted runs of `size`,
    then of twice as many, up to `last`."""
    tile_keys = cuda.shared.array(TILE, int64)
    tile_order = cuda.shared.array(TILE, int64)
    thread, start = int64(cuda.threadIdx.x), int64(cuda.blockIdx.x) * TILE
    for k in range(2):
        at = thread + k * THREADS
        store(tile_keys, at, load(keys, start + at))
        store(tile_order, at, load(order, start + at))
    while size <= last:
        stride = min(size, int64(TILE)) >> 1
        while stride > 0:
            cuda.syncthreads()
            first = 2 * thread - (thread & (stride - 1))
            exchange(tile_keys, tile_order, first, stride, ((start + first) & size) == 0)
            stride >>= 1
        size *= 2
    cuda.syncthreads()
    for k in range(2):
        at = thread + k * THREADS
        store(keys, start + at, load(tile_keys, at))
        store(order, start + at, load(tile_order, at))


def permutation(out, key):
    n, xp = out.size, namespace(out)
    room = max(TILE, 1 << (n - 1).bit_length()) if n else 0
    keys, order, blocks = xp.empty((room,), out.dtype), xp.empty((room,), out.dtype), (room // TILE,)
    draw_pairs(blocks, keys, order, room, n, *key)
    merge_near(blocks, keys, order, 2, TILE)
    size = 2 * TILE
    while size <= room:
        stride = size // 2
        while stride >= TILE:
            merge_far(blocks, keys, order, size, stride)
            stride //= 2
        merge_near(blocks, keys, order, size, size)
        size *= 2
    out[...] = order[:n]


# ---------------------------------------------------------------------------------------------------------------------
# Dropout


@cache
def dropout_kernel(T, width):
    fetch, put = accesses(T, 4, width)

    @kernel(threads=THREADS)
    def drop(
        x: pointer(T), y: pointer(T), size: int64, threshold: int32, scale: T, steps: pointer(int64), known: int32,
        step: uint32, stream: uint32, key_0: uint32, key_1: uint32,
    ):  # fmt: skip
        """One thread: the four elements of a block, y = x * scale where their 24 bits reach the threshold, else 0. The
        step's number is `step`, or where that is not `known` steps[0]."""
        block = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        first, left = 4 * block, size - 4 * block
        if left > 0:
            numbers = cuda.local.array(4, T)
            fetch(x, first, left, numbers)
            if not known:
                step = uint32(load(steps, 0))
            words = philox(block, step, stream, key_0, key_1)
            for k in range(4):
                if int32(words[k] >> uint32(8)) >= threshold:
                    numbers[k] *= scale
                else:
                    numbers[k] = T(0)
            put(y, first, left, numbers)

    return drop


def dropout(x, rate, key, step=None):
    """A `step` of its own, an array of one, goes before that in the key: a replay reads what then stands there."""
    xp = namespace(x)
    y, x = xp.empty(x.shape, x.dtype), xp.ascontiguousarray(x)
    known = step is None
    steps = xp.empty((1,), np.int64) if known else step
    threshold, scale = math.ceil(rate * 2**24), 1 / (1 - rate)
    drop = dropout_kernel(element_of(x), width_of(x))
    drop(_grid(-(-x.size // 4)), x, y, x.size, threshold, scale, steps, known, *key)
    return y
