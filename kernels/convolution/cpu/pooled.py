"""The rungs of `conv2d_max_pool2d`: a convolution whose y is reduced to the maxima of 2 x 2 pixels before it is stored.

    separate  the convolution, all of its y, then the pooling
    direct    the register tiles of direct.py, on pixels that are ordered window by window
    winograd  4 x 4 tiles, which hold four windows each (winograd.py), where that pays; else "direct"
              both: the gradient of few weights from the gradient of the maxima (`window_weight_gradient`)

Why it is faster: y of the convolution is four times as large as the result, and is neither written nor read again.
Pixels that no window holds, of an odd row or column, are not computed. With few channels, where a number of y takes
few multiply-adds, "direct" gains by that: 32 images of 28 x 28 x 1 took 403 instead of 509 us on two cores of a Zen 1.
With more, where winograd pays, the convolution of "separate" makes do with a quarter of the multiplications, and
"direct" is slower.

A block of windows' sums waits on the stack, in the first-level cache, for the maximum:

    pixels    0  1  4  5  ..      m[4 q + i, :] = the sums of pixel i of window q, a panel of filters wide
              2  3  6  7  ..      y[q, :]       = max over i of m[4 q + i, :], offsets[q, :] = the first i that has it
"""

import functools

import numpy as np

from ... import simd
from ...gemm.cpu import CODES, NO_BIAS, RELU, add_rows
from ...jit import jit
from ...pooling.cpu import max_simd
from ...recording import on_host
from ...simd import (
    at,
    expect,
    lanes,
    rolled,
    select,
    stack_array,
    tile_add,
    tile_fill_rows,
    tile_outer_at,
    tile_relu,
    tile_store,
    tile_zeros,
    viewed,
    vload,
    vload_as_part,
    vload_part,
    vstore,
    vstore_as_part,
    vstore_part,
)
from ...threads import threaded
from ...workspace import scratch
from ..pooled import windows_of
from ..rung import Rung
from . import direct, few, grouped, winograd
from .tables import COLUMNS, PACKED, PANEL, X, Y, correlations, window_products
from .winograd import largest_of
from .zeros import pad_input

ROWS = simd.TILE_ROWS
# Bytes of the sums of ROWS windows.
M_BYTES = 4 * ROWS * simd.TILE_COLUMNS * simd.VECTOR_BYTES

_NOT_SAVED = np.empty(0, np.uint8)


