"""Means on a GPU."""

from functools import cache

from numba import cuda, int32, int64

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


@cache
def avg_forward(T, lanes):
    fetch, put = accesses(T, lanes, lanes)

    @kernel(threads=THREADS)
    def take_means(
        x: pointer(T), y: pointer(T), size: int64,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One thread: one of y's `size` vectors, the rows of its window each summed for itself."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            image, oh, ow, vector = pixel_of(i, channels // lanes, out_w, out_h)
            _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            total, along = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            value = cuda.local.array(lanes, T)
            for v in range(lanes):
                total[v] = T(0)
            line = ((image * height + h_first) * width + w_first) * channels + vector * lanes
            for _ in range(h_first, h_end):
                at = line
                for v in range(lanes):
                    along[v] = T(0)
                for _ in range(w_first, w_end):
                    fetch(x, at, lanes, value)
                    for v in range(lanes):
                        along[v] += value[v]
                    at += channels
                for v in range(lanes):
                    total[v] += along[v]
                line += int64(width) * channels
            cells = T(int32((h_end - h_first) * (w_end - w_first)))
            for v in range(lanes):
                total[v] /= cells
            put(y, i * lanes, lanes, total)

    return take_means


@cache
def avg_forward_shared(T, lanes):
    fetch, put = accesses(T, lanes, lanes)
    room = THREADS * lanes

    @kernel(threads=THREADS)
    def take_shared_means(
        x: pointer(T), y: pointer(T), across: int32,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One block, one thread: as in `max_forward_shared`. 4 KB of shared memory."""
        shared = cuda.shared.array(room, T)
        vectors = channels // lanes
        groups = (vectors + across - 1) // across
        image, oh, ow, group = pixel_of(int64(cuda.blockIdx.x), groups, out_w, out_h)
        vector, part = group * across + cuda.threadIdx.x % across, cuda.threadIdx.x // across
        _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
        _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        high, wide = h_end - h_first, w_end - w_first
        total, value = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
        for v in range(lanes):
            total[v] = T(0)
        if vector < vectors:
            for number in range(part, high * wide, THREADS // across):
                line = quotient(number, wide)
                h, w = h_first + line, w_first + number - line * wide
                fetch(x, ((image * height + h) * width + w) * channels + vector * lanes, lanes, value)
                for v in range(lanes):
                    total[v] += value[v]
        thread, half = cuda.threadIdx.x, THREADS // 2
        for v in range(lanes):
            store(shared, v * THREADS + thread, total[v])
        cuda.syncthreads()
        while half >= across:
            if thread < half:
                for v in range(lanes):
                    total[v] += load(shared, v * THREADS + thread + half)
                    store(shared, v * THREADS + thread, total[v])
            cuda.syncthreads()
            half //= 2
        if part == 0 and vector < vectors:
            cells = T(int32(high * wide))
            for v in range(lanes):
                total[v] /= cells
            put(y, (((image * out_h + oh) * out_w + ow) * vectors + vector) * lanes, lanes, total)

    return take_shared_means


@cache
def avg_backward(T, lanes):
    fetch, put = accesses(T, lanes, lanes)

    @kernel(threads=THREADS)
    def collect_from_means(
        dy: pointer(T), dx: pointer(T), size: int64,
        height: int32, width: int32, channels: int32, size_h: int32, size_w: int32, stride_h: int32, stride_w: int32,
        top: int32, left: int32, out_h: int32, out_w: int32,
    ):  # fmt: skip
        """One thread: one of dx's `size` vectors, its share of all windows over it, in rising order."""
        i = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if i < size:
            image, h, w, vector = pixel_of(i, channels // lanes, width, height)
            oh_first, oh_end = windows_over(h + top, stride_h, size_h, out_h)
            ow_first, ow_end = windows_over(w + left, stride_w, size_w, out_w)
            total, share = cuda.local.array(lanes, T), cuda.local.array(lanes, T)
            for v in range(lanes):
                total[v] = T(0)
            for oh in range(oh_first, oh_end):
                _, h_first, h_end = cells_of(oh, stride_h, top, size_h, height)
                for ow in range(ow_first, ow_end):
                    _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
                    cells = T(int32((h_end - h_first) * (w_end - w_first)))
                    at = ((image * out_h + oh) * out_w + ow) * channels + vector * lanes
                    fetch(dy, at, lanes, share)
                    for v in range(lanes):
                        total[v] += share[v] / cells
            put(dx, i * lanes, lanes, total)

    return collect_from_means


def forward(x, y, geometry):
    *_, size_h, size_w, _, _, _, _, out_h, out_w = geometry
    T, lanes = element_of(x), lanes_of(geometry[3], x, y)
    if size_h * size_w >= MANY:
        launch_over_windows(avg_forward_shared(T, lanes), lanes, (x, y), geometry)
    else:
        launch_over_cells(avg_forward(T, lanes), out_h * out_w, lanes, (x, y), geometry)


def backward(dy, dx, geometry):
    T, lanes = element_of(dy), lanes_of(geometry[3], dy, dx)
    launch_over_cells(avg_backward(T, lanes), geometry[1] * geometry[2], lanes, (dy, dx), geometry)


avg_vectors = Rung(forward, backward)
