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
# that take four cycles for each. Those read several panels side by side: of four streams, memory sends 1.25 times as
# much as of one (on a Zen 1).
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
def product_of(height, columns, looks_ahead):
    """The function that adds a product, in tiles of this shape."""

    @jit(inner=True, name=f"{__name__}.add_product-{height}x{columns}-{looks_ahead}")
    def add_product(a, a0, a_row, rows, panels, p0, depth, c, c0, c_row, count, start, soon=0):
        """C[rows, count] = start + A[rows, depth] B, with a row `start`; where that is empty, C += A B.

        B lies in panels of two vectors' width, one after another, so that every term k of a tile reads the next two
        vectors. All panels stay in the second-level cache from one time step to the next. Where it has no room for them
        (`looks_ahead`), each tile asks for a part of the panel after its own, which is panels[soon:] after the last.
        """
        width = columns * lanes(c)
        pace = max(1, width * height // max(1, rows))
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
                b0, pair = p0 + j0 * depth, COLUMNS * lanes(c)
                ahead = (b0 + width * depth if j0 + width < count else soon) + i // height * depth * pace
                for k in range(depth):
                    if looks_ahead:
                        expect(panels, ahead + k * pace)
                    tile_outer_rows(acc, a, a0 + i * a_row + k, a_row, left, panels, b0 + k * pair, depth * pair)
                if start.size == 0:
                    tile_add(acc, c, c0 + i * c_row + j0, c_row, left, count - j0)
                tile_store(acc, c, c0 + i * c_row + j0, c_row, left, count - j0)

    return add_product


@jit(inner=True)
def pack_strip(chunk, b, across, deep, count, depth, panels):
    """One chunk: STRIP panels of B (depth, count), element (k, j) at b[j * across + k * deep]."""
    width = COLUMNS * lanes(b)
    first, strip = chunk * STRIP * width, STRIP * width
    pack_panels(b, first * across, across, deep, min(strip, count - first), depth, width, panels, first * depth)


_pack_strips = threaded(pack_strip)


def panels_of(name, b, across, deep, count, depth, columns):
    """B (depth, count) for tiles of so many vectors' width: element (k, j) is number j * across + k * deep of b."""
    lanes = simd.VECTOR_BYTES // b.itemsize
    width, pair = columns * lanes, COLUMNS * lanes
    panels = scratch(f"recurrent.{name}", -(-count // width) * width * depth, b.dtype)
    panels[-(-count // pair) * pair * depth :].fill(0)  # tiles read them, and denormals would slow them down
    chunks, flat = -(-count // (STRIP * pair)), contiguous(b).reshape(-1)
    _pack_strips(chunks, 4 * depth * count, flat, across, deep, count, depth, panels)
    return panels