@functools.cache
def product(columns):
    """The kernel of y = the maxima of relu(patches packed + bias), for panels of `columns` vectors."""

    @jit(inner=True, name=f"{__name__}.multiply_windows-{columns}")
    def multiply_windows(chunk, x, packed, bias, y, offsets, plan, activation):
        """One chunk: one block of a sheet's windows, for one share of the panels; see `direct.product`."""
        pixels, places, runs, spans, table = plan.pixels, plan.places, plan.runs, plan.spans, plan.panels
        m = viewed(stack_array(np.uint8, M_BYTES), y)
        width = columns * lanes(y)
        spots = plan.sheets * plan.blocks
        share, spot = chunk // spots, chunk % spots
        sheet, block = spot // plan.blocks, spot % plan.blocks
        image = sheet * plan.images // plan.sheets
        windows = ((sheet + 1) * plan.images // plan.sheets - image) * plan.image_pixels // 4
        panels = table.size // PANEL
        for number in range(share * panels // plan.shares, (share + 1) * panels // plan.shares):
            panel = number * PANEL
            f0, valid = at(table, panel + Y), at(table, panel + COLUMNS)
            x0, y0 = image * plan.x_image + at(table, panel + X), image * plan.y_image + f0
            end_window = (block + 1) * windows // plan.blocks
            for q0 in range(block * windows // plan.blocks, end_window, ROWS):
                together = min(ROWS, end_window - q0)
                for i in range(0, 4 * together, ROWS):
                    i = max(0, min(i, 4 * together - ROWS))
                    p0 = 4 * q0 + i
                    acc = tile_zeros(y, ROWS, columns)
                    if bias.size > 0:
                        tile_fill_rows(acc, bias, f0, valid)
                    first, end, begin, stop = 0, runs.size, 0, plan.length
                    if spans.size > 0:
                        first, end = at(spans, 4 * p0), at(spans, 4 * p0 + 1)
                        begin, stop = at(spans, 4 * p0 + 2), at(spans, 4 * p0 + 3)
                    ahead = x0 + at(pixels, p0 + ROWS) + plan.lead
                    for r in range(first, end):
                        start = x0 + at(runs, r) + begin
                        w0 = at(table, panel + PACKED) + (r * plan.length + begin) * width
                        for l in range(stop - begin):
                            tile_outer_at(acc, x, start + l, pixels, p0, packed, w0)
                            w0 += width
                            expect(x, ahead)
                            ahead += plan.pace
                    if activation == RELU:
                        tile_relu(acc)
                    tile_store(acc, m, i * width, width, min(ROWS, 4 * together), width)
                for q in range(together):
                    place = y0 + at(places, q0 + q)
                    for j in range(0, width, lanes(y)):
                        s = 4 * q * width + j
                        four = vload(m, s), vload(m, s + width), vload(m, s + 2 * width), vload(m, s + 3 * width)
                        best, offset = largest_of(*four)
                        vstore_part(y, place + j, best, valid - j)
                        if offsets.size > 0:
                            vstore_as_part(offsets, place + j, offset, valid - j)

    return threaded(multiply_windows)


def _separate(x, w, b, y, offsets, g, activation):
    size = g.N * g.OH * g.OW * g.F
    full = scratch("convolution.full", size, x.dtype)
    winograd.conv2d_winograd.forward(x, w, b, full, g, activation)
    if offsets is None:
        offsets = scratch("max_pool2d", y.size, np.uint8)
    max_simd.forward(full, y.reshape(-1), offsets.reshape(-1), windows_of(g))


def _direct(x, w, b, y, offsets, g, activation):
    if grouped.suits(g, x.itemsize) or CODES[activation] > RELU:
        _separate(x, w, b, y, offsets, g, activation)
        return
    flat, _, _ = pad_input(x, g)
    bias = NO_BIAS[x.dtype] if b is None else b
    y, offsets = y.reshape(-1), _NOT_SAVED if offsets is None else offsets.reshape(-1)
    for columns, plan, packed, _ in direct.packed_panels(direct.over_threads, window_products(g, x.itemsize), w):
        chunks, work = plan.shares * plan.sheets * plan.blocks, 2 * plan.images * plan.image_pixels * packed.size
        product(columns)(chunks, work, flat, packed, bias, y, offsets, plan, CODES[activation])


def _winograd(x, w, b, y, offsets, g, activation):
    high, wide = g.OH // 2 * 2, g.OW // 2 * 2
    dilated = g.dilation != (1, 1)  # then a tile holds no windows
    if CODES[activation] > RELU or dilated or not winograd.suits(g, g.N, high, wide, g.C, g.F, x.itemsize):
        _direct(x, w, b, y, offsets, g, activation)
    else:
        winograd.pooled_forward(x, w, b, y, _NOT_SAVED if offsets is None else offsets, g, activation)


# ---------------------------------------------------------------------------------------------------------------------
# The gradient of few weights

# Windows whose dz waits on the stack, and bytes of it.
WINDOWS = 64
Z_BYTES = 4 * WINDOWS * simd.TILE_COLUMNS * simd.VECTOR_BYTES


@functools.cache
def correlation(height, columns):
    """The kernel of partial sums of dw, for tiles of `height` taps x `columns` vectors of filters."""

    @jit(inner=True, name=f"{__name__}.correlate_windows-{height}-{columns}")
    def correlate_windows(chunk, x, dm, offsets, dw, plan):
        """One chunk: dw summed over one part of the windows.

        A panel of dz, for WINDOWS at a time, is made of the maxima's gradients on the stack:

            z[4 q + i, :] = dm[q, :] where offsets[q, :] is i, else 0
        """
        pixels, taps, table = plan.pixels, plan.taps, plan.panels
        z, width = viewed(stack_array(np.uint8, Z_BYTES), dw), columns * lanes(dw)
        tall, units, windows = (plan.depth + height - 1) // height, plan.sheets * plan.blocks, plan.image_pixels // 4
        first = chunk * units // plan.parts
        for unit in range(first, (chunk + 1) * units // plan.parts):
            sheet, block = unit // plan.blocks, unit % plan.blocks
            image = sheet * plan.images // plan.sheets
            count = ((sheet + 1) * plan.images // plan.sheets - image) * windows
            begin, end = block * count // plan.blocks, (block + 1) * count // plan.blocks
            for q in range(begin, end, WINDOWS):
                together = min(WINDOWS, end - q)
                for panel in range(0, table.size, PANEL):
                    f0, valid = at(table, panel + Y), at(table, panel + COLUMNS)
                    for j in range(0, width, lanes(dw)):
                        m0, left = (image * windows + q) * plan.filters + f0 + j, valid - j
                        for z0 in range(j, 4 * together * width, 4 * width):
                            maximum, gradient = vload_as_part(dw, offsets, m0, left), vload_part(dm, m0, left)
                            for i in range(4):
                                vstore(z, z0 + i * width, select(maximum == i, gradient, 0.0))
                            m0 += plan.filters
                    for tile in range(tall):
                        k0, p0 = tile * height, 4 * q
                        acc = tile_zeros(dw, height, columns)
                        # By differences, as in direct.py.
                        place = image * plan.x_image + at(table, panel + X) + at(pixels, p0)
                        for p in range(4 * together):
                            rolled()
                            tile_outer_at(acc, x, place, taps, k0, z, p * width)
                            place += at(pixels, p0 + p + 1) - at(pixels, p0 + p)
                        w0, rows = (chunk * plan.depth + k0) * plan.filters + f0, min(height, plan.depth - k0)
                        if unit > first or q > begin:
                            tile_add(acc, dw, w0, plan.filters, rows, valid)
                        tile_store(acc, dw, w0, plan.filters, rows, valid)

    return threaded(correlate_windows)


def window_weight_gradient(x, dm, offsets, dw, g):
    """dw from the gradient of the maxima; whether that was done: it is for few channels.

    Workspace: a copy of dw for each of up to 16 parts; x with its zeros, where there are any.
    """
    if not few.suits(g, x.itemsize):
        return False
    (flat, _, _), total = pad_input(x, g), dw.reshape(-1)
    plans = correlations(g, x.itemsize, windows=True)
    parts = plans[0][1].parts
    partial = total if parts == 1 else scratch("convolution.partial", parts * total.size, x.dtype)
    for columns, plan in plans:
        width = columns * simd.VECTOR_BYTES // x.itemsize
        work = 2 * plan.images * plan.image_pixels * plan.panels.size // PANEL * width * plan.depth
        correlation(plan.height, columns)(plan.parts, work, flat, dm.reshape(-1), offsets.reshape(-1), partial, plan)
    if parts > 1:
        on_host(add_rows, partial, parts, total.size, total)
    return True


conv2d_max_pool2d_separate = Rung(
    _separate, winograd.conv2d_winograd.data_gradient, winograd.conv2d_winograd.weight_gradient
)
conv2d_max_pool2d_direct = Rung(_direct, direct.conv2d_threaded.data_gradient, direct.conv2d_threaded.weight_gradient)
conv2d_max_pool2d_winograd = conv2d_max_pool2d_separate._replace(forward=_winograd)
