"""Few pixels and many weights, in the rung "threaded": each weight is read once, by the chunk that multiplies with it.

Elsewhere all weights are copied into panels first, and the panels are read again for each block of pixels. Where the
pixels of all images are one block, and weights do not stay in a cache, that is three trips to memory too many. Here a
chunk has some neighbouring panels of its own, and all pixels:

    for each tap, some channels at a time:   these rows of the panels are copied to the stack
                                             sums[panel, tile] += x[pixels of the tile] panel, for all of them

The sums wait on the stack, and go to y with the last weights.
"""

import functools
import math

import numpy as np

from ... import simd
from ...gemm.cpu import RELU, activate, copy_panels, pack_panel
from ...jit import jit
from ...simd import (
    any_lane,
    at,
    expect,
    lanes,
    stack_array,
    tile_add,
    tile_fill_rows,
    tile_outer_at,
    tile_relu,
    tile_store,
    tile_store_at,
    tile_zeros,
    vabs,
    vfill,
    viewed,
    vload,
)
from ...threads import threaded
from .tables import COLUMNS, PANEL, START, X, Y

ROWS = simd.TILE_ROWS
# Bytes of weights, and pixels, from and up to which that pays. (Two threads of a Zen 1, 64 pixels: 6 MB of weights took
# 4.2 instead of 5.2 ms, 1.6 MB 1.42 instead of 1.48. 400 pixels: 0.98 to 1.16 times as fast, 800: 0.88 to 1.08.)
FAR_BYTES, PIXELS = 1 << 20, 512
# Panels of a chunk, at most: with four it takes as long.
TOGETHER = 2
# Bytes on the stack for its sums, where each of the up to four sheets may have a tile of its own at the end; and for
# the rows of its panels.
SUMS_BYTES = TOGETHER * (PIXELS // ROWS + 5) * ROWS * simd.TILE_COLUMNS * simd.VECTOR_BYTES
PANELS_BYTES = 1 << 16


@jit(inner=True)
def copy_rows(w, w0, packing, first, end, depth, width, packed):
    """`depth` rows of the panels from `first` to `end`, one panel after another; w0 is where the first panel's would be
    if it started at 0."""
    table = packing.panels
    if end <= packing.beside:
        start, count = w0 + at(table, first * PANEL + START), (end - first) * width
        copy_panels(w, start, packing.deep, count, depth, width, packed, 0, depth * width)
        return
    for panel in range(first, end):
        start, valid = w0 + at(table, panel * PANEL + START), at(table, panel * PANEL + COLUMNS)
        target = (panel - first) * depth * width
        pack_panel(w, start, packing.across, packing.deep, valid, depth, width, packed, target)


@jit(inner=True)
def are_finite(x, count):
    """Whether none of the first `count` numbers, whole vectors of them, is Inf or NaN."""
    strange = vfill(x, 0.0) != 0.0
    for i in range(0, count, lanes(x)):
        strange = strange | ~(vabs(vload(x, i)) < math.inf)
    return not any_lane(strange)


@functools.cache
def product(columns):
    """The kernel of y = act(patches w + bias), for panels of `columns` vectors."""

    @jit(inner=True, name=f"{__name__}.multiply_far-{columns}")
    def multiply_far(chunk, x, w, bias, y, plan, packing, shares, deep, activation, looks):
        """One chunk: all pixels, for one of the shares of the panels.

        looks : the zeros around an image are left out where the weights, looked at as they pass, are finite.
        """
        pixels, places, runs, spans, table, taps = (
            plan.pixels, plan.places, plan.runs, plan.spans, plan.panels, packing.taps,
        )  # fmt: skip
        packed, sums = viewed(stack_array(np.uint8, PANELS_BYTES), y), viewed(stack_array(np.uint8, SUMS_BYTES), y)
        width, panels = columns * lanes(y), table.size // PANEL
        first, end = chunk * panels // shares, (chunk + 1) * panels // shares
        blocks, taps_of_a_run = (packing.depth + deep - 1) // deep, taps.size // max(1, runs.size)
        steps_in_all, tiles = taps.size * blocks, (plan.images * plan.image_pixels + ROWS - 1) // ROWS
        for step in range(steps_in_all):
            tap, block = step // blocks, step % blocks
            k = block * packing.depth // blocks
            depth = (block + 1) * packing.depth // blocks - k
            run, begin = tap // taps_of_a_run, tap % taps_of_a_run * packing.depth + k
            w0 = at(taps, tap) + k * packing.deep
            copy_rows(w, w0, packing, first, end, depth, width, packed)
            leaves_out = spans.size > 0
            if looks and leaves_out:
                leaves_out = are_finite(packed, (end - first) * depth * width)
            # Meanwhile the next weights are asked for, the row `progress` / 65536 of them: 1 to 3 % on two threads.
            following = min(step + 1, steps_in_all - 1)
            k = following % blocks * packing.depth // blocks
            pace = ((following % blocks + 1) * packing.depth // blocks - k) * 65536 // max(1, depth * tiles)
            slot = 0
            for panel in range(first, end):
                ahead = at(taps, following // blocks) + k * packing.deep + at(table, panel * PANEL + START)
                progress = 0
                f0, valid = at(table, panel * PANEL + Y), at(table, panel * PANEL + COLUMNS)
                for sheet in range(plan.sheets):
                    image = sheet * plan.images // plan.sheets
                    count = ((sheet + 1) * plan.images // plan.sheets - image) * plan.image_pixels
                    x0 = image * plan.x_image + at(table, panel * PANEL + X) + at(runs, run)
                    for p in range(0, count, ROWS):
                        p0 = max(0, min(p, count - ROWS))
                        acc = tile_zeros(y, ROWS, columns)
                        if step == 0 and bias.size > 0:
                            tile_fill_rows(acc, bias, f0, valid)
                        low, high = begin, begin + depth
                        if leaves_out:
                            if not at(spans, 4 * p0) <= run < at(spans, 4 * p0 + 1):
                                high = low
                            low, high = max(low, at(spans, 4 * p0 + 2)), min(high, at(spans, 4 * p0 + 3))
                        row = ((panel - first) * depth + low - begin) * width
                        start = x0 + low  # l counts from 0: else LLVM keeps each row's address on the stack (AVX-512)
                        for l in range(high - low):
                            tile_outer_at(acc, x, start + l, pixels, p0, packed, row)
                            row += width
                            expect(w, ahead + (progress >> 16) * packing.deep)
                            progress += pace
                        if step > 0:
                            tile_add(acc, sums, slot, width, ROWS, width)
                        if step < steps_in_all - 1:
                            tile_store(acc, sums, slot, width, ROWS, width)
                        else:
                            y0, rows = image * plan.y_image + f0, min(ROWS, count)
                            if activation == RELU:
                                tile_relu(acc)
                            tile_store_at(acc, y, y0, places, p0, rows, valid)
                            if activation > RELU:
                                for i in range(rows):
                                    activate(y, y0 + at(places, p0 + i), valid, activation)
                        slot += ROWS * width

    return threaded(multiply_far)


def shares_of(plan, columns):
    """How many chunks share the panels of a product; 0 where it has many pixels, or few weights."""
    panels = plan.panels.size // PANEL
    taken = panels * columns * simd.VECTOR_BYTES * plan.runs.size * plan.length
    if taken < FAR_BYTES or taken == 0 or plan.images * plan.image_pixels > PIXELS:
        return 0
    shares = -(-panels // TOGETHER)
    return min(panels, shares + shares % 2)


def depth_of(together, columns):
    """Rows of so many panels that there is room for."""
    return PANELS_BYTES // (together * columns * simd.VECTOR_BYTES)


def multiply(shares, columns, plan, packing, x, w, bias, y, activation, looks):
    deep, work = depth_of(-(-(plan.panels.size // PANEL) // shares), columns), plan.images * plan.image_pixels * w.size
    product(columns)(shares, 2 * work, x, w, bias, y, plan, packing, shares, deep, activation, looks)
