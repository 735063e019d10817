"""Which way a product takes: a choice from its sizes and from which operands are transposed, never from timings.

    rows     few rows: B passes by once, read along its rows                                            rows.py
    sums     little C, long sums: a copy of C for each part of K, no packing of B                       sums.py
    direct   both operands are read where they are; a panel of B is packed by the tile that reads it    direct.py
             first, where its numbers would drive each other out of the cache
    read     tall: only B is packed, since copying A would take a tenth of the time                     product.py
    turned   few rows times a transposed operand: that one is read along its rows                       product.py
    packed   both operands are copied into panels, since every number is used many times                product.py

The thresholds are round numbers between shapes that were timed both ways on one and two threads of a Zen 3 (AVX2), and
grow with the register tile. With AVX-512 they have not been timed in this form.
"""

from functools import lru_cache

from ... import simd
from ...threads import THREADS_PAY
from .tile import COLUMNS, ROWS

# Rows of C in a chunk where there are many.
TALL = 8 * ROWS
# Bytes of one row of a part of K: 512 float32.
PART_BYTES = 2048
# Multiply-adds up to which one thread is used anyway: once.py has a shorter way, which saves half of 64 x 64 x 64.
AT_ONCE = THREADS_PAY // 2
# rows: up to so many where the product is not small; fewer than a tile's in any case.
FEW = 8
# sums: bytes of C at most.
LITTLE_BYTES = 1 << 18
# direct: so few rows, or half as many columns, or so short sums, that packed numbers are never used often enough.
MANY, SHORT_SUMS = max(48, 4 * ROWS), 320
# And beyond these: sums of up to two parts, with so few rows or so little to do that it counts to launch once more, for
# which two threads wait, and to write panels of B to memory and read them again (on two threads 256 x 256 x 256 took
# 230 instead of 290 us, 100 x 1000 x 1000 1.6 instead of 2.7 ms).
OFTEN, CUBE = 5 * TALL, 1 << 27
# With a transposed B up to so many numbers, and with a transposed A up to so many multiply-adds, or short sides.
SMALL, SMALL_CUBE, SHORT_SIDE = 1 << 18, 1 << 25, 128
# read: panels of B at most, rows of C at least; before "direct" where C is four times as tall as wide, and one more
# launch does not count.
PANELS_READ, ROWS_READ, TALL_CUBE = 32, 4 * TALL, 1 << 24


@lru_cache(maxsize=4096)
def way_of(m, n, k, itemsize, a_turned=False, b_turned=False, plain=True):
    """The first of the ways above that suits C[m, n] = A[m, k] B[k, n].

    plain : without bias and activation, which only "turned" cannot do.
    """
    width, cube = COLUMNS * simd.VECTOR_BYTES // itemsize, m * n * k
    if is_few(m, n, k) and m * n > 0 and not b_turned:
        return "rows"
    is_little = m >= 4 * ROWS and n >= COLUMNS and m * n * itemsize <= LITTLE_BYTES
    if is_little and k * itemsize >= 2 * PART_BYTES and (m > TALL or a_turned):
        return "sums"
    can_read = not a_turned and m >= ROWS_READ and n <= PANELS_READ * width and k * itemsize <= PART_BYTES
    if can_read and m >= 4 * n and cube > TALL_CUBE:
        return "read"
    thin = min(m, 2 * n) <= MANY or k <= SHORT_SUMS
    unpacked = thin or (k * itemsize <= 2 * PART_BYTES and (m <= OFTEN or cube <= CUBE))
    a_fits = not a_turned or cube <= SMALL_CUBE or min(m, k) <= SHORT_SIDE
    if unpacked and a_fits and (not b_turned or n * k <= SMALL):
        return "direct"
    if can_read:
        return "read"
    lanes = simd.VECTOR_BYTES // itemsize
    if b_turned and plain and n >= TALL and m % lanes == 0 and m <= 2 * width:
        return "turned"
    return "packed"


def is_few(m, n, k):
    """Whether C has so few rows: fewer than a tile, or nearly, and the product is not small."""
    return m < ROWS or (m <= FEW and m * n * k > AT_ONCE)
