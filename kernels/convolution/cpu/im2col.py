"""The rung "im2col": every window copied into a row of a matrix, then one matrix product for all of them.

    x (N, H, W, C)  ->  patches (N OH OW, KH KW C)          y (N OH OW, F) = patches  w (KH KW C, F)

Why it is faster than the loops: the work is done by the fastest matrix product there is (80 GFLOP/s on one thread
instead of 2, for 128 channels and a 3 x 3 window). Its price is the matrix, KH * KW times as large as x, which is
written and read again: with one channel that takes longer than the product (16 GFLOP/s). So it is made for a few
images at a time, as many as stay in the cache, and for one group of channels after another.
"""

from typing import NamedTuple

import numpy as np

from ...gemm.cpu import gemm_threaded
from ...jit import jit
from ...recording import on_host
from ...threads import threaded
from ...workspace import scratch
from ..rung import Rung
from .zeros import pad_input

# Numbers in the matrix; more only where one image needs more.
PATCHES = 1 << 19


@jit(inner=True)
def gather_patches(n, x, patches, image, first, strides, dilation):
    """One chunk: image n of the matrix. patches[n, oh, ow, kh, kw] = `depth` channels of its cell of x."""
    _, out_h, out_w, kernel_h, kernel_w, depth = patches.shape
    for oh in range(out_h):
        for ow in range(out_w):
            for kh in range(kernel_h):
                for kw in range(kernel_w):
                    h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                    for c in range(depth):
                        patches[n, oh, ow, kh, kw, c] = x[image + n, h, v, first + c]


@jit(inner=True)
def scatter_patches(n, patches, dx, image, first, strides, dilation):
    """One chunk: image n of the matrix. The way back: every patch is added to the cells that it was taken from."""
    _, out_h, out_w, kernel_h, kernel_w, depth = patches.shape
    for oh in range(out_h):
        for ow in range(out_w):
            for kh in range(kernel_h):
                for kw in range(kernel_w):
                    h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                    for c in range(depth):
                        dx[image + n, h, v, first + c] += patches[n, oh, ow, kh, kw, c]


_gather_patches, _scatter_patches = threaded(gather_patches), threaded(scatter_patches)


class Piece(NamedTuple):
    """What one matrix holds: some images, one group of channels."""

    image: int
    first: int  # channel
    patches: np.ndarray  # (images, OH, OW, KH, KW, C / groups), undefined
    rows: slice  # of y, as a matrix
    filters: slice


def _pieces(g, dtype):
    pixels, depth, filters = g.OH * g.OW, g.C // g.groups, g.F // g.groups
    size = pixels * g.KH * g.KW * depth
    step = min(g.N, max(1, PATCHES // size))
    for image in range(0, g.N, step):
        images = min(step, g.N - image)
        patches = scratch("convolution.patches", images * size, dtype).reshape(images, g.OH, g.OW, g.KH, g.KW, depth)
        rows = slice(image * pixels, (image + images) * pixels)
        for group in range(g.groups):
            yield Piece(image, group * depth, patches, rows, slice(group * filters, (group + 1) * filters))


def _fill(piece, x, g):
    """The piece's matrix."""
    patches = piece.patches
    _gather_patches(len(patches), patches.size, x, patches, piece.image, piece.first, g.strides, g.dilation)
    return _matrix(patches)


def _matrix(patches):
    return patches.reshape(int(np.prod(patches.shape[:3])), -1)


def _padded(x, g):
    flat, height, width = pad_input(x, g)
    return flat.reshape(g.N, height, width, g.C)


def _forward(x, w, b, y, g, activation):
    padded, columns, rows = _padded(x, g), w.reshape(-1, g.F), y.reshape(-1, g.F)
    for piece in _pieces(g, x.dtype):
        bias = None if b is None else b[piece.filters]
        out = rows[piece.rows, piece.filters]
        product = out if g.groups == 1 else scratch("convolution.group", out.size, x.dtype).reshape(out.shape)
        gemm_threaded(_fill(piece, padded, g), columns[:, piece.filters], product, bias, activation)
        if g.groups > 1:
            on_host(np.copyto, out, product)


def _data_gradient(dz, w, dx, g):
    (top, bottom), (left, right) = g.padding
    columns, rows = w.reshape(-1, g.F), dz.reshape(-1, g.F)
    shape = g.N, g.H + top + bottom, g.W + left + right, g.C
    padded = dx if shape == dx.shape else np.empty(shape, dx.dtype)
    on_host(padded.fill, 0)
    for piece in _pieces(g, dx.dtype):
        patches = piece.patches
        gemm_threaded(rows[piece.rows, piece.filters], columns[:, piece.filters].T, _matrix(patches))
        _scatter_patches(len(patches), patches.size, patches, padded, piece.image, piece.first, g.strides, g.dilation)
    if padded is not dx:
        on_host(np.copyto, dx, padded[:, top : top + g.H, left : left + g.W])


def _weight_gradient(x, dz, dw, g):
    padded, columns, rows = _padded(x, g), dw.reshape(-1, g.F), dz.reshape(-1, g.F)
    on_host(columns.fill, 0)
    product = np.empty((columns.shape[0], g.F // g.groups), x.dtype)
    for piece in _pieces(g, x.dtype):
        gemm_threaded(_fill(piece, padded, g).T, rows[piece.rows, piece.filters], product)
        total = columns[:, piece.filters]
        on_host(np.add, total, product, total)


conv2d_im2col = Rung(_forward, _data_gradient, _weight_gradient)
