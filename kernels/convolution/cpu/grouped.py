"""Convolutions in narrow groups, depthwise ones among them, in the rung "threaded".

Elsewhere the lanes of a vector are the filters of one group, and here those would be few. So the lanes are several
groups side by side, as they lie in x, w, y and their gradients; a group is `width` channels and as many filters wide:

    y[oh, ow, :]     += sum over k of w[kh, kw, k, :] (x[oh SH + kh DH, ow SW + kw DW, :] spread by k)
    dw[kh, kw, k, :] += (x[oh SH + kh DH, ow SW + kw DW, :] spread by k) dz[oh, ow, :]

Spread by k means that each lane takes number k of its group (simd/groups.py); depthwise, nothing is to be done there,
and a vector of x is loaded once for all the neighbouring taps that read it: without that the loads set the pace, as
those of x straddle two cache lines each. y and dx of wide images are made row by row (rows.py), those of narrow ones
and dw in boxes (boxes.py).
"""

import numpy as np

from ... import simd
from ...gemm.cpu import CODES, NO_BIAS, NONE, add_rows
from ...recording import on_host
from ...workspace import LINE, past_caches, scratch
from .boxes import TAPS, VECTORS, WEIGHTS, block_of, convolution, correlation, data_boxes, forward_boxes
from .rows import convolution_of_rows, data_rows, forward_rows

# Images from this width on are wide.
WIDE = 32
# Chunks of boxes to aim for, so that any number of threads gets about the same; and partial sums of dw, at most.
CHUNKS = 16


def suits_weights(g, itemsize):
    """Whether there are groups, narrow parts of a vector, as many filters as channels, and a window fits on the stack.

    (One group leaves most lanes idle: 64 images of 30 x 30 x 8 with 8 filters took four times as long so.)
    """
    width = g.C // g.groups
    narrow = g.C == g.F and (width == 1 or (width in TAPS and simd.VECTOR_BYTES // itemsize % width == 0))
    if not narrow or g.groups == 1 or g.KH * g.KW * width * VECTORS * simd.VECTOR_BYTES > WEIGHTS:
        return False
    return forward_boxes(g, itemsize) is not None and data_boxes(g, itemsize) is not None


def suits(g, itemsize):
    """The same for y and dx, where numbers are spread for each multiply-add, and not for `TAPS` of them.

    The tile of direct.py has lanes for one group at a time, and spreads nothing. With AVX-512 a shuffle takes the place
    of a multiply-add, and groups of half a vector took 1.1 to 2.4 times as long so as they do there, those of a quarter
    0.7, if there are enough to fill one.
    """
    width, vector = g.C // g.groups, simd.VECTOR_BYTES // itemsize
    fills = width == 1 or not simd.FREE_MASKS or (4 * width <= vector <= g.C)
    return fills and suits_weights(g, itemsize)


def _parts(g, chunks, itemsize):
    """(channels of a part, parts): so many that there are chunks enough, if `chunks` are there without them."""
    block = block_of(itemsize)
    blocks = -(-g.C // block)
    part = -(-blocks // min(blocks, -(-CHUNKS // chunks)))
    return part * block, -(-blocks // part)


def _work(g):
    return 2 * g.N * g.OH * g.OW * g.F * g.KH * g.KW * (g.C // g.groups)


def _convolve(g, rows_of, boxes_of, x, w, bias, y, activation):
    arrays, width = (x.reshape(-1), w.reshape(-1), bias, y.reshape(-1)), g.C // g.groups
    if g.W >= WIDE:
        plan = rows_of(g, x.itemsize)
        chunks = plan.shares * -(-g.C // plan.part)
        whole = g.C % block_of(x.itemsize) == 0
        stream = whole and past_caches(y, x.nbytes + y.nbytes) and y.ctypes.data % LINE == 0
        convolution_of_rows(width, plan.run)(chunks, _work(g), *arrays, plan, activation, stream)
    else:
        plan = boxes_of(g, x.itemsize)
        boxes = plan.images * plan.count[0] * plan.count[1]
        part, parts = _parts(g, boxes, x.itemsize)
        convolution(width, plan.run)(boxes * parts, _work(g), *arrays, plan, part, activation)


def forward(x, w, b, y, g, activation):
    """No workspace."""
    bias = NO_BIAS[x.dtype] if b is None else b
    _convolve(g, forward_rows, forward_boxes, x, w, bias, y, CODES[activation])


def data_gradient(dz, w, dx, g):
    """Workspace: w once more, where groups have more than one channel."""
    width = g.C // g.groups
    if width > 1:
        turned, shape = scratch("convolution.packed", w.size, w.dtype), (g.KH * g.KW, width, g.groups, width)
        on_host(np.copyto, turned.reshape(shape), w.reshape(shape).transpose(0, 3, 2, 1))
        w = turned
    _convolve(g, data_rows, data_boxes, dz, w, NO_BIAS[dz.dtype], dx, NONE)


def weight_gradient(x, dz, dw, g):
    """Workspace: at most CHUNKS sums of dw."""
    plan, width, total = forward_boxes(g, x.itemsize), g.C // g.groups, dw.reshape(-1)
    sums = min(CHUNKS, plan.images * plan.count[0] * plan.count[1])
    part, parts = _parts(g, sums, x.itemsize)
    partial = total if sums == 1 else scratch("convolution.partial", sums * total.size, x.dtype)
    launch = correlation(width, TAPS[width], plan.run)
    launch(sums * parts, _work(g), x.reshape(-1), dz.reshape(-1), partial, plan, part, sums)
    if sums > 1:
        on_host(add_rows, partial, sums, total.size, total)
