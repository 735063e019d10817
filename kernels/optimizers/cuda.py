"""Optimizer updates on an NVIDIA GPU: one launch, one pass.

A thread owns as many neighbouring elements as fill 16 bytes (four of float32, two of float64), or one where an array
starts between. It reads w, g and the state, and writes w and the state, each number once: this is bound by memory.
"""

from functools import cache

from numba import cuda, int32, int64

from ..launch import element_of, kernel, pointer
from ..ptx import sqrt
from ..wide import accesses, width_of

THREADS = 256


@cache
def sgd_kernel(T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def update_sgd(w: pointer(T), g: pointer(T), size: int64, learning_rate: T):
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        left = size - first
        weight, gradient = cuda.local.array(width, T), cuda.local.array(width, T)
        fetch(w, first, left, weight)
        fetch(g, first, left, gradient)
        for v in range(width):
            weight[v] = weight[v] - learning_rate * gradient[v]
        put(w, first, left, weight)

    return update_sgd


@cache
def momentum_kernel(T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def update_momentum(
        w: pointer(T), g: pointer(T), velocity: pointer(T), size: int64, learning_rate: T, momentum: T, nesterov: int32
    ):
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        left = size - first
        weight, gradient = cuda.local.array(width, T), cuda.local.array(width, T)
        speed = cuda.local.array(width, T)
        fetch(w, first, left, weight)
        fetch(g, first, left, gradient)
        fetch(velocity, first, left, speed)
        for v in range(width):
            push = learning_rate * gradient[v]
            speed[v] = momentum * speed[v] - push
            weight[v] += momentum * speed[v] - push if nesterov else speed[v]
        put(velocity, first, left, speed)
        put(w, first, left, weight)

    return update_momentum


@cache
def rmsprop_kernel(T, width, has_velocity, has_mean):
    """The kernel with or without a velocity, a mean; what is not in use is not looked at."""
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def update_rmsprop(
        w: pointer(T), g: pointer(T), v: pointer(T), velocity: pointer(T), mean: pointer(T), size: int64,
        learning_rate: T, rho: T, fresh: T, momentum: T, epsilon: T,
    ):  # fmt: skip
        """fresh = 1 - rho"""
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        left = size - first
        weight, gradient = cuda.local.array(width, T), cuda.local.array(width, T)
        square, speed = cuda.local.array(width, T), cuda.local.array(width, T)
        average = cuda.local.array(width, T)
        fetch(w, first, left, weight)
        fetch(g, first, left, gradient)
        fetch(v, first, left, square)
        if has_velocity:
            fetch(velocity, first, left, speed)
        if has_mean:
            fetch(mean, first, left, average)
        for k in range(width):
            square[k] = rho * square[k] + fresh * (gradient[k] * gradient[k])
            variance = square[k]
            if has_mean:
                average[k] = rho * average[k] + fresh * gradient[k]
                variance -= average[k] * average[k]
            step = learning_rate * gradient[k] / sqrt(variance + epsilon)
            if has_velocity:
                speed[k] = step = momentum * speed[k] + step
            weight[k] -= step
        put(v, first, left, square)
        if has_mean:
            put(mean, first, left, average)
        if has_velocity:
            put(velocity, first, left, speed)
        put(w, first, left, weight)

    return update_rmsprop


@cache
def adam_kernel(T, width):
    fetch, put = accesses(T, width, width)

    @kernel(threads=THREADS)
    def update_adam(
        w: pointer(T), g: pointer(T), m: pointer(T), v: pointer(T), size: int64,
        alpha: T, fresh_1: T, fresh_2: T, epsilon: T, decay: T,
    ):  # fmt: skip
        """fresh_1 = 1 - beta_1, fresh_2 = 1 - beta_2; decay is what the weights lose before the step."""
        first = (int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x) * width
        left = size - first
        weight, gradient = cuda.local.array(width, T), cuda.local.array(width, T)
        mean, square = cuda.local.array(width, T), cuda.local.array(width, T)
        fetch(w, first, left, weight)
        fetch(g, first, left, gradient)
        fetch(m, first, left, mean)
        fetch(v, first, left, square)
        if decay != T(0):  # Inf * 0 would be NaN
            for k in range(width):
                weight[k] -= decay * weight[k]
        for k in range(width):
            mean[k] += fresh_1 * (gradient[k] - mean[k])
            square[k] += fresh_2 * (gradient[k] * gradient[k] - square[k])
            weight[k] -= alpha * mean[k] / (sqrt(square[k]) + epsilon)
        put(m, first, left, mean)
        put(v, first, left, square)
        put(w, first, left, weight)

    return update_adam


def _grid(size, width):
    return (-(-size // (THREADS * width)),)


def sgd(w, g, velocity, learning_rate, momentum, nesterov):
    T, width = element_of(w), width_of(w, g, velocity)
    if velocity is None:
        sgd_kernel(T, width)(_grid(w.size, width), w, g, w.size, learning_rate)
    else:
        update = momentum_kernel(T, width)
        update(_grid(w.size, width), w, g, velocity, w.size, learning_rate, momentum, nesterov)


def rmsprop(w, g, v, velocity, mean, learning_rate, rho, fresh, momentum, epsilon):
    T, width = element_of(w), width_of(w, g, v, velocity, mean)
    update = rmsprop_kernel(T, width, velocity is not None, mean is not None)
    state = v, w if velocity is None else velocity, w if mean is None else mean
    update(_grid(w.size, width), w, g, *state, w.size, learning_rate, rho, fresh, momentum, epsilon)


def adam(w, g, m, v, alpha, fresh_1, fresh_2, epsilon, decay):
    T, width = element_of(w), width_of(w, g, m, v)
    adam_kernel(T, width)(_grid(w.size, width), w, g, m, v, w.size, alpha, fresh_1, fresh_2, epsilon, decay)
