"""Depthwise convolutions, one filter a channel, in the rung "threaded".

Elsewhere the lanes of a vector are the filters of one group; here a group has one, and the lanes are channels, which
lie next to each other in x, w, y and their gradients alike:

    y[oh, ow, :]   = sum over kh, kw of w[kh, kw, :] x[oh SH + kh DH, ow SW + kw DW, :]       PIXELS of y at a time
    dx                                                the same with dz, zeros around it, and the window turned; with
                                                      strides a row of dx collects from the rows of dz that reach it
    dw[kh, kw, :] += x[...] dz[oh, ow, :]             tap by tap, PIXELS sums side by side, row by row

For 8 images of 58 x 58 x 64, 3 x 3, and two cores of a Zen 5, 0.26, 0.43 and 0.27 ms (y, dx, dw) instead of 3.15, 3.51
and 3.47 with the tiles.
"""

from typing import NamedTuple

import numpy as np

from ...gemm.cpu import CODES, NO_BIAS, NONE, RELU, activate, add_rows
from ...jit import jit
from ...recording import on_host
from ...simd import fma, lanes, select, vfill, vload_part, vstore_part
from ...threads import threaded
from ...workspace import scratch
from .rung import pad, pad_input
from .tables import padding_of_dz

PIXELS = 4
# Sums of dw that are made side by side, at most: shares of the rows, whose number depends on the sizes alone.
PARTS = 16


class Steps(NamedTuple):
    """Places in the padded x, in numbers: where the first window starts, and how far apart images, rows and pixels of
    y, rows and columns of the window are."""

    origin: int
    image: int
    row: int
    pixel: int
    down: int
    across: int


def suits(g):
    """Whether every channel has one filter of its own."""
    return g.groups == g.C == g.F


@jit(inline=True)
def window_sums(x, start, i1, i2, i3, w, c, channels, high, wide, down, across, bias):
    """A vector of channels of four pixels of y, whose windows start at `start`, `start` + i1, ..."""
    count = channels - c
    s0 = vfill(x, 0.0)
    if bias.size > 0:
        s0 = vload_part(bias, c, count)
    s1, s2, s3 = s0, s0, s0
    for kh in range(high):
        for kw in range(wide):
            tap, p = vload_part(w, (kh * wide + kw) * channels + c, count), start + kh * down + kw * across + c
            s0 = fma(vload_part(x, p, count), tap, s0)
            s1 = fma(vload_part(x, p + i1, count), tap, s1)
            s2 = fma(vload_part(x, p + i2, count), tap, s2)
            s3 = fma(vload_part(x, p + i3, count), tap, s3)
    return s0, s1, s2, s3


@jit(inner=True)
def forward_row(row, x, w, bias, y, g, steps, activation):
    """One chunk: one row of y. The last pixels are moved back; where a row has less, the last one is done again.

    Windows of 3 x 3, by far the most common, take the same lines with constant bounds, which unroll. (A vector of
    channels taken through several rows at once was slower: memory is then read in pieces.)
    """
    corner = steps.origin + row // g.OH * steps.image + row % g.OH * steps.row
    for ow in range(0, g.OW, PIXELS):
        ow = max(0, min(ow, g.OW - PIXELS))
        last = g.OW - 1 - ow
        i1, i2, i3 = min(1, last), min(2, last), min(3, last)
        start, target = corner + ow * steps.pixel, (row * g.OW + ow) * g.C
        x1, x2, x3 = i1 * steps.pixel, i2 * steps.pixel, i3 * steps.pixel
        for c in range(0, g.C, lanes(y)):
            if g.KH == 3 and g.KW == 3:
                s0, s1, s2, s3 = window_sums(x, start, x1, x2, x3, w, c, g.C, 3, 3, steps.down, steps.across, bias)
            else:
                s0, s1, s2, s3 = window_sums(
                    x, start, x1, x2, x3, w, c, g.C, g.KH, g.KW, steps.down, steps.across, bias
                )
            if activation == RELU:
                s0, s1 = select(s0 < 0.0, 0.0, s0), select(s1 < 0.0, 0.0, s1)
                s2, s3 = select(s2 < 0.0, 0.0, s2), select(s3 < 0.0, 0.0, s3)
            vstore_part(y, target + c, s0, g.C - c)
            vstore_part(y, target + i1 * g.C + c, s1, g.C - c)
            vstore_part(y, target + i2 * g.C + c, s2, g.C - c)
            vstore_part(y, target + i3 * g.C + c, s3, g.C - c)
    if activation > RELU:
        activate(y, row * g.OW * g.C, g.OW * g.C, activation)


