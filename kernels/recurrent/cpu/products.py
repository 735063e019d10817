"""Products of a few rows with weights that are used again in every step, and therefore packed once."""

import functools

from ... import simd
from ...arrays import contiguous
from ...gemm.cpu import pack_panel
from ...jit import jit
from ...simd import expect, lanes, tile_add, tile_fill_rows, tile_outer_rows, tile_store, tile_zeros
from ...threads import threaded
from ...workspace import scratch

# Heights of the register tile, two vectors wide. 8 x 2 accumulators keep both multiply-add units busy, and 8 divides
# the usual batch sizes; where 16 registers have no room for them, 6 x 2, or 4 x 2, which divides them too.
HEIGHTS = (8,) if simd.TILE_ROWS > 8 else (simd.TILE_ROWS, 4)
COLUMNS = simd.TILE_COLUMNS


def height_for(rows):
    """The height that computes fewest rows for nothing; the first one, unless that saves more than a sixteenth."""
    best = min(HEIGHTS, key=lambda height: -(-rows // height) * height)
    saved = -(-rows // HEIGHTS[0]) * HEIGHTS[0] - -(-rows // best) * best
    return best if 16 * saved > rows else HEIGHTS[0]


@jit(inner=True)
def pack_panels(chunk, b, across, deep, columns, depth, width, panels):
    """The one chunk: B (depth, columns), element (k, j) at b[j * across + k * deep], in panels of `width` columns."""
    for j in range(0, columns, width):
        pack_panel(b, j * across, across, deep, columns - j, depth, width, panels, j * depth)


@functools.cache
def product_of(height):
    """The function that adds a product, in tiles of this height."""

    @jit(inner=True, name=f"{__name__}.add_product-{height}")
    def add_product(a, a0, a_row, rows, panels, p0, depth, c, c0, c_row, columns, start):
        """C[rows, columns] = start + A[rows, depth] B, with a row `start`; where that is empty, C += A B.

        B lies in panels of two vectors' width, one after another, so that every term k of a tile reads the next two
        vectors. All panels stay in the second-level cache from one time step to the next.
        """
        width = COLUMNS * lanes(c)
        for j0 in range(0, columns, width):
            for i in range(0, rows, height):
                count = min(height, rows - i)
                acc = tile_zeros(c, height, COLUMNS)
                if start.size > 0:
                    tile_fill_rows(acc, start, j0, columns - j0)
                else:
                    for row in range(i, i + count):
                        expect(c, c0 + row * c_row + j0)
                        expect(c, c0 + row * c_row + j0 + lanes(c))
                for k in range(depth):
                    tile_outer_rows(acc, a, a0 + i * a_row + k, a_row, count, panels, p0 + j0 * depth + k * width)
                if start.size == 0:
                    tile_add(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)
                tile_store(acc, c, c0 + i * c_row + j0, c_row, count, columns - j0)

    return add_product


_pack_panels = threaded(pack_panels)


def panels_of(name, b, across, deep, columns, depth):
    """B (depth, columns) for `add_product`: element (k, j) is number j * across + k * deep of b."""
    width = COLUMNS * simd.VECTOR_BYTES // b.itemsize
    panels = scratch(f"recurrent.{name}", -(-columns // width) * width * depth, b.dtype)
    _pack_panels.in_turn(1, contiguous(b).reshape(-1), across, deep, columns, depth, width, panels)
    return panels
