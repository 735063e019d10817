"""Products of few numbers with long sums, such as the gradient of a layer's weights: K is cut into parts.

C has room in the caches, A and B have not. Each chunk takes all of C over one part of K, so that it reads its own
rows of A and B once; the parts are added up at the end. Through K as a whole, with C cut into chunks, every thread
would read nearly all of A and B, and wait for the packing of B once for each block of K.
"""

import numpy as np

from ... import simd
from ...jit import jit
from ...simd import lanes, stack_array, viewed
from ...threads import threaded
from ...workspace import scratch
from .direct import PANEL_BYTES, STEEP
from .epilogue import NO_BIAS, add_parts
from .tile import (
    CODES,
    COLUMNS,
    NONE,
    ROWS,
    SHORT,
    operand,
    pack_panel,
    pack_panels,
    packing_tile,
    short_padded,
    tall_padded,
)
from .ways import PART_BYTES

# Bytes of the panels of A that a block of K has in the second-level cache.
A_BYTES = (1 << 18) + simd.VECTOR_BYTES
# Parts at most; an even number, for two threads.
PARTS = 16


@jit(inner=True)
def multiply_part(part, a, a_row, a_col, b, b_row, b_col, depth, c, m, n, parts, deep, none):
    """One chunk: C summed over one part of K, `deep` numbers at a time."""
    width, c0 = COLUMNS * lanes(c), part * m * n
    xs, panel = viewed(stack_array(np.uint8, A_BYTES), c), viewed(stack_array(np.uint8, PANEL_BYTES), c)
    k_first, k_end = part * depth // parts, (part + 1) * depth // parts
    blocks = (k_end - k_first + deep - 1) // deep
    for block in range(blocks):
        k = k_first + block * (k_end - k_first) // blocks
        steps = k_first + (block + 1) * (k_end - k_first) // blocks - k
        pack_panels(a, k * a_col, a_row, a_col, m, steps, ROWS, xs, 0)
        for j in range(0, n, width):
            start, valid, first = k * b_row + j * b_col, min(width, n - j), 0
            if b_col == 1 and valid == width and m >= ROWS:
                packing_tile(
                    xs, 0, 1, ROWS, b, start, b_row, steps, c, c0 + j, n, block > 0, none, 0, NONE, panel, 0
                )  # fmt: skip
                first = ROWS
            else:
                pack_panel(b, start, b_col, b_row, valid, steps, width, panel, 0)
            for i in range(first, m, ROWS):
                if m - i > SHORT:
                    tall_padded(
                        xs, i * steps, 1, ROWS, panel, 0, width, steps,
                        c, c0 + i * n + j, n, min(ROWS, m - i), valid, block > 0, none, 0, NONE,
                    )  # fmt: skip
                else:
                    short_padded(
                        xs, i * steps, 1, ROWS, panel, 0, width, steps,
                        c, c0 + i * n + j, n, m - i, valid, block > 0, none, 0, NONE,
                    )  # fmt: skip


_multiply_part = threaded(multiply_part)


def gemm_sums(a, b, c, bias, activation):
    """Workspace: a copy of C for each 2 KB of a row of A, 16 at most, and 290 KB of each thread's stack."""
    m, n = c.shape
    k = a.shape[1]
    parts = min(PARTS, -(-k * c.itemsize // (2 * PART_BYTES)) * 2)
    deep = min(STEEP, A_BYTES // ((m + ROWS) * c.itemsize))
    (a, a_row, a_col), (b, b_row, b_col) = operand(a), operand(b)
    out, none = scratch("gemm.parts", parts * c.size, c.dtype), NO_BIAS[c.dtype]
    _multiply_part(parts, 2 * m * n * k, a, a_row, a_col, b, b_row, b_col, k, out, m, n, parts, deep, none)
    add_parts(out, parts, m, n, c.reshape(-1), none if bias is None else bias, CODES[activation])
