"""Means on a GPU."""

from functools import cache

from numba import cuda, int32, int64, uint32

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


@cache
def avg_forward(T, lanes):
    fetch, put = accesses(T, lanes, lanes)

    @kernel(threads=THREADS)
    def take_means(
        x: pointer(T), y: pointer(T), size: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, vectors_factor: uint32, vectors_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
    ):  # fmt: skip
        """One thread: one of y's `size` vectors, the rows of its window each summed for itself."""
        i = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i < size:
            image, oh, ow, vector = pixel_of(
                i, vectors, vectors_factor, vectors_shift, out_w, wide_factor, wide_shift,
                out_h, high_factor, high_shift,
            )  # fmt: skip
            _, h, h_end = cells_of(oh, stride_h, top, size_h, height)
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            cells = T(int32((h_end - h) * (w_end - w_first)))
            total, along = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            value = cuda.local.array(lanes, T)
            for v in range(lanes):
                total[v] = T(0)
            line = int32(((image * height + h) * width + w_first) * vectors + vector)
            while h < h_end:
                at, w = line, w_first
                for v in range(lanes):
                    along[v] = T(0)
                while w < w_end:
                    fetch(x, int64(at) * lanes, lanes, value)
                    for v in range(lanes):
                        along[v] += value[v]
                    at, w = int32(at + vectors), int32(w + 1)
                for v in range(lanes):
                    total[v] += along[v]
                line, h = int32(line + width * vectors), int32(h + 1)
            for v in range(lanes):
                total[v] /= cells
            put(y, int64(i) * lanes, lanes, total)

    return take_means


@cache
def avg_forward_shared(T, lanes):
    fetch, put = accesses(T, lanes, lanes)
    room = THREADS * lanes

    @kernel(threads=THREADS)
    def take_shared_means(
        x: pointer(T), y: pointer(T), across: int32, across_bits: uint32, groups: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, groups_factor: uint32, groups_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
        span: int32, span_factor: uint32, span_shift: uint32,
    ):  # fmt: skip
        """One block, one thread: as in `max_forward_shared`. 4 KB of shared memory."""
        shared = cuda.shared.array(room, T)
        image, oh, ow, group = pixel_of(
            int32(cuda.blockIdx.x), groups, groups_factor, groups_shift, out_w, wide_factor, wide_shift,
            out_h, high_factor, high_shift,
        )  # fmt: skip
        thread, step = int32(cuda.threadIdx.x), int32(shift_right(uint32(THREADS), across_bits))
        part = int32(shift_right(uint32(thread), across_bits))
        vector = int32(group * across + thread - part * across)
        _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
        _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        total, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
        for v in range(lanes):
            total[v] = T(0)
        number, cells = part, int32((h_end - h_first) * span if vector < vectors else 0)
        while number < cells:
            row = quotient(number, span_factor, span_shift)
            h, w = int32(h_first + row), int32(w_first + number - row * span)
            if w < w_end:
                fetch(x, int64(int32(((image * height + h) * width + w) * vectors + vector)) * lanes, lanes, value)
                for v in range(lanes):
                    total[v] += value[v]
            number = int32(number + step)
        half = int32(THREADS // 2)
        for v in range(lanes):
            store(shared, v * THREADS + thread, total[v])
        cuda.syncthreads()
        while half >= across:
            if thread < half:
                for v in range(lanes):
                    total[v] += load(shared, v * THREADS + thread + half)
                    store(shared, v * THREADS + thread, total[v])
            cuda.syncthreads()
            half = int32(half >> 1)
        if part == 0 and vector < vectors:
            cells = T(int32((h_end - h_first) * (w_end - w_first)))
            for v in range(lanes):
                total[v] /= cells
            put(y, int64(int32(((image * out_h + oh) * out_w + ow) * vectors + vector)) * lanes, lanes, total)

    return take_shared_means


@cache
def avg_backward(T, lanes, own):
    fetch, put = accesses(T, lanes, lanes)

    @kernel(threads=THREADS)
    def collect_from_means(
        dy: pointer(T), dx: pointer(T), size: int32,
        height: int32, width: int32, vectors: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32, vectors_factor: uint32, vectors_shift: uint32,
        wide_factor: uint32, wide_shift: uint32, high_factor: uint32, high_shift: uint32,
        down_factor: uint32, down_shift: uint32, right_factor: uint32, right_shift: uint32, whole: T,
    ):  # fmt: skip
        """One thread: `own` vectors of a cell of dx, as in `max_backward`, from all windows over it, in rising order.

        A division is ten instructions: there is one for all numbers of a vector, and where a window is `whole`, so that
        this is a cell's part of its mean, none.
        """
        i = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i < size:
            image, h, w, vector = pixel_of(
                i, vectors, vectors_factor, vectors_shift, width, wide_factor, wide_shift,
                height, high_factor, high_shift,
            )  # fmt: skip
            oh, oh_end = windows_over(int32(h + top), size_h, stride_h, out_h, down_factor, down_shift)
            ow_first, ow_end = windows_over(int32(w + left), size_w, stride_w, out_w, right_factor, right_shift)
            total, share = cuda.local.array((own, lanes), T), cuda.local.array(lanes, T)
            for k in range(own):
                for v in range(lanes):
                    total[k, v] = T(0)
            wide = int32(own * vectors)
            line = int32(((image * out_h + oh) * out_w + ow_first) * wide + vector)
            right, end = int32(max(int32(width - size_w + 1), 0)), int32(ow_end * stride_w - left)
            while oh < oh_end:
                _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
                at, start = line, int32(ow_first * stride_w - left)
                inside = right if h_end - h_first == size_h else int32(0)  # windows that start before this are whole
                while start < end:
                    part = whole
                    if start < 0 or start >= inside:
                        w_first, w_end = int32(max(start, 0)), int32(min(int32(start + size_w), width))
                        part = T(1) / T(int32((h_end - h_first) * (w_end - w_first)))
                    for k in range(own):
                        fetch(dy, int64(int32(at + k * vectors)) * lanes, lanes, share)
                        for v in range(lanes):
                            total[k, v] += share[v] * part
                    at, start = int32(at + wide), int32(start + stride_w)
                line, oh = int32(line + out_w * wide), int32(oh + 1)
            for k in range(own):
                put(dx, int64(int32(own * (i - vector) + vector + k * vectors)) * lanes, lanes, total[k])

    return collect_from_means


def forward(x, y, geometry):
    size_h, size_w = geometry[4:6]
    T, lanes = element_of(x), lanes_of(geometry[3], x, y)
    if size_h * size_w >= MANY:
        launch_over_windows(avg_forward_shared(T, lanes), lanes, (x, y), geometry)
    else:
        launch_over_cells(avg_forward(T, lanes), True, lanes, (x, y), geometry)


def backward(dy, dx, geometry):
    size_h, size_w = geometry[4:6]
    T, lanes = element_of(dy), lanes_of(geometry[3], dy, dx)
    own = own_of(geometry[3], lanes)
    collect = avg_backward(T, lanes, own)

    def launch(grid, *args):
        collect(grid, *args, 1.0 / (size_h * size_w))

    launch_over_cells(launch, False, lanes, (dy, dx), geometry, own)


avg_vectors = Rung(forward, backward)
