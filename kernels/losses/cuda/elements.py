"""Losses on elements, and answers that are right: a block takes CHUNK of them, a thread 16 bytes at a time, or one
number where an array starts between."""

from functools import cache

from numba import cuda, int32, int64

from ...activation.cuda.elementwise import clamp, sigmoid_of, softplus_of
from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import load, log1p, store
from ...reductions import block_sum, device
from ...wide import accesses, width_of
from .parts import LOG_HIGHEST, LOG_LOWEST, THREADS, WARPS, is_clipped, log_of_clipped, scale_of, total_of

# Elements of one block.
CHUNK = 4096

# ---------------------------------------------------------------------------------------------------------------------
# The loss of two numbers, and its slope


@device
def _squared(y, t):
    return (y - t) * (y - t)


@device
def _squared_slope(y, t):
    return (y - t) + (y - t)


@device
def _absolute(y, t):
    return abs(y - t)


@device
def _absolute_slope(y, t):
    T = type(y)
    d = y - t
    return T(1) if d > T(0) else (T(-1) if d < T(0) else d)


@device
def _binary(p, t):
    T = type(p)
    other = clamp(log1p(-clamp(p, 0.0, 1.0)), LOG_LOWEST, LOG_HIGHEST)
    return (t - T(1)) * other - t * log_of_clipped(p)


@device
def _binary_slope(p, t):
    T = type(p)
    return T(0) if is_clipped(p) else (p - t) / (p * (T(1) - p))


@device
def _logistic(x, t):
    """log(1 + e^x) - x t"""
    return softplus_of(x) - x * t


@device
def _logistic_slope(x, t):
    return sigmoid_of(x) - t


# ---------------------------------------------------------------------------------------------------------------------
# Kernels over arrays


@cache
def mean(loss, T, width):
    fetch, _ = accesses(T, width, width)
    step = THREADS * width
    steps = CHUNK // step

    @kernel(threads=THREADS)
    def add_up_chunk(y: pointer(T), t: pointer(T), size: int64, part: T, parts: pointer(T)):
        """One block: CHUNK elements; one thread: 16 of them, `width` at a time. `part` is what one is of the mean."""
        shared = cuda.shared.array(WARPS, T)
        predictions = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        total = T(0)
        for k in range(steps):
            first = int64(cuda.blockIdx.x) * CHUNK + k * step + cuda.threadIdx.x * width
            fetch(y, first, size - first, predictions)
            fetch(t, first, size - first, targets)
            for v in range(width):
                if first + v < size:
                    total += loss(predictions[v], targets[v])
        total = block_sum(total, shared)
        if cuda.threadIdx.x == 0:
            store(parts, cuda.blockIdx.x, total * part)

    return add_up_chunk


@cache
def mean_backward(slope, T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def multiply_by_slope(
        dloss: pointer(T), has_dloss: int32, scale: T, y: pointer(T), t: pointer(T), size: int64, dy: pointer(T)
    ):
        """One thread: `width` neighbouring numbers of dy, the slope times `scale` and, where there is one, dloss[0]."""
        predictions = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        if has_dloss:
            scale *= load(dloss, 0)
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        fetch(y, first, size - first, predictions)
        fetch(t, first, size - first, targets)
        for v in range(width):
            predictions[v] = slope(predictions[v], targets[v]) * scale
        put(dy, first, size - first, predictions)

    return multiply_by_slope


@cache
def count(T, width):
    fetch, _ = accesses(T, width, width)
    step = THREADS * width
    steps = CHUNK // step

    @kernel(threads=THREADS)
    def count_right_answers(p: pointer(T), t: pointer(T), size: int64, threshold: T, parts: pointer(int64)):
        """One block: how many of CHUNK answers are right; one thread: 16 of them, `width` at a time."""
        shared = cuda.shared.array(WARPS, int32)
        answers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        right = int32(0)
        for k in range(steps):
            first = int64(cuda.blockIdx.x) * CHUNK + k * step + cuda.threadIdx.x * width
            fetch(p, first, size - first, answers)
            fetch(t, first, size - first, targets)
            for v in range(width):
                if first + v < size and targets[v] == (T(1) if answers[v] > threshold else T(0)):
                    right = int32(right + 1)
        right = block_sum(right, shared)
        if cuda.threadIdx.x == 0:
            store(parts, cuda.blockIdx.x, int64(right))

    return count_right_answers


def count_correct_binary(p, t, threshold):
    """The number of p on their t's side of the threshold."""
    T, p, t = element_of(p), contiguous(p), contiguous(t)
    parts = namespace(p).empty((-(-p.size // CHUNK),), "int64")
    count(T, width_of(p, t))((parts.size,), p, t, p.size, threshold, parts)
    return total_of(int64, parts)


def elementwise(loss, slope):
    """Launchers (y, t) -> mean and (dloss, y, t, dy) for one of the losses above; dloss is a number or an array ()."""

    def launch_forward(y, t):
        T, y, t = element_of(y), contiguous(y), contiguous(t)
        parts = namespace(y).empty((-(-y.size // CHUNK),), y.dtype)
        mean(loss, T, width_of(y, t))((parts.size,), y, t, y.size, 1.0 / y.size, parts)
        return total_of(T, parts)

    def launch_backward(dloss, y, t, dy):
        T, y, t, dy = element_of(y), contiguous(y), contiguous(t), contiguous(dy)
        width = width_of(y, t, dy)
        blocks = -(-y.size // (THREADS * width))
        mean_backward(slope, T, width)((blocks,), *scale_of(dloss, y, y.size), y, t, y.size, dy)

    return launch_forward, launch_backward


mean_squared_error, mean_squared_error_backward = elementwise(_squared, _squared_slope)
mean_absolute_error, mean_absolute_error_backward = elementwise(_absolute, _absolute_slope)
binary_cross_entropy, binary_cross_entropy_backward = elementwise(_binary, _binary_slope)
sigmoid_cross_entropy, sigmoid_cross_entropy_backward = elementwise(_logistic, _logistic_slope)
