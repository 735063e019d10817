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
from .tables import window_offsets

WIDTH_BYTES = simd.TILE_COLUMNS * simd.VECTOR_BYTES
# Filters whose panel fits on a thread's stack, with any dtype.
MOST_FILTERS = 512
PANEL_BYTES = MOST_FILTERS * WIDTH_BYTES
PARTS_BYTES = ROWS * WIDTH_BYTES


@jit(inner=True)
def scatter_image(image, dz, w, taps, dx, out_height, out_width, filters, channels, row_step, step, size, none):
    """One chunk: dx of one image. Tap t, channel c (t and c as one index) is added at taps[t], `step` numbers apart."""
    width = simd.TILE_COLUMNS * lanes(dz)
    panel = viewed(stack_array(np.uint8, PANEL_BYTES), dz)
    parts = viewed(stack_array(np.uint8, PARTS_BYTES), dz)
    for i in range(image * size, (image + 1) * size, lanes(dx)):
        vstore_part(dx, i, vfill(dx, 0.0), (image + 1) * size - i)
    for oh in range(out_height):
        for ow in range(0, out_width, width):
            valid = min(width, out_width - ow)
            start = ((image * out_height + oh) * out_width + ow) * filters
            pack_panel(dz, start, filters, 1, valid, filters, width, panel, 0)
            for first in range(0, taps.size, ROWS):
                tall_tile(
                    w, first * filters, filters, 1, panel, 0, width, filters,
                    parts, 0, width, ROWS, valid, False, none, 0, NONE,
                )  # fmt: skip
                corner = image * size + oh * row_step + ow * step
                for t in range(first, min(taps.size, first + ROWS)):
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


_scatter_images = threaded(scatter_image)


def suits(g, itemsize):
    """Whether the channels fill a quarter of a vector at most, and the panel fits."""
    return 4 * g.C * itemsize <= simd.VECTOR_BYTES and g.groups == 1 and g.F <= MOST_FILTERS


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
    _scatter_images(
        g.N, 2 * rows.size * g.N * g.OH * g.OW, dz.reshape(-1), whole, window_offsets(g), padded.reshape(-1),
        g.OH, g.OW, g.F, g.C, g.strides[0] * width * g.C, g.strides[1] * g.C, height * width * g.C, NO_BIAS[dz.dtype],
    )  # fmt: skip
    if has_zeros:
        inside = padded.reshape(g.N, height, width, g.C)[:, top : top + g.H, left : left + g.W]
        on_host(np.copyto, dx, inside)
