"""Maxima on a GPU. `bits` are those of one offset; 0: nobody wants them."""

import math
from functools import cache

import numpy as np
from numba import cuda, int32, int64, uint8, uint16, uint32, uint64

from ...arrays import address
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ...wide import accesses
from .windows import (
    MANY,
    THREADS,
    Rung,
    cells_of,
    lanes_of,
    launch_over_cells,
    launch_over_windows,
    pixel_of,
    quotient,
    windows_over,
)

LOWEST = -math.inf
NOWHERE = 0x7FFFFFFF
UNSIGNED = {8: uint8, 16: uint16, 32: uint32, 64: uint64}


@cuda.jit(device=True, forceinline=True)
def beats(value, best):
    """Whether a value that comes later takes the place of the best: the first of equals and the first NaN stay."""
    return best == best and not value <= best


def packed_type(lanes, bits):
    return UNSIGNED[lanes * (bits or 8)]


@cache
def packing(lanes, bits):
    """A device function: the offsets of a thread's channels as one integer, the first one in the lowest bits."""
    packed = packed_type(lanes, bits)

    @cuda.jit(device=True, forceinline=True)
    def pack(offset):
        together = uint64(0)
        for v in range(lanes):
            together |= uint64(offset[v]) << uint64(bits * v)
        return packed(together)

    return pack


