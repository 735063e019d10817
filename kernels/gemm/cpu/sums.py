"""Products of few numbers with long sums, such as the gradient of a layer's weights, and of few rows with a large B.

Where C has room in the caches and A and B have not, K is cut into parts. Each chunk takes all of C over one part of K,
so that it reads its own rows of A and B once; the parts are added up at the end. Through K as a whole, with C cut into
chunks, every thread would read nearly all of A and B, and wait for the packing of B once for each block of K.

Where C is wide, a chunk takes some of its columns. A strip of B is packed on the stack and used at once: memory sends
long pieces of its rows, and no panels go back there.
"""

from functools import lru_cache

import numpy as np

from ... import simd
from ...jit import jit
from ...simd import lanes, stack_array, viewed
from ...threads import threaded
from ...workspace import scratch
from .direct import STEEP
from .epilogue import NO_BIAS, add_parts
from .tile import (
    CODES,
    COLUMNS,
    NONE,
    ROWS,
    SHORT,
    STRIP,
    operand,
    pack_panels,
    short_padded,
    tall_padded,
)
from .ways import LITTLE_BYTES, PART_BYTES

# Bytes of the panels of A, and of the panels of B beside them, that a block of K has in the second-level cache.
A_BYTES = (1 << 18) + simd.VECTOR_BYTES
STRIP_BYTES = STRIP * STEEP * COLUMNS * simd.VECTOR_BYTES
# Columns of a chunk, at least: A is packed again for each.
LEAST = 1024
# Parts at most; an even number, for two threads.
PARTS = 16


@jit(inner=True)
def multiply_part(chunk, a, a_row, a_col, b, b_row, b_col, depth, c, m, n, columns, parts, deep, bias, activation):
    """One chunk: `columns` columns of C summed over one part of K, `deep` numbers at a time."""
    width, part, j_first = COLUMNS * lanes(c), chunk % parts, chunk // parts * columns
    xs, panels = viewed(stack_array(np.uint8, A_BYTES), c), viewed(stack_array(np.uint8, STRIP_BYTES), c)
    j_end, c0 = min(n, j_first + columns), part * m * n
    k_first, k_end = part * depth // parts, (part + 1) * depth // parts
    blocks = (k_end - k_first + deep - 1) // deep
    for block in range(blocks):
        k = k_first + block * (k_end - k_first) // blocks
        steps = k_first + (block + 1) * (k_end - k_first) // blocks - k
        code = activation if block == blocks - 1 else NONE
        pack_panels(a, k * a_col, a_row, a_col, m, steps, ROWS, xs, 0)
        for strip in range(j_first, j_end, STRIP * width):
            end = min(j_end, strip + STRIP * width)
            pack_panels(b, k * b_row + strip * b_col, b_col, b_row, end - strip, steps, width, panels, 0)
            for j in range(strip, end, width):
                valid, panel = min(width, end - j), (j - strip) * steps
                for i in range(0, m, ROWS):
                    if m - i > SHORT:
                        tall_padded(
                            xs, i * steps, 1, ROWS, panels, panel, width, steps,
                            c, c0 + i * n + j, n, min(ROWS, m - i), valid, block > 0, bias, j, code,
                        )  # fmt: skip
                    else:
                        short_padded(
                            xs, i * steps, 1, ROWS, panels, panel, width, steps,
                            c, c0 + i * n + j, n, m - i, valid, block > 0, bias, j, code,
                        )  # fmt: skip


_multiply_part = threaded(multiply_part)


@lru_cache(maxsize=4096)
def sums_cut(m, n, k, itemsize):
    """(columns of a chunk, parts of K), from the sizes alone."""
    longest = 2 * PART_BYTES // itemsize
    if m * n * itemsize <= LITTLE_BYTES:
        return n, min(PARTS, -(-k // longest) * 2)
    groups = min(PARTS, max(1, n // LEAST))
    groups += groups % 2
    width = COLUMNS * simd.VECTOR_BYTES // itemsize
    return -(-n // (groups * width)) * width, max(1, min(PARTS // groups, k // longest))


def gemm_sums(a, b, c, bias, activation):
    """Workspace: a copy of C for each of up to 16 parts of K, and 400 KB of each thread's stack, 520 with AVX-512."""
    m, n = c.shape
    k = a.shape[1]
    columns, parts = sums_cut(m, n, k, c.itemsize)
    deep = min(STEEP, A_BYTES // ((m + ROWS) * c.itemsize))
    (a, a_row, a_col), (b, b_row, b_col) = operand(a), operand(b)
    flat, none = c.reshape(-1), NO_BIAS[c.dtype]
    bias, code = none if bias is None else bias, CODES[activation]
    chunks, work = -(-n // columns) * parts, 2 * m * n * k
    if parts == 1:
        _multiply_part(chunks, work, a, a_row, a_col, b, b_row, b_col, k, flat, m, n, columns, 1, deep, bias, code)
    else:
        out = scratch("gemm.parts", parts * c.size, c.dtype)
        _multiply_part(chunks, work, a, a_row, a_col, b, b_row, b_col, k, out, m, n, columns, parts, deep, none, NONE)
        add_parts(out, parts, m, n, flat, bias, code)
