"""Optimizer updates on a CPU: one pass, a vector at a time.

A chunk is CHUNK elements, and every array is read and written once, whatever the formula: this is bound by memory.
With AVX-512 the last, partial vector costs no loop of its own, since masks are free there.

The numbers of an update come in an array: a recorded one is played back with those of another step in it.
"""

from ..jit import jit
from ..recording import changing
from ..simd import at, fma, lanes, vload_part, vsqrt, vstore_part
from ..threads import threaded

CHUNK = 16384
# What one element costs in arithmetic operations, memory counted in: it decides between threads and none.
WORK = 12


def _chunks(size):
    return -(-size // CHUNK)


@jit
def sgd_chunk(chunk, w, g, numbers):
    learning_rate = at(numbers, 0)
    end = min((chunk + 1) * CHUNK, w.size)
    for i in range(chunk * CHUNK, end, lanes(w)):
        left = end - i
        weight = fma(vload_part(g, i, left), -learning_rate, vload_part(w, i, left))
        vstore_part(w, i, weight, left)


@jit
def momentum_chunk(chunk, w, g, velocity, numbers, nesterov):
    learning_rate, momentum = at(numbers, 0), at(numbers, 1)
    end = min((chunk + 1) * CHUNK, w.size)
    for i in range(chunk * CHUNK, end, lanes(w)):
        left = end - i
        push = vload_part(g, i, left) * learning_rate
        speed = vload_part(velocity, i, left) * momentum - push
        vstore_part(velocity, i, speed, left)
        if nesterov:
            speed = speed * momentum - push
        vstore_part(w, i, vload_part(w, i, left) + speed, left)


_sgd, _momentum = threaded(sgd_chunk), threaded(momentum_chunk)


def sgd(w, g, velocity, learning_rate, momentum, nesterov):
    numbers = changing(learning_rate, momentum)
    if velocity is None:
        _sgd(_chunks(w.size), WORK * w.size, w, g, numbers)
    else:
        _momentum(_chunks(w.size), WORK * w.size, w, g, velocity, numbers, nesterov)


@jit
def rmsprop_chunk(chunk, w, g, v, velocity, mean, numbers):
    """fresh = 1 - rho; velocity and mean are empty where they are not in use."""
    learning_rate, rho, fresh = at(numbers, 0), at(numbers, 1), at(numbers, 2)
    momentum, epsilon = at(numbers, 3), at(numbers, 4)
    end = min((chunk + 1) * CHUNK, w.size)
    for i in range(chunk * CHUNK, end, lanes(w)):
        left = end - i
        gradient = vload_part(g, i, left)
        square = vload_part(v, i, left) * rho + gradient * gradient * fresh
        vstore_part(v, i, square, left)
        if mean.size > 0:
            average = vload_part(mean, i, left) * rho + gradient * fresh
            vstore_part(mean, i, average, left)
            square = square - average * average
        step = gradient * learning_rate / vsqrt(square + epsilon)
        if velocity.size > 0:
            step = vload_part(velocity, i, left) * momentum + step
            vstore_part(velocity, i, step, left)
        vstore_part(w, i, vload_part(w, i, left) - step, left)


_rmsprop = threaded(rmsprop_chunk)


def rmsprop(w, g, v, velocity, mean, *numbers):
    nothing = w[:0]
    velocity = nothing if velocity is None else velocity
    mean = nothing if mean is None else mean
    _rmsprop(_chunks(w.size), 2 * WORK * w.size, w, g, v, velocity, mean, changing(*numbers))


@jit
def adam_chunk(chunk, w, g, m, v, numbers):
    """fresh_1 = 1 - beta_1, fresh_2 = 1 - beta_2; decay is what the weights lose before the step."""
    alpha, fresh_1, fresh_2 = at(numbers, 0), at(numbers, 1), at(numbers, 2)
    epsilon, decay = at(numbers, 3), at(numbers, 4)
    end = min((chunk + 1) * CHUNK, w.size)
    for i in range(chunk * CHUNK, end, lanes(w)):
        left = end - i
        gradient = vload_part(g, i, left)
        mean = vload_part(m, i, left)
        mean = fma(gradient - mean, fresh_1, mean)
        square = vload_part(v, i, left)
        square = fma(gradient * gradient - square, fresh_2, square)
        vstore_part(m, i, mean, left)
        vstore_part(v, i, square, left)
        weight = vload_part(w, i, left)
        if decay != 0.0:
            weight = fma(weight, -decay, weight)
        vstore_part(w, i, weight - mean * alpha / (vsqrt(square) + epsilon), left)


_adam = threaded(adam_chunk)


def adam(w, g, m, v, *numbers):
    _adam(_chunks(w.size), WORK * w.size, w, g, m, v, changing(*numbers))
