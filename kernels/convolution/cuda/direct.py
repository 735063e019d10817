"""The rung "direct": a thread computes one number of y, dx or dw."""

from functools import cache

from numba import cuda, int32, int64

from ...gemm.cuda import at_least
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from .rung import make_rung
from .window import count_one, set_digits, terms_of


@cache
def convolve(T):
    @kernel(threads=256)
    def convolve_direct(
        x: pointer(T), w: pointer(T), bias: pointer(T), y: pointer(T), height: int32, width: int32, channels: int32,
        depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32, step_h: int32, step_w: int32,
        taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32, filters: int32, columns: int32,
        image_step: int64, row_step: int64, pixel_step: int64, has_bias: int32, floor: T,
    ):  # fmt: skip
        """One thread: one number of y. Neighbouring threads take neighbouring filters: they read whole cache lines of
        w and, where they see the same channels, the same number of x. Every number of x is read from memory again for
        each window and filter that sees it."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        if i < int64(pixels) * filters:
            digits = cuda.local.array(3, int32)
            pixel = int32(i // filters)
            col = int32(i - int64(pixel) * filters)
            set_digits(digits, pixel, rows_w, rows_h)
            w0, h0 = start_w + digits[0] * step_w, start_h + digits[1] * step_h
            first, image = col // columns * depth, int64(digits[2]) * height
            at = int64(col)
            total = T(0)
            if has_bias:
                total = load(bias, col)
            for th in range(taps_h):
                h = h0 + th * tap_h
                for tw in range(taps_w):
                    v = w0 + tw * tap_w
                    inside = h >= 0 and h < height and v >= 0 and v < width
                    cell = ((image + h) * width + v) * channels + first
                    if inside:
                        for c in range(depth):
                            total += load(x, cell + c) * load(w, at + c * filters)
                    else:
                        for c in range(depth):
                            total += T(0) * load(w, at + c * filters)
                    at += depth * filters
            store(
                y, digits[2] * image_step + digits[1] * row_step + digits[0] * pixel_step + col, at_least(total, floor)
            )

    return convolve_direct


@cache
def correlate(T):
    @kernel(threads=256)
    def correlate_direct(
        x: pointer(T), dz: pointer(T), partial: pointer(T), height: int32, width: int32, channels: int32,
        depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32, step_h: int32, step_w: int32,
        taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32, filters: int32, columns: int32,
        share: int32, parts: int32,
    ):  # fmt: skip
        """One thread: one number of dw, added up over a share of the pixels. Neighbouring threads take neighbouring
        filters: they read whole cache lines of dz."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        size = int64(taps_h) * taps_w * depth * filters
        part = int32(i // size)
        if part < parts:
            digits = cuda.local.array(3, int32)
            row = int32((i - part * size) // filters)
            col = int32(i - part * size - int64(row) * filters)
            set_digits(digits, row, depth, taps_w)
            first = col // columns * depth + digits[0]
            w0, h0 = start_w + digits[1] * tap_w, start_h + digits[2] * tap_h
            set_digits(digits, part * share, rows_w, rows_h)
            total = T(0)
            for pixel in range(part * share, min(pixels, (part + 1) * share)):
                h, v = h0 + digits[1] * step_h, w0 + digits[0] * step_w
                number = T(0)
                if h >= 0 and h < height and v >= 0 and v < width:
                    number = load(x, ((int64(digits[2]) * height + h) * width + v) * channels + first)
                total += number * load(dz, int64(pixel) * filters + col)
                count_one(digits, rows_w, rows_h)
            store(partial, i, total)

    return correlate_direct


# Threads that the sums for dw are cut into, about, and the fewest pixels of one.
WORK, FEWEST = 65536, 64


def _convolve(window, parts, x, w, bias, y, *rest):
    *rest, _, _ = rest  # sums are not cut
    blocks = -(-window.pixels * window.filters // 256)
    convolve(element_of(x))((blocks,), x, w, bias, y, *window, *rest)


def _cut(window, T):
    return 1, terms_of(window)


def _parts(window, T):
    """Parts into which the pixels are cut for dw."""
    size = terms_of(window) * window.filters
    return min(WORK // size, window.pixels // FEWEST)


def _correlate(window, x, dz, partial, share, parts):
    correlate(element_of(x))((-(-partial.size // 256),), x, dz, partial, *window, share, parts)


conv2d_direct = make_rung(_convolve, _correlate, _cut, _parts)
