"""The rung "im2col": every window copied into a row of a matrix, then one matrix product for all of them.

    x (N, H, W, C)  ->  patches (N OH OW, KH KW C)          y (N OH OW, F) = patches  w (KH KW C, F)

Why it is faster: all of the work is done by the fastest matrix product there is. Its price is the matrix, KH * KW
times as large as x, which has to be written and read again: for one channel it takes longer than the product.
With groups there is one product for each.
"""

import numpy as np

from ...gemm.cpu import gemm_threaded
from ...jit import jit
from ...threads import threaded
from ...workspace import scratch
from .rung import Rung, pad_input


@jit(inner=True)
def gather_patches(n, x, patches, first, strides, dilation):
    """One chunk: one image. patches[n, oh, ow, kh, kw] = x[n, oh * SH + kh * DH, ow * SW + kw * DW, first:][:depth]."""
    _, out_h, out_w, kernel_h, kernel_w, depth = patches.shape
    for oh in range(out_h):
        for ow in range(out_w):
            for kh in range(kernel_h):
                for kw in range(kernel_w):
                    h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                    for c in range(depth):
                        patches[n, oh, ow, kh, kw, c] = x[n, h, v, first + c]


@jit(inner=True)
def scatter_patches(n, patches, dx, first, strides, dilation):
    """One chunk: one image. The way back: every patch is added to the cells that it was taken from."""
    _, out_h, out_w, kernel_h, kernel_w, depth = patches.shape
    for oh in range(out_h):
        for ow in range(out_w):
            for kh in range(kernel_h):
                for kw in range(kernel_w):
                    h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                    for c in range(depth):
                        dx[n, h, v, first + c] += patches[n, oh, ow, kh, kw, c]


_gather_patches, _scatter_patches = threaded(gather_patches), threaded(scatter_patches)


def _groups(g):
    """For each group: its first channel, and its filters."""
    depth, filters = g.C // g.groups, g.F // g.groups
    return [(group * depth, slice(group * filters, (group + 1) * filters)) for group in range(g.groups)]


def _patches(x, g, first):
    """The windows of `depth` channels from `first` on, one a row."""
    flat, height, width = pad_input(x, g)
    patches = _empty_patches(x, g)
    padded = flat.reshape(g.N, height, width, g.C)
    _gather_patches(g.N, patches.size, padded, patches, first, g.strides, g.dilation)
    return patches.reshape(g.N * g.OH * g.OW, -1)


def _empty_patches(x, g):
    shape = g.N, g.OH, g.OW, g.KH, g.KW, g.C // g.groups
    return scratch("convolution.patches", int(np.prod(shape)), x.dtype).reshape(shape)


def _forward(x, w, b, y, g, activation):
    columns, rows = w.reshape(-1, g.F), y.reshape(-1, g.F)
    for first, filters in _groups(g):
        product = rows if g.groups == 1 else np.empty((rows.shape[0], g.F // g.groups), x.dtype)
        bias = None if b is None else b[filters]
        gemm_threaded(_patches(x, g, first), columns[:, filters], product, bias, activation)
        if g.groups > 1:
            rows[:, filters] = product


def _data_gradient(dz, w, dx, g):
    (top, bottom), (left, right) = g.padding
    columns, rows = w.reshape(-1, g.F), dz.reshape(-1, g.F)
    padded = np.zeros((g.N, g.H + top + bottom, g.W + left + right, g.C), dx.dtype)
    for first, filters in _groups(g):
        patches = _empty_patches(dx, g)
        gemm_threaded(rows[:, filters], columns[:, filters].T, patches.reshape(rows.shape[0], -1))
        _scatter_patches(g.N, patches.size, patches, padded, first, g.strides, g.dilation)
    dx[...] = padded[:, top : top + g.H, left : left + g.W]


def _weight_gradient(x, dz, dw, g):
    columns, rows = dw.reshape(-1, g.F), dz.reshape(-1, g.F)
    for first, filters in _groups(g):
        product = np.empty((columns.shape[0], g.F // g.groups), x.dtype)
        gemm_threaded(_patches(x, g, first).T, rows[:, filters], product)
        columns[:, filters] = product


conv2d_im2col = Rung(_forward, _data_gradient, _weight_gradient)
