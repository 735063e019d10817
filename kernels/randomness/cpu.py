"""Random numbers on a CPU: Philox in vectors, eight blocks at a time with AVX-512.

A chunk is CHUNK elements. Its random bits are drawn into a small array that stays in the first-level cache, then
turned into numbers from there, so no kernel cares how the four words of a block lie in the vectors.
"""

import math

import numpy as np

from .. import simd
from ..arrays import contiguous
from ..jit import jit
from ..simd import (
    bits_to_float,
    even_lanes,
    float_to_bits,
    fma,
    lane_numbers,
    lanes,
    odd_lanes,
    polynomial,
    select,
    stack_array,
    to_float,
    to_int,
    vfill,
    viewed,
    vload,
    vload_as,
    vload_part,
    vround,
    vsqrt,
    vstore,
    vstore_as_part,
    vstore_part,
    zip_high,
    zip_low,
)
from ..threads import threaded
from .series import COS, ERF_SQRT2, PROBIT, SIN, TAU, W_HALF

CHUNK = 2048
# Arithmetic for one element, for the choice between threads and none.
WORK = 8

LOW = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
MAX_INT64 = (1 << 63) - 1


@jit(inner=True)
def philox(words, first, count, step, stream, key_0, key_1):
    """words[2 i], words[2 i + 1] = the four 32-bit words of block first + i, for i below `count`, in 64-bit pairs.

    Each lane holds one block: a word fills the lower half of a 64-bit lane, so that products do not overflow.
    `count` is rounded up to a whole vector, and `words` has room for that.
    """
    numbers = lane_numbers(words)
    for i in range(0, count, lanes(words)):
        block = numbers + (first + i)
        a, b = block & LOW, (block >> 32) & LOW
        c, d = vfill(words, step), vfill(words, stream)
        round_key_0, round_key_1 = key_0, key_1
        for _ in range(10):
            low, high = a * MULTIPLIER_0, c * MULTIPLIER_1
            a, b = ((high >> 32) ^ b ^ round_key_0) & LOW, high & LOW
            c, d = ((low >> 32) ^ d ^ round_key_1) & LOW, low & LOW
            round_key_0, round_key_1 = (round_key_0 + WEYL_0) & LOW, (round_key_1 + WEYL_1) & LOW
        front, back = a | (b << 32), c | (d << 32)
        vstore(words, 2 * i, zip_low(front, back))
        vstore(words, 2 * i + lanes(words), zip_high(front, back))


# ---------------------------------------------------------------------------------------------------------------------
# Uniform


