"""The rung "naive": the loops of the definition, one number at a time.

In all kernels x is the padded image, whose cell (oh * SH + kh * DH, ow * SW + kw * DW) meets tap (kh, kw) at output
pixel (oh, ow); filter f sees the channels of its group alone, `depth` of them from f // (F / groups) * depth on.
"""

import numpy as np

from ...gemm.cpu import CODES, add_bias_and_activate
from ...jit import jit
from ..rung import Rung
from .zeros import pad_input


@jit
def convolve(x, w, y, strides, dilation):
    """One sum for each number of y."""
    kernel_h, kernel_w, depth, filters = w.shape
    per_group = filters * depth // x.shape[3]
    for n, oh, ow, f in np.ndindex(y.shape):
        total = y.dtype.type(0)
        for kh in range(kernel_h):
            for kw in range(kernel_w):
                h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                for c in range(depth):
                    total += x[n, h, v, f // per_group * depth + c] * w[kh, kw, c, f]
        y[n, oh, ow, f] = total


@jit
def scatter_data_gradient(dz, w, dx, strides, dilation):
    """Every number of dz goes back to all cells of x that it came from. dx, padded like x, starts as zeros."""
    kernel_h, kernel_w, depth, filters = w.shape
    per_group = filters * depth // dx.shape[3]
    for n, oh, ow, f in np.ndindex(dz.shape):
        for kh in range(kernel_h):
            for kw in range(kernel_w):
                h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                for c in range(depth):
                    dx[n, h, v, f // per_group * depth + c] += dz[n, oh, ow, f] * w[kh, kw, c, f]


@jit
def correlate(x, dz, dw, strides, dilation):
    """One sum over all images and output pixels for each number of dw."""
    images, out_h, out_w, filters = dz.shape
    depth = dw.shape[2]
    per_group = filters * depth // x.shape[3]
    for kh, kw, c, f in np.ndindex(dw.shape):
        total = dw.dtype.type(0)
        for n in range(images):
            for oh in range(out_h):
                for ow in range(out_w):
                    h, v = oh * strides[0] + kh * dilation[0], ow * strides[1] + kw * dilation[1]
                    total += x[n, h, v, f // per_group * depth + c] * dz[n, oh, ow, f]
        dw[kh, kw, c, f] = total


def _padded(x, g):
    flat, height, width = pad_input(x, g)
    return flat.reshape(g.N, height, width, g.C)


def _forward(x, w, b, y, g, activation):
    convolve(_padded(x, g), w, y, g.strides, g.dilation)
    if b is not None or activation is not None:
        bias = np.empty(0, x.dtype) if b is None else b
        add_bias_and_activate(y.reshape(-1), y.size // g.F, g.F, bias, CODES[activation])


def _data_gradient(dz, w, dx, g):
    (top, bottom), (left, right) = g.padding
    padded = np.zeros((g.N, g.H + top + bottom, g.W + left + right, g.C), dx.dtype)
    scatter_data_gradient(dz.reshape(g.N, g.OH, g.OW, g.F), w, padded, g.strides, g.dilation)
    dx[...] = padded[:, top : top + g.H, left : left + g.W]


def _weight_gradient(x, dz, dw, g):
    correlate(_padded(x, g), dz.reshape(g.N, g.OH, g.OW, g.F), dw, g.strides, g.dilation)


conv2d_naive = Rung(_forward, _data_gradient, _weight_gradient)
