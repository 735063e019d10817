"""Pooling as it is defined: a loop over a window for each number."""

from ...jit import jit
from .rung import Rung, cells_of


@jit
def max_forward_naive(x, y, offsets, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                target = (row * out_w + ow) * channels + c
                found = False
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        value = x[((row // out_h * height + h) * width + w) * channels + c]
                        best = y[target]
                        if not found or (best == best and not value <= best):
                            y[target], offsets[target], found = value, (h - h0) * size_w + w - w0, True


@jit
def max_backward_naive(dy, offsets, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        for ow in range(out_w):
            for c in range(channels):
                source = (row * out_w + ow) * channels + c
                h = row % out_h * stride_h - top + offsets[source] // size_w
                w = ow * stride_w - left + offsets[source] % size_w
                dx[((row // out_h * height + h) * width + w) * channels + c] += dy[source]


@jit
def avg_forward_naive(x, y, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                total, cells = x.dtype.type(0), x.dtype.type(0)
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        total += x[((row // out_h * height + h) * width + w) * channels + c]
                        cells += 1
                y[(row * out_w + ow) * channels + c] = total / cells


@jit
def avg_backward_naive(dy, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                share = dy[(row * out_w + ow) * channels + c] / ((h_end - h_first) * (w_end - w_first))
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        dx[((row // out_h * height + h) * width + w) * channels + c] += share


max_naive = Rung(max_forward_naive, max_backward_naive)
avg_naive = Rung(avg_forward_naive, avg_backward_naive)