@jit(inner=True)
def data_row(row, dz, w, dx, g):
    """One chunk: one row of dx, a vector of channels after another; tap by tap, each pixel of dz adds to one of dx."""
    (top, _), (left, _) = g.padding
    image, h = row // g.H, row % g.H + top
    for c in range(0, g.C, lanes(dx)):
        count = g.C - c
        for i in range(row * g.W, (row + 1) * g.W):
            vstore_part(dx, i * g.C + c, vfill(dx, 0.0), count)
        for kh in range(g.KH):
            below = h - kh * g.dilation[0]
            oh = below // g.strides[0]
            if below < 0 or below % g.strides[0] != 0 or oh >= g.OH:
                continue
            for kw in range(g.KW):
                tap = vload_part(w, (kh * g.KW + kw) * g.C + c, count)
                shift, step = kw * g.dilation[1] - left, g.strides[1]
                first = (max(0, -shift) + step - 1) // step
                end = min(g.OW, (g.W - shift + step - 1) // step)
                source, target = (image * g.OH + oh) * g.OW, row * g.W + shift
                for ow in range(first, end):
                    at = (target + ow * step) * g.C + c
                    share = vload_part(dz, (source + ow) * g.C + c, count)
                    vstore_part(dx, at, fma(share, tap, vload_part(dx, at, count)), count)


@jit(inner=True)
def weight_part(part, x, dz, partial, g, steps, parts):
    """One chunk: dw of one share of the rows."""
    taps = g.KH * g.KW
    first, end = part * g.N * g.OH // parts, (part + 1) * g.N * g.OH // parts
    for row in range(first, end):
        corner, source = row // g.OH * steps.image + row % g.OH * steps.row, row * g.OW * g.C
        for tap in range(taps):
            start = corner + tap // g.KW * steps.down + tap % g.KW * steps.across
            for c in range(0, g.C, lanes(dz)):
                count, target = g.C - c, (part * taps + tap) * g.C + c
                s0 = s1 = s2 = s3 = vfill(dz, 0.0)
                p, q, whole = start + c, source + c, g.OW // PIXELS
                for _ in range(whole):
                    s0 = fma(vload_part(x, p, count), vload_part(dz, q, count), s0)
                    s1 = fma(vload_part(x, p + steps.pixel, count), vload_part(dz, q + g.C, count), s1)
                    s2 = fma(vload_part(x, p + 2 * steps.pixel, count), vload_part(dz, q + 2 * g.C, count), s2)
                    s3 = fma(vload_part(x, p + 3 * steps.pixel, count), vload_part(dz, q + 3 * g.C, count), s3)
                    p, q = p + PIXELS * steps.pixel, q + PIXELS * g.C
                for _ in range(whole * PIXELS, g.OW):
                    s0 = fma(vload_part(x, p, count), vload_part(dz, q, count), s0)
                    p, q = p + steps.pixel, q + g.C
                total = (s0 + s1) + (s2 + s3)
                if row > first:
                    total = total + vload_part(partial, target, count)
                vstore_part(partial, target, total, count)


_forward_rows, _data_rows, _weight_parts = threaded(forward_row), threaded(data_row), threaded(weight_part)


def _steps(g, height, width, origin=0):
    return Steps(
        origin, height * width * g.C, g.strides[0] * width * g.C, g.strides[1] * g.C,
        g.dilation[0] * width * g.C, g.dilation[1] * g.C,
    )  # fmt: skip


def _work(g):
    return 2 * g.N * g.OH * g.OW * g.C * g.KH * g.KW


def forward(x, w, b, y, g, activation):
    """Workspace: x with its zeros, where there are any."""
    flat, height, width = pad_input(x, g)
    bias = NO_BIAS[x.dtype] if b is None else b
    steps = _steps(g, height, width)
    _forward_rows(g.N * g.OH, _work(g), flat, w.reshape(-1), bias, y.reshape(-1), g, steps, CODES[activation])


def data_gradient(dz, w, dx, g):
    """Workspace: where there are no strides dz with zeros around it, and w."""
    if g.strides != (1, 1):
        _data_rows(g.N * g.H, _work(g), dz.reshape(-1), w.reshape(-1), dx.reshape(-1), g)
        return
    rows, (left, right) = padding_of_dz(g)
    flat = pad(dz, g.N, g.OH, g.OW * g.C, (rows, (left * g.C, right * g.C)))
    height, width = g.OH + sum(rows), g.OW + left + right
    # Where x was padded by more than its windows, the first windows of dz start inside it.
    (top, _), (before, _) = g.padding
    skipped = max(0, top - (g.KH - 1) * g.dilation[0]) * width + max(0, before - (g.KW - 1) * g.dilation[1])
    turned = scratch("convolution.packed", w.size, w.dtype)
    on_host(np.copyto, turned.reshape(w.shape), w[::-1, ::-1])
    steps, back = _steps(g, height, width, skipped * g.C), g._replace(OH=g.H, OW=g.W)
    _forward_rows(g.N * g.H, _work(g), flat, turned, NO_BIAS[dz.dtype], dx.reshape(-1), back, steps, NONE)


def weight_gradient(x, dz, dw, g):
    """Workspace: x with its zeros, where there are any, and at most PARTS sums of dw."""
    flat, height, width = pad_input(x, g)
    parts, total = min(PARTS, g.N * g.OH), dw.reshape(-1)
    partial = total if parts == 1 else scratch("convolution.partial", parts * total.size, x.dtype)
    _weight_parts(parts, _work(g), flat, dz.reshape(-1), partial, g, _steps(g, height, width), parts)
    if parts > 1:
        on_host(add_rows, partial, parts, total.size, total)
