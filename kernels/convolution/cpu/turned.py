"""The gradient of the weights of few filters, or few channels, in the rung "threaded": dw transposed.

In direct.py the lanes of a tile are filters, and its rows are taps. A panel of filters that is not full leaves lanes
idle there; and where a tap has few channels, those of a tile are no neighbours and have to be copied. Here it is the
other way round:

    turned[f, t, c] += dz[p, f] * x[p moved by tap t, c]          rows f, lanes c

and both operands are read where they are, dz one number at a time and x in whole vectors. That lasts as long as the
pixels of a block stay in a first-level cache for all taps, so it is for narrow arrays. On two threads of an Intel Xeon,
8 images of 60 x 60 x 32 with 32 filters of 3 x 3, 2 apart, took 1.7 instead of 2.7 ms.
"""

import functools

from ... import simd
from ...gemm.cpu import NARROW, add_rows
from ...jit import jit
from ...recording import on_host
from ...simd import lanes, tile_add, tile_outer, tile_store, tile_zeros, transpose_block
from ...threads import threaded
from ...workspace import scratch
from .tables import PARTIAL
from .zeros import pad_input

COLUMNS = simd.TILE_COLUMNS
# Filters of a tile: with fewer rows, multiply-adds would wait for each other.
LEAST = simd.TILE_ROWS // 2 + 1
# Pixels of a block, at least: each costs every tile of dw one trip to memory and back; and of a row, which is not cut:
# rows of 4096 took 1.2 times as long as in direct.py, those of 1024 half as long.
PIXELS, ROW = 192, 1024
# Chunks to aim for, so that any number of threads gets about the same: parts of the pixels, or where these are few
# shares of dw, each of which reads all of x and dz (with 8 parts of 2 shares it took 1.2 times as long on two threads).
CHUNKS = 16


def suits(g, itemsize):
    """Whether channels fill vectors, and are one panel, or filters are at most one, or less than three, not all full.

    (On an Intel Xeon, 3 x 3 windows with 32 channels took 0.56 to 0.9 times as long so; with 16 to 192 channels and 16,
    24, 48 or 80 filters 0.5 to 0.95, with 32 about as long, and longer with 64 or more. With its AVX2 alone, half as
    many filters took 0.45 to 0.85 times as long.)
    """
    channels, filters, width = g.C, g.F, COLUMNS * simd.VECTOR_BYTES // itemsize
    is_whole = channels % (width // COLUMNS if NARROW else width) == 0
    few = channels == width or filters <= width or (filters < 3 * width and filters % width > 0)
    return g.groups == 1 and is_whole and few and filters >= LEAST and g.OW <= ROW


@functools.cache
def tile_sum(height, columns):
    """The function that sums a tile of `height` filters and so many vectors of channels over some rows of pixels."""

    @jit(inner=True, name=f"{__name__}.tile_sum-{height}-{columns}")
    def add_tile(x, source, step, down, dz, z, filters, rows, out_w, partial, target, depth, keep):
        """partial[target + i * depth + j] = the sum over pixels of dz[z + i] * x[source + j], added where `keep`."""
        acc, width = tile_zeros(partial, height, columns), columns * lanes(x)
        for _ in range(rows):
            place = source
            for _ in range(out_w):
                tile_outer(acc, dz, z, 1, x, place)
                z += filters
                place += step
            source += down
        if keep:
            tile_add(acc, partial, target, depth, height, width)
        tile_store(acc, partial, target, depth, height, width)

    return add_tile


@functools.cache
def correlation(height):
    """The kernel of partial sums, for tiles of `height` filters."""

    add_wide, add_narrow = tile_sum(height, COLUMNS), tile_sum(height, 1)

    @jit(inner=True, name=f"{__name__}.correlate_turned-{height}")
    def correlate_turned(
        chunk, x, dz, partial, parts, shares, images, bands, out, padded, channels, filters, window, strides, dilation
    ):  # fmt: skip
        """One chunk: a share of the panels, (tap, channels), summed over a part of the bands of rows of the images.

        The last tile of filters is moved back where it would read beyond them; its sums have rows of their own.
        """
        part, share = chunk % parts, chunk // parts
        width, (out_h, out_w), (high, wide) = COLUMNS * lanes(x), out, padded
        tall, depth = (filters + height - 1) // height, window[0] * window[1] * channels
        first, end = part * images * bands // parts, (part + 1) * images * bands // parts
        across = (channels + width - 1) // width
        panels, step, down = window[0] * window[1] * across, strides[1] * channels, strides[0] * wide * channels
        for unit in range(first, end):
            image, band = unit // bands, unit % bands
            row, rows = band * out_h // bands, (band + 1) * out_h // bands - band * out_h // bands
            for panel in range(share * panels // shares, (share + 1) * panels // shares):
                tap, c = panel // across, panel % across * width
                h, w = row * strides[0] + tap // window[1] * dilation[0], tap % window[1] * dilation[1]
                source = ((image * high + h) * wide + w) * channels + c
                for t in range(tall):
                    z = (image * out_h + row) * out_w * filters + min(t * height, filters - height)
                    target = (part * tall + t) * height * depth + tap * channels + c
                    keep = unit > first
                    if channels - c >= width:
                        add_wide(x, source, step, down, dz, z, filters, rows, out_w, partial, target, depth, keep)
                    else:
                        add_narrow(x, source, step, down, dz, z, filters, rows, out_w, partial, target, depth, keep)

    return threaded(correlate_turned)


@jit
def turn(turned, rows, depth, dw, filters, f0):
    """dw[d, f0 + i] = turned[i, d] for i < rows."""
    square = lanes(dw)
    for d in range(0, depth, square):
        for i in range(0, rows, square):
            transpose_block(
                turned, i * depth + d, depth, rows - i, dw, d * filters + f0 + i, filters, min(square, rows - i)
            )  # fmt: skip


def weight_gradient(x, dz, dw, g):
    """Workspace: x with its zeros, where there are any; at most 17 sums of dw."""
    flat, *padded = pad_input(x, g)
    tall, depth = -(-g.F // simd.TILE_ROWS), g.KH * g.KW * g.C
    height = -(-g.F // tall)
    size = tall * height * depth
    bands = max(1, min(g.OH, g.OH * g.OW // PIXELS))
    parts = max(1, min(CHUNKS, g.N * bands, PARTIAL // size))
    panels = g.KH * g.KW * -(-g.C * x.itemsize // (COLUMNS * simd.VECTOR_BYTES))
    shares = min(panels, -(-CHUNKS // parts))
    partial = scratch("convolution.partial", parts * size, x.dtype)
    correlation(height)(
        parts * shares, 2 * g.N * g.OH * g.OW * size, flat, dz.reshape(-1), partial, parts, shares, g.N, bands,
        (g.OH, g.OW), tuple(padded), g.C, g.F, (g.KH, g.KW), g.strides, g.dilation,
    )  # fmt: skip
    total = partial
    if parts > 1:
        total = scratch("convolution.turned", size, x.dtype)
        on_host(add_rows, partial, parts, size, total)
    rows = (tall - 1) * height
    flat = dw.reshape(-1)
    on_host(turn, total, rows, depth, flat, g.F, 0)
    on_host(turn, total[rows * depth :], height, depth, flat, g.F, g.F - height)
