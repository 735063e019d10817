"""Which way a product takes: a choice from its sizes and from which operands are transposed, never from timings.

    rows     few rows: B passes by once, read along its rows                                            rows.py
    columns  few columns, A transposed: the same for C transposed                                       rows.py
    dots     few columns, or few rows and B transposed: both operands are read along K                  dots.py
    sums     little C and long sums: a copy of C for each part of K; few rows times a B that only       sums.py
             memory holds: what a thread packs of it stays in its second-level cache
    direct   both operands are read where they are; a panel of B is packed by the tile that reads it    direct.py
             first, where its numbers would drive each other out of the cache
    read     many rows: only B is packed; rows of A are read as fast where they are                     product.py
    turned   few rows times a transposed operand: that one is read along its rows                       product.py
    packed   both operands are copied into panels, since every number is used many times                product.py

The thresholds are round numbers between shapes that were timed both ways on one and two threads of a Zen 3 (AVX2), and
grow with the register tile. With AVX-512 a few were, on an Intel Xeon.
"""

from functools import lru_cache

from ... import simd
from ...threads import THREADS_PAY
from .tile import COLUMNS, LOOKS_AHEAD, ROWS

# Rows of C in a chunk where there are many.
TALL = 8 * ROWS
# Bytes of one row of a part of K: 512 float32.
PART_BYTES = 2048
# Multiply-adds up to which one thread is used anyway: once.py has a shorter way, which saves half of 64 x 64 x 64.
AT_ONCE = THREADS_PAY // 2
# dots, columns: up to so many columns (or rows); up to so many where a row has fewer bytes than PART_BYTES, but so many
# at least; one column with any. (On one thread of a Zen 1, M x K x N: 1000 x 1000 x 12 took 870 us, "direct" 960, and
# 16 rows times a transposed B as long as "turned"; 1000 x 64 x 4 took 34, "direct" 67; with 8 columns 60 and 67;
# 1000 x 16 x 1 took 12 and 24.)
THIN, THINNER, THINNER_BYTES = 12, 4, 8 * simd.VECTOR_BYTES
# rows: up to so many where the product is not small; fewer than a tile's in any case.
FEW = 8
# sums: bytes of C at most.
LITTLE_BYTES = 1 << 18
# direct: so few rows, or half as many columns, that packed numbers are never used often enough; or sums of up to two
# parts, since it counts to launch once more, for which two threads wait, and to write panels of B to memory and read
# them again (on two threads 256 x 256 x 256 took 230 instead of 290 us, 100 x 1000 x 1000 1.6 instead of 2.7 ms).
MANY = max(48, 4 * ROWS)
# sums: B from so many bytes on, as "direct" reads a line of each of its rows at a time (32 x 4096 x 4096 took 17.7 ms
# on one thread instead of 21.7, 32 x 1000 x 2000 as long); with a transposed A, which it packs, from READ_CUBE on.
FAR_BYTES = 1 << 24
# With a transposed B up to so many numbers. With a transposed A up to so many multiply-adds; or few rows; or short sums
# and rows of C of which a page holds several (4096 x 32 x 4096 took 26 ms, "packed" 16).
SMALL, SMALL_CUBE, SHORT_SIDE, PAGE_BYTES = 1 << 18, 1 << 25, 128, 4096
# read: rows of C at least, and sums of up to two parts. Before "direct" from so many multiply-adds on, that one more
# launch does not count, and a quarter of these where C is four times as tall as wide. (512 x 512 x 512 took 1.42 ms on
# two threads, "direct" 1.53, "packed" 1.47; 1000 x 768 x 1000 8.2, "packed" 8.6. With longer sums, in several blocks,
# or a far B, it is no faster than "packed": 2000 x 1024 x 4096 took 107, and 94.)
# With AVX-512 only where sums are short: "packed" asks for memory before it needs it, and "direct" has one launch less
# and no panels that another core wrote, which an Intel Xeon takes long to fetch. On two of its threads "read" took 1.16
# times as long as "packed" for 512 x 512 x 512, 1.11 for 65536 x 64 x 64, and 1.24 times as long as "direct" for 448 x
# 400 x 400, 1.06 for 1000 x 128 x 1000. So "packed" is for a transposed B or one of so many bytes, and for so many
# bytes of A and C, if several panels use what is packed of A. (100000 x 32 x 27 would take 1.2 times as long so.)
ROWS_READ, READ_CUBE, TALL_CUBE = 4 * TALL, 1 << 26, 1 << 24
LONG, B_BYTES, A_AND_C_BYTES = 64, 3 << 18, 1 << 23


@lru_cache(maxsize=4096)
def way_of(m, n, k, itemsize, a_turned=False, b_turned=False, plain=True):
    """The way for C[m, n] = A[m, k] B[k, n]: the first that suits, in the order in which they are tested below.

    plain : without bias and activation, which only "turned" cannot do.
    """
    width, cube = COLUMNS * simd.VECTOR_BYTES // itemsize, m * n * k
    if is_thin(n, k, itemsize):
        return "columns" if a_turned else "dots"
    if b_turned and is_thin(m, k, itemsize):
        return "dots"
    if is_few(m, n, k) and m * n > 0 and not b_turned:
        return "rows"
    is_little = m >= 4 * ROWS and n >= COLUMNS and m * n * itemsize <= LITTLE_BYTES
    if is_little and k * itemsize >= 2 * PART_BYTES and (m > TALL or a_turned):
        return "sums"
    is_short, is_far = k * itemsize <= 2 * PART_BYTES, n * k * itemsize >= FAR_BYTES
    can_read = not a_turned and m >= ROWS_READ and is_short and not is_far
    if can_read and cube >= (TALL_CUBE if m >= 4 * n else READ_CUBE):
        if not LOOKS_AHEAD or k < LONG:
            return "read"
        is_streamed = m * (n + k) * itemsize >= A_AND_C_BYTES and n > width
        if is_streamed or b_turned or n * k * itemsize >= B_BYTES:
            return "packed"
    has_short_rows = k <= SHORT_SIDE and n * itemsize < PAGE_BYTES
    a_fits = not a_turned or cube <= SMALL_CUBE or m <= SHORT_SIDE or has_short_rows
    if (is_short or min(m, 2 * n) <= MANY) and a_fits and (not b_turned or n * k <= SMALL):
        if ROWS <= m <= SHORT_SIDE and (is_far or (a_turned and cube >= READ_CUBE)):
            return "sums"
        if not is_far:
            return "direct"
    if can_read:
        return "read"
    lanes = simd.VECTOR_BYTES // itemsize
    if b_turned and plain and n >= TALL and m % lanes == 0 and m <= 2 * width:
        return "turned"
    return "packed"


def is_thin(count, k, itemsize):
    """Whether so few columns, or rows, leave most lanes of a tile idle."""
    length = k * itemsize
    return count == 1 or (count <= THINNER and length >= THINNER_BYTES) or (count <= THIN and length >= PART_BYTES)


def is_few(m, n, k):
    """Whether C has so few rows: fewer than a tile, or nearly, and the product is not small."""
    return m < ROWS or (m <= FEW and m * n * k > AT_ONCE)
