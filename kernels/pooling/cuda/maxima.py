"""Maxima on a GPU. `bits` are those of one offset; 0: nobody wants them."""

import math
from functools import cache

import numpy as np
from numba import cuda, int32, int64, uint8, uint16, uint32, uint64

from ...arrays import address
from ...launch import element_of, kernel, pointer
from ...ptx import load, shift_right, store
from ...quotients import quotient
from ...wide import accesses
from .windows import (
    MANY,
    THREADS,
    Rung,
    cells_of,
    lanes_of,
    launch_over_cells,
    launch_over_windows,
    own_of,
    pixel_of,
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
        x: pointer(T), y: pointer(T), offsets: pointer(packed), size: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, vectors_factor: uint32, vectors_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
    ):  # fmt: skip
        """One thread: one of y's `size` vectors, all cells of its window in turn."""
        i = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i < size:
            image, oh, ow, vector = pixel_of(
                i, vectors, vectors_factor, vectors_shift, out_w, wide_factor, wide_shift,
                out_h, high_factor, high_shift,
            )  # fmt: skip
            h0, h, h_end = cells_of(oh, stride_h, top, size_h, height)
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            best, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            offset = cuda.local.array(lanes, int32)
            line = int32(((image * height + h) * width + w_first) * vectors + vector)
            first = int32((h - h0) * size_w + w_first - w0)
            for v in range(lanes):
                best[v], offset[v] = T(LOWEST), first
            while h < h_end:
                at, cell, w = line, first, w_first
                while w < w_end:
                    fetch(x, int64(at) * lanes, lanes, value)
                    for v in range(lanes):
                        if beats(value[v], best[v]):
                            best[v], offset[v] = value[v], cell
                    at, cell, w = int32(at + vectors), int32(cell + 1), int32(w + 1)
                line, first, h = int32(line + width * vectors), int32(first + size_w), int32(h + 1)
            put(y, int64(i) * lanes, lanes, best)
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
        x: pointer(T), y: pointer(T), offsets: pointer(packed), across: int32, across_bits: uint32, groups: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, groups_factor: uint32, groups_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
        span: int32, span_factor: uint32, span_shift: uint32,
    ):  # fmt: skip
        """One block: `across` (a power of two) of y's vectors that lie side by side; one thread: one of them, and every
        (256 / across)th cell of the window, in rows of `span`, of which an edge cuts some. What the threads found meets
        in shared memory (8 KB; 6 with float64)."""
        shared_best = cuda.shared.array(room, T)
        shared_offset = cuda.shared.array(room, int32)
        image, oh, ow, group = pixel_of(
            int32(cuda.blockIdx.x), groups, groups_factor, groups_shift, out_w, wide_factor, wide_shift,
            out_h, high_factor, high_shift,
        )  # fmt: skip
        thread, step = int32(cuda.threadIdx.x), int32(shift_right(uint32(THREADS), across_bits))
        part = int32(shift_right(uint32(thread), across_bits))
        vector = int32(group * across + thread - part * across)
        h0, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
        w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        best, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
        offset = cuda.local.array(lanes, int32)
        for v in range(lanes):
            best[v], offset[v] = T(LOWEST), int32(NOWHERE)
        number, cells = part, int32((h_end - h_first) * span if vector < vectors else 0)
        while number < cells:
            row = quotient(number, span_factor, span_shift)
            h, w = int32(h_first + row), int32(w_first + number - row * span)
            if w < w_end:
                fetch(x, int64(int32(((image * height + h) * width + w) * vectors + vector)) * lanes, lanes, value)
                cell = int32((h - h0) * size_w + w - w0)
                for v in range(lanes):
                    if beats(value[v], best[v]) or offset[v] == NOWHERE:
                        best[v], offset[v] = value[v], cell
            number = int32(number + step)
        half = int32(THREADS // 2)
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
            half = int32(half >> 1)
        if part == 0 and vector < vectors:
            at = int32(((image * out_h + oh) * out_w + ow) * vectors + vector)
            put(y, int64(at) * lanes, lanes, best)
            if bits:
                store(offsets, at, pack(offset))

    return take_shared_maxima


@cache
def max_backward(T, lanes, bits, own):
    fetch, put = accesses(T, lanes, lanes)
    packed, mask = packed_type(lanes, bits), (1 << bits) - 1
    word = uint64 if lanes * bits == 64 else uint32
    each = sum(1 << bits * v for v in range(lanes))  # times a cell: it, in the place of every offset

    @kernel(threads=THREADS)
    def collect_from_maxima(
        dy: pointer(T), offsets: pointer(packed), dx: pointer(T), size: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, vectors_factor: uint32, vectors_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
        down_factor: uint32, down_shift: uint32, right_factor: uint32, right_shift: uint32,
    ):  # fmt: skip
        """One thread: `own` vectors of a cell of dx, with all others of it between them; from all windows over the cell
        whose maximum it is, in rising order. Where an offset and the cell are equal, their bits together hold zeros."""
        i = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i < size:
            image, h, w, vector = pixel_of(
                i, vectors, vectors_factor, vectors_shift, width, wide_factor, wide_shift,
                height, high_factor, high_shift,
            )  # fmt: skip
            h, w = int32(h + top), int32(w + left)
            oh, oh_end = windows_over(h, size_h, stride_h, out_h, down_factor, down_shift)
            ow_first, ow_end = windows_over(w, size_w, stride_w, out_w, right_factor, right_shift)
            total, share = cuda.local.array((own, lanes), T), cuda.local.array(lanes, T)
            for k in range(own):
                for v in range(lanes):
                    total[k, v] = T(0)
            wide = int32(own * vectors)
            line = int32(((image * out_h + oh) * out_w + ow_first) * wide + vector)
            first = int32((h - oh * stride_h) * size_w + w - ow_first * stride_w)
            along = int32((ow_end - ow_first) * wide)
            while oh < oh_end:
                at, cell, end = line, first, int32(line + along)
                while at < end:
                    cells = word(word(cell) * word(each))
                    for k in range(own):
                        place = int32(at + k * vectors)
                        differing = word(word(load(offsets, place)) ^ cells)
                        fetch(dy, int64(place) * lanes, lanes, share)
                        for v in range(lanes):
                            if word(differing & word(mask << bits * v)) == word(0):
                                total[k, v] += share[v]
                    at, cell = int32(at + wide), int32(cell - stride_w)
                line, first = int32(line + out_w * wide), int32(first - stride_h * size_w)
                oh = int32(oh + 1)
            for k in range(own):
                put(dx, int64(int32(own * (i - vector) + vector + k * vectors)) * lanes, lanes, total[k])

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
    size_h, size_w = geometry[4:6]
    T, lanes = element_of(x), _lanes(geometry[3], offsets, x, y)
    bits = 0 if offsets is None else 8 * offsets.itemsize
    arrays = x, y, y.view(f"u{lanes}") if offsets is None else _packed(offsets, lanes)
    if size_h * size_w >= MANY:
        launch_over_windows(max_forward_shared(T, lanes, bits), lanes, arrays, geometry)
    else:
        launch_over_cells(max_forward(T, lanes, bits), True, lanes, arrays, geometry)


def backward(dy, offsets, dx, geometry):
    T, lanes = element_of(dy), _lanes(geometry[3], offsets, dy, dx)
    own = own_of(geometry[3], lanes)
    collect = max_backward(T, lanes, 8 * offsets.itemsize, own)
    arrays = dy, _packed(offsets, lanes), dx
    launch_over_cells(collect, False, lanes, arrays, geometry, own)


max_vectors = Rung(forward, backward)
