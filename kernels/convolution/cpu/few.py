"""The gradient of the data for very few channels, as of a first layer, in the rung "threaded".

Elsewhere the lanes of a vector are channels; here those would be idle, and the lanes are neighbouring pixels:

    parts[kh, kw, c, ow] = sum over f of w[kh, kw, c, f] dz[oh, ow, f]         a product with dz transposed
    dx[oh SH + kh DH, ow SW + kw DW, c] += parts[kh, kw, c, ow]                one row of parts after another

A row of dz is turned in registers on its way into a panel. Nothing as large as a matrix of patches is written: for 32
images of 28 x 28 x 1, 32 filters of 3 x 3 and two cores of a Zen 5, 0.13 ms instead of 0.70 with im2col.
"""

import numpy as np

from ... import simd
from ...gemm.cpu import NO_BIAS, NONE, ROWS, pack_panel, tall_tile
from ...jit import jit
from ...recording import on_host
from ...simd import at, lanes, stack_array, vfill, viewed, vload_part, vstore_part
from ...threads import threaded
from ...workspace import scratch
from .tables import window_offsets, window_rows

WIDTH_BYTES = simd.TILE_COLUMNS * simd.VECTOR_BYTES
# Bytes of a pixel's channels, at most.
FEW_BYTES = 16
# Filters whose panel fits on a thread's stack, with any dtype.
MOST_FILTERS = 512
PANEL_BYTES = MOST_FILTERS * WIDTH_BYTES
PARTS_BYTES = ROWS * WIDTH_BYTES
# Chunks to aim for where there are few images, so that any number of threads gets about the same.
CHUNKS = 16


@jit(inner=True)
def scatter_band(
    chunk, dz, w, taps, down, dx, bands, height, out_height, out_width, filters, stride, line, step, none
):  # fmt: skip
    """One chunk: one of the bands of rows of dx of one image, from all rows of dz whose windows reach into it.

    Tap t, channel c (t and c as one index) is added down[t] rows below and taps[t] numbers behind its window's corner;
    `line` is a row of dx, `step` from one window to the next.
    """
    width = simd.TILE_COLUMNS * lanes(dz)
    panel = viewed(stack_array(np.uint8, PANEL_BYTES), dz)
    parts = viewed(stack_array(np.uint8, PARTS_BYTES), dz)
    image, band = chunk // bands, chunk % bands
    first_row, end_row = band * height // bands, (band + 1) * height // bands
    begin, end = (image * height + first_row) * line, (image * height + end_row) * line
    for i in range(begin, end, lanes(dx)):
        vstore_part(dx, i, vfill(dx, 0.0), end - i)
    reach = at(down, taps.size - 1)
    for oh in range(max(0, (first_row - reach + stride - 1) // stride), min(out_height, (end_row - 1) // stride + 1)):
        for ow in range(0, out_width, width):
            valid, row = min(width, out_width - ow), oh * stride
            start = ((image * out_height + oh) * out_width + ow) * filters
            pack_panel(dz, start, filters, 1, valid, filters, width, panel, 0)
            for first in range(0, taps.size, ROWS):
                last = min(taps.size, first + ROWS)
                if row + at(down, last - 1) < first_row or row + at(down, first) >= end_row:
                    continue
                tall_tile(
                    w, first * filters, filters, 1, panel, 0, width, filters,
                    parts, 0, width, ROWS, valid, False, none, 0, NONE,
                )  # fmt: skip
                corner = (image * height + row) * line + ow * step
                for t in range(first, last):
                    if first_row <= row + at(down, t) < end_row:
                        add_row(parts, (t - first) * width, dx, corner + at(taps, t), valid, step)


@jit(inner=True)
def add_row(parts, p0, dx, x0, count, step):
    """dx[x0 + i * step] += parts[p0 + i]"""
    if step == 1:
        for i in range(0, count, lanes(dx)):
            total = vload_part(dx, x0 + i, count - i) + vload_part(parts, p0 + i, count - i)
            vstore_part(dx, x0 + i, total, count - i)
    else:
        for i in range(count):
            dx[x0 + i * step] += at(parts, p0 + i)


_scatter_bands = threaded(scatter_band)


def suits(g, itemsize):
    """Whether the channels are few, and half of a vector at most, and the panel fits."""
    return g.C * itemsize <= min(FEW_BYTES, simd.VECTOR_BYTES // 2) and g.groups == 1 and g.F <= MOST_FILTERS


def data_gradient(dz, w, dx, g):
    """Workspace: dx with its zeros, where there are any; w, its taps and channels rounded up to whole tiles."""
    (top, bottom), (left, right) = g.padding
    height, width = g.H + top + bottom, g.W + left + right
    has_zeros = any((top, bottom, left, right))
    padded = scratch("convolution.few.dx", g.N * height * width * g.C, dx.dtype) if has_zeros else dx
    rows = w.reshape(-1, g.F)
    whole = scratch("convolution.few.w", -(-len(rows) // ROWS) * ROWS * g.F, w.dtype)
    on_host(np.copyto, whole[: rows.size], rows.reshape(-1))
    on_host(whole[rows.size :].fill, 0)
    down = window_rows(g)
    # Rows of dz whose windows reach over a border are multiplied for both bands.
    bands = max(1, min(-(-CHUNKS // g.N), height // (4 * (int(down[-1]) + 1))))
    _scatter_bands(
        g.N * bands, 2 * rows.size * g.N * g.OH * g.OW,
        dz.reshape(-1), whole, window_offsets(g), down, padded.reshape(-1), bands, height, g.OH, g.OW, g.F,
        g.strides[0], width * g.C, g.strides[1] * g.C, NO_BIAS[dz.dtype],
    )  # fmt: skip
    if has_zeros:
        inside = padded.reshape(g.N, height, width, g.C)[:, top : top + g.H, left : left + g.W]
        on_host(np.copyto, dx, inside)