@jit
def uniform_chunk(chunk, out, low, width, below, step, stream, key_0, key_1):
    """low + width * (the upper 24 or 53 bits of a word), never above `below`, the last number under the upper end."""
    first = chunk * CHUNK
    count = min(CHUNK, out.size - first)
    words = stack_array(np.int64, CHUNK)
    each = 16 // out.itemsize
    philox(words, first // each, (count + each - 1) // each, step, stream, key_0, key_1)
    drawn = viewed(words, out)
    bits = 24 if out.itemsize == 4 else 53
    for i in range(0, count, lanes(out)):
        whole = (float_to_bits(vload(drawn, i)) >> (8 * out.itemsize - bits)) & ((1 << bits) - 1)
        number = fma(to_float(whole), width, low)
        vstore_part(out, first + i, select(number > below, below, number), count - i)


_uniform = threaded(uniform_chunk)


def uniform(out, low, high, key):
    bits = 24 if out.itemsize == 4 else 53
    below = float(np.nextafter(out.dtype.type(high), out.dtype.type(low)))
    _uniform(_chunks(out.size), WORK * out.size, out, low, (high - low) * 2.0**-bits, below, *key)


def _chunks(size):
    return -(-size // CHUNK)


# ---------------------------------------------------------------------------------------------------------------------
# Normal, in float64: polynomials, since calls into a library would take one lane at a time and differ between machines

# 2 artanh(s) / s in s², up to s = (√2 - 1) / (√2 + 1)
_artanh = polynomial(*(2 / (2 * k + 1) for k in range(11)))
_sin, _cos, _probit = polynomial(*SIN), polynomial(*COS), polynomial(*PROBIT)
LN2, SQRT2 = math.log(2), math.sqrt(2)
MANTISSA, ONE = (1 << 52) - 1, 1023 << 52


@jit(inline=True)
def log(u):
    """ln u of normal positive numbers: u = 2^e m with m in [√½, √2), ln m = 2 artanh((m - 1) / (m + 1))."""
    bits = float_to_bits(u)
    exponent = to_float((bits >> 52) - 1023)
    m = bits_to_float((bits & MANTISSA) | ONE)
    large = m > SQRT2
    m = select(large, m * 0.5, m)
    exponent = select(large, exponent + 1.0, exponent)
    s = (m - 1.0) / (m + 1.0)
    return fma(exponent, LN2, s * _artanh(s * s))


@jit(inline=True)
def box_muller(u, t):
    """√(-2 ln u) times (cos 2πt, sin 2πt): the nearest quarter turn is taken off t, which leaves at most an eighth."""
    radius = vsqrt(log(u) * -2.0)
    quarters = vround(t * 4.0)
    x = (t - quarters * 0.25) * TAU
    sine, cosine = x * _sin(x * x), _cos(x * x)
    turn = to_int(quarters)
    odd = (turn & 1) == 1
    first, second = select(odd, sine, cosine), select(odd, cosine, sine)
    first = select(((turn + 1) & 2) == 2, -first, first)
    second = select((turn & 2) == 2, -second, second)
    return radius * first, radius * second


@jit
def normal_chunk(chunk, out, mean, stddev, step, stream, key_0, key_1):
    """Two vectors of 64-bit words become two of numbers: even lanes give the radius, odd ones the angle."""
    first = chunk * CHUNK
    count = min(CHUNK, out.size - first)
    words = stack_array(np.int64, CHUNK)
    philox(words, first // 2, (count + 1) // 2, step, stream, key_0, key_1)
    for i in range(0, count, 2 * lanes(words)):
        one, two = vload(words, i), vload(words, i + lanes(words))
        u = to_float(((even_lanes(one, two) >> 11) & ((1 << 53) - 1)) + 1) * 2.0**-53
        t = to_float((odd_lanes(one, two) >> 11) & ((1 << 53) - 1)) * 2.0**-53
        z, z_next = box_muller(u, t)
        vstore_as_part(out, first + i, fma(zip_low(z, z_next), stddev, mean), count - i)
        second = i + lanes(words)
        vstore_as_part(out, first + second, fma(zip_high(z, z_next), stddev, mean), count - second)


_normal = threaded(normal_chunk)


def normal(out, mean, stddev, key):
    _normal(_chunks(out.size), 2 * WORK * out.size, out, mean, stddev, *key)


@jit
def truncated_normal_chunk(chunk, out, mean, stddev, step, stream, key_0, key_1):
    """The inverse distribution function of one 52-bit number an element, kept within two by its last rounding."""
    first = chunk * CHUNK
    count = min(CHUNK, out.size - first)
    words = stack_array(np.int64, CHUNK)
    philox(words, first // 2, (count + 1) // 2, step, stream, key_0, key_1)
    for i in range(0, count, lanes(words)):
        whole = to_float((vload(words, i) >> 12) & MANTISSA)
        v = fma(whole, 2.0**-51, 2.0**-52 - 1.0) * ERF_SQRT2
        w = -log((1.0 - v) * (1.0 + v))
        z = v * _probit(fma(w, 1 / W_HALF, -1.0))
        z = select(z > 2.0, 2.0, select(z < -2.0, -2.0, z))
        vstore_as_part(out, first + i, fma(z, stddev, mean), count - i)


_truncated_normal = threaded(truncated_normal_chunk)


def truncated_normal(out, mean, stddev, key):
    _truncated_normal(_chunks(out.size), 2 * WORK * out.size, out, mean, stddev, *key)


# ---------------------------------------------------------------------------------------------------------------------
# Permutation


@jit
def permute(order, ordered, keys, starts, bits, step, stream, key_0, key_1):
    """Sort 0 ... n - 1 by their random keys: cast into 2^bits buckets by the upper bits, then sorted in place.

    With about as many buckets as keys, the insertion sort moves nothing further than within its bucket, which holds
    one key on average. Both passes keep equal keys in order.
    """
    n = order.size
    philox(keys, 0, (n + 1) // 2, step, stream, key_0, key_1)
    for i in range(n):
        keys[i] = (keys[i] >> 1) & MAX_INT64
        starts[(keys[i] >> (63 - bits)) + 1] += 1
    for bucket in range(1 << bits):
        starts[bucket + 1] += starts[bucket]
    for i in range(n):
        bucket = keys[i] >> (63 - bits)
        ordered[starts[bucket]], order[starts[bucket]] = keys[i], i
        starts[bucket] += 1
    for i in range(1, n):
        key, number, place = ordered[i], order[i], i
        while place > 0 and ordered[place - 1] > key:
            ordered[place], order[place] = ordered[place - 1], order[place - 1]
            place -= 1
        ordered[place], order[place] = key, number


def permutation(order, key):
    n = order.size
    bits = n.bit_length()
    keys = np.empty(n + simd.VECTOR_BYTES // 4, np.int64)  # Philox writes whole vectors
    permute(order, np.empty_like(order), keys, np.zeros((1 << bits) + 1, np.int64), bits, *key)


# ---------------------------------------------------------------------------------------------------------------------
# Dropout


@jit
def dropout_chunk(chunk, x, y, threshold, scale, step, stream, key_0, key_1):
    """y = x * scale where the 24-bit number of an element reaches the threshold, else 0; `step` is an array of one."""
    first = chunk * CHUNK
    count = min(CHUNK, x.size - first)
    words = stack_array(np.int64, CHUNK)
    philox(words, first // 4, (count + 3) // 4, step[0], stream, key_0, key_1)
    drawn = viewed(words, np.int32)
    for i in range(0, count, lanes(x)):
        keep = ((vload_as(x, drawn, i) >> 8) & 0xFFFFFF) >= threshold
        value = vload_part(x, first + i, count - i) * scale
        vstore_part(y, first + i, select(keep, value, 0.0), count - i)


_dropout = threaded(dropout_chunk)


def dropout(x, rate, key, step=None):
    """A `step` of its own, an array of one, goes before that in the key: a replay reads what then stands there."""
    y = np.empty(x.shape, x.dtype)
    flat, size = contiguous(x).reshape(-1), x.size
    step = np.array(key[:1], np.int64) if step is None else step
    _dropout(_chunks(size), WORK * size, flat, y.reshape(-1), math.ceil(rate * 2**24), 1 / (1 - rate), step, *key[1:])
    return y