@cache
def max_forward(T, lanes, bits):
    fetch, put = accesses(T, lanes, lanes)
    packed, pack = packed_type(lanes, bits), packing(lanes, bits)

    @kernel(threads=THREADS)
    def take_maxima(
        x: pointer(T), y: pointer(T), offsets: pointer(packed), size: int64,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One thread: one of y's `size` vectors, all cells of its window in turn."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            image, oh, ow, vector = pixel_of(i, channels // lanes, out_w, out_h)
            h0, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            best, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            offset = cuda.local.array(lanes, int32)
            for v in range(lanes):
                best[v], offset[v] = T(LOWEST), int32((h_first - h0) * size_w + w_first - w0)
            line = ((image * height + h_first) * width + w_first) * channels + vector * lanes
            for h in range(h_first, h_end):
                at, cell = line, (h - h0) * size_w + w_first - w0
                for _ in range(w_first, w_end):
                    fetch(x, at, lanes, value)
                    for v in range(lanes):
                        if beats(value[v], best[v]):
                            best[v], offset[v] = value[v], int32(cell)
                    at += channels
                    cell += 1
                line += int64(width) * channels
            put(y, i * lanes, lanes, best)
            if bits:
                store(offsets, i, pack(offset))

    return take_maxima


@cache
def max_forward_shared(T, lanes, bits):
    fetch, put = accesses(T, lanes, lanes)
    packed, pack = packed_type(lanes, bits), packing(lanes, bits)
    room = THREADS * lanes

    @kernel(threads=THREADS)
    def take_shared_maxima(
        x: pointer(T), y: pointer(T), offsets: pointer(packed), across: int32,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One block: `across` (a power of two) of y's vectors that lie side by side; one thread: one of them, and every
        (256 / across)th cell of the window. What the threads found meets in shared memory (8 KB; 6 with float64)."""
        shared_best = cuda.shared.array(room, T)
        shared_offset = cuda.shared.array(room, int32)
        vectors = channels // lanes
        groups = (vectors + across - 1) // across
        image, oh, ow, group = pixel_of(int64(cuda.blockIdx.x), groups, out_w, out_h)
        vector, part = group * across + cuda.threadIdx.x % across, cuda.threadIdx.x // across
        h0, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
        w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        high, wide = h_end - h_first, w_end - w_first
        best, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
        offset = cuda.local.array(lanes, int32)
        for v in range(lanes):
            best[v], offset[v] = T(LOWEST), int32(NOWHERE)
        if vector < vectors:
            for number in range(part, high * wide, THREADS // across):
                line = quotient(number, wide)
                h, w = h_first + line, w_first + number - line * wide
                fetch(x, ((image * height + h) * width + w) * channels + vector * lanes, lanes, value)
                cell = int32((h - h0) * size_w + w - w0)
                for v in range(lanes):
                    if beats(value[v], best[v]) or offset[v] == NOWHERE:
                        best[v], offset[v] = value[v], cell
        thread, half = cuda.threadIdx.x, THREADS // 2
        for v in range(lanes):
            store(shared_best, v * THREADS + thread, best[v])
            store(shared_offset, v * THREADS + thread, offset[v])
        cuda.syncthreads()
        while half >= across:
            if thread < half:
                for v in range(lanes):
                    other = load(shared_best, v * THREADS + thread + half)
                    place = load(shared_offset, v * THREADS + thread + half)
                    if place < offset[v]:  # the other one comes first: it stays unless this one beats it
                        if not beats(best[v], other):
                            best[v], offset[v] = other, place
                    elif beats(other, best[v]):
                        best[v], offset[v] = other, place
                    store(shared_best, v * THREADS + thread, best[v])
                    store(shared_offset, v * THREADS + thread, offset[v])
            cuda.syncthreads()
            half //= 2
        if part == 0 and vector < vectors:
            at = ((image * out_h + oh) * out_w + ow) * vectors + vector
            put(y, at * lanes, lanes, best)
            if bits:
                store(offsets, at, pack(offset))

    return take_shared_maxima


@cache
def max_backward(T, lanes, bits):
    fetch, put = accesses(T, lanes, lanes)
    packed, mask = packed_type(lanes, bits), (1 << bits) - 1

    @kernel(threads=THREADS)
    def collect_from_maxima(
        dy: pointer(T), offsets: pointer(packed), dx: pointer(T), size: int64,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One thread: one of dx's `size` vectors, from all windows over it whose maximum it is, in rising order."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            image, h, w, vector = pixel_of(i, channels // lanes, width, height)
            oh_first, oh_end = windows_over(h + top, stride_h, size_h, out_h)
            ow_first, ow_end = windows_over(w + left, stride_w, size_w, out_w)
            total, share = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            for v in range(lanes):
                total[v] = T(0)
            vectors = channels // lanes
            line = ((image * out_h + oh_first) * out_w + ow_first) * vectors + vector
            cell = (h + top - oh_first * stride_h) * size_w + w + left - ow_first * stride_w
            for _ in range(oh_first, oh_end):
                at, here = line, cell
                for _ in range(ow_first, ow_end):
                    together = uint64(load(offsets, at))
                    fetch(dy, at * lanes, lanes, share)
                    for v in range(lanes):
                        if int64(together >> uint64(bits * v) & uint64(mask)) == here:
                            total[v] += share[v]
                    at += vectors
                    here -= stride_w
                line += out_w * vectors
                cell -= stride_h * size_w
            put(dx, i * lanes, lanes, total)

    return collect_from_maxima


def _lanes(channels, offsets, *arrays):
    """Channels of one thread; one where their offsets are no single integer."""
    lanes = lanes_of(channels, *arrays)
    if offsets is not None and (offsets.itemsize * lanes > 8 or address(offsets) % (offsets.itemsize * lanes)):
        return 1
    return lanes


def _packed(offsets, lanes):
    return offsets.view(np.dtype(f"u{offsets.itemsize * lanes}"))


def forward(x, y, offsets, geometry):
    """offsets : None where nobody wants them"""
    *_, size_h, size_w, _, _, _, _, out_h, out_w = geometry
    T, lanes = element_of(x), _lanes(geometry[3], offsets, x, y)
    bits = 0 if offsets is None else 8 * offsets.itemsize
    arrays = x, y, y.view(f"u{lanes}") if offsets is None else _packed(offsets, lanes)
    if size_h * size_w >= MANY:
        launch_over_windows(max_forward_shared(T, lanes, bits), lanes, arrays, geometry)
    else:
        launch_over_cells(max_forward(T, lanes, bits), out_h * out_w, lanes, arrays, geometry)


def backward(dy, offsets, dx, geometry):
    T, lanes = element_of(dy), _lanes(geometry[3], offsets, dy, dx)
    collect = max_backward(T, lanes, 8 * offsets.itemsize)
    arrays = dy, _packed(offsets, lanes), dx
    launch_over_cells(collect, geometry[1] * geometry[2], lanes, arrays, geometry)


max_vectors = Rung(forward, backward)
