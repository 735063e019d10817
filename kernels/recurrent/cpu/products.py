"""Products of a few rows with weights that are used again in every step, and therefore packed once."""

import functools

from ... import simd
from ...arrays import contiguous
from ...gemm.cpu import STRIP, pack_panels
from ...jit import jit
from ...simd import expect, lanes, tile_add, tile_fill_rows, tile_outer_rows, tile_store, tile_zeros
from ...threads import threaded
from ...workspace import scratch

# Heights of the register tile, two vectors wide. 8 x 2 accumulators keep both multiply-add units busy, and 8 divides
# the usual batch sizes; where 16 registers have no room for them, 6 x 2, or 4 x 2, which divides them too.
HEIGHTS = (8,) if simd.TILE_ROWS > 8 else (simd.TILE_ROWS, 4)
COLUMNS = simd.TILE_COLUMNS
# The tile for many rows; and those for few, (height, columns): never fewer than 8 sums, which is what two units need
# that take four cycles for each.
TALL = HEIGHTS[0], COLUMNS
LOW = (1, 8), (2, 4), (4, 2)


def tile_for(rows):
    """(height, columns) of the tile that computes fewest rows for nothing; the tallest, unless that saves more than a
    sixteenth."""
    for height, columns in LOW:
        if rows <= height:
            return height, columns
    best = min(HEIGHTS, key=lambda height: -(-rows // height) * height)
    saved = -(-rows // HEIGHTS[0]) * HEIGHTS[0] - -(-rows // best) * best
    return (best if 16 * saved > rows else HEIGHTS[0]), COLUMNS


@functools.cache
def product_of(height, columns):
    """The function that adds a product, in tiles of this shape."""

    @jit(inner=True, name=f"{__name__}.add_product-{height}x{columns}")
    def add_product(a, a0, a_row, rows, panels, p0, depth, c, c0, c_row, count, start):
        """C[rows, count] = start + A[rows, depth] B, with a row `start`; where that is empty, C += A B.

        B lies in panels as wide as the tile, one after another, so that every term k of a tile reads the next few
        vectors. All panels stay in the second-level cache from one time step to the next.
        """
        width = columns * lanes(c)
        for j0 in range(0, count, width):
            for i in range(0, rows, height):
                left = min(height, rows - i)
                acc = tile_zeros(c, height, columns)
                if start.size > 0:
                    tile_fill_rows(acc, start, j0, count - j0)
                else:
                    for row in range(i, i + left):
                        for j in range(j0, j0 + width, lanes(c)):
                            expect(c, c0 + row * c_row + j)
                for k in range(depth):
                    tile_outer_rows(acc, a, a0 + i * a_row + k, a_row, left, panels, p0 + j0 * depth + k * width)
                if start.size == 0:
                    tile_add(acc, c, c0 + i * c_row + j0, c_row, left, count - j0)
                tile_store(acc, c, c0 + i * c_row + j0, c_row, left, count - j0)

    return add_product


@functools.cache
def packing_of(columns):
    """The kernel that packs, for tiles of so many columns of vectors."""

    @jit(inner=True, name=f"{__name__}.pack-{columns}")
    def pack(chunk, b, across, deep, count, depth, panels):
        """One chunk: STRIP panels of B (depth, count), element (k, j) at b[j * across + k * deep]."""
        width = columns * lanes(b)
        first, strip = chunk * STRIP * width, STRIP * width
        pack_panels(b, first * across, across, deep, min(strip, count - first), depth, width, panels, first * depth)

    return threaded(pack)


def panels_of(name, b, across, deep, count, depth, columns):
    """B (depth, count) for tiles of so many columns: element (k, j) is number j * across + k * deep of b."""
    width = columns * simd.VECTOR_BYTES // b.itemsize
    number = -(-count // width)
    panels = scratch(f"recurrent.{name}", number * width * depth, b.dtype)
    flat = contiguous(b).reshape(-1)
    packing_of(columns)(-(-number // STRIP), 4 * depth * count, flat, across, deep, count, depth, panels)
    return panels
