"""Optimizer updates on a CPU: one pass over memory, vectors at a time.

A chunk is CHUNK elements, and every array is read and written once, whatever the formula: this is bound by memory.
With AVX-512 the last, partial vector costs no loop of its own, since masks are free there.

    sgd, momentum, rmsprop, adam      one (wide) vector of weights, and of their state
    _over_chunks(run)                 all of them, with the gradient in an array
    _over_product(run)                the same, with a gradient that is a product of two thin matrices: what is computed
                                      of it is used at once, and never written to memory

The second is for recorded steps (nn/steps.py), whose update follows the gradients at once. For 5408 x 128 weights, 32
rows and Adam that takes 1.36 instead of 1.60 ms (two threads of a Zen 1, nothing in the caches); a square root and a
quotient for each weight are a third of it. Both have the same bits.

The numbers of an update come in an array: a recorded one is played back with those of another step in it.
"""

import numpy as np

from .. import simd
from ..gemm.cpu import NONE, ROWS, STEEP, pack_panel, pack_panels, tall_padded
from ..jit import jit
from ..recording import changing, taken_over
from ..simd import at, fma, lanes, stack_array, vectors, viewed, vload_part, vsqrt, vstore_part
from ..threads import threaded

CHUNK = 16384
# What one element costs in arithmetic operations, memory counted in: it decides between threads and none.
WORK = 12
# Vectors side by side: those of a tile's row.
SEVERAL = simd.TILE_COLUMNS
# Of a product: bytes of its weights, at least, and of its second matrix in panels, which a chunk keeps in its
# second-level cache; and the tiles that a chunk has above each other, at most.
FAR_BYTES, PANELS_BYTES, TALL = 1 << 20, 1 << 17, 16
# Bytes of ROWS rows of A, in float64, and of a row of tiles.
PANEL_BYTES, G_BYTES = ROWS * STEEP * 8 + simd.VECTOR_BYTES, 1 << 15


# One vector of w, with the gradient's at g[k:]. `left` lanes of it count, or it is wide (simd's Vectors). Which product
# joins which sum is said, since the compiler would choose anew in each kernel, and their bits would differ.


@jit(inline=True)
def sgd_vector(w, i, g, k, left, numbers, state):
    learning_rate, _ = numbers
    vstore_part(w, i, fma(vload_part(g, k, left), -learning_rate, vload_part(w, i, left)), left)


@jit(inline=True)
def momentum_vector(w, i, g, k, left, numbers, state):
    (learning_rate, momentum), (velocity, nesterov) = numbers, state
    push = vload_part(g, k, left) * learning_rate
    speed = fma(vload_part(velocity, i, left), momentum, -push)
    vstore_part(velocity, i, speed, left)
    if nesterov:
        speed = fma(speed, momentum, -push)
    vstore_part(w, i, vload_part(w, i, left) + speed, left)


@jit(inline=True)
def rmsprop_vector(w, i, g, k, left, numbers, state):
    """fresh = 1 - rho; velocity and mean are empty where they are not in use."""
    (learning_rate, rho, fresh, momentum, epsilon), (v, velocity, mean) = numbers, state
    gradient = vload_part(g, k, left)
    square = fma(vload_part(v, i, left), rho, gradient * gradient * fresh)
    vstore_part(v, i, square, left)
    if mean.size > 0:
        average = fma(vload_part(mean, i, left), rho, gradient * fresh)
        vstore_part(mean, i, average, left)
        square = fma(-average, average, square)
    step = gradient * learning_rate / vsqrt(square + epsilon)
    if velocity.size > 0:
        step = fma(vload_part(velocity, i, left), momentum, step)
        vstore_part(velocity, i, step, left)
    vstore_part(w, i, vload_part(w, i, left) - step, left)


@jit(inline=True)
def adam_vector(w, i, g, k, left, numbers, state):
    """fresh_1 = 1 - beta_1, fresh_2 = 1 - beta_2; decay is what the weights lose before the step."""
    (alpha, fresh_1, fresh_2, epsilon, decay), (m, v) = numbers, state
    gradient = vload_part(g, k, left)
    mean = vload_part(m, i, left)
    mean = fma(gradient - mean, fresh_1, mean)
    square = vload_part(v, i, left)
    square = fma(fma(gradient, gradient, -square), fresh_2, square)
    vstore_part(m, i, mean, left)
    vstore_part(v, i, square, left)
    weight = vload_part(w, i, left)
    if decay != 0.0:
        weight = fma(weight, -decay, weight)
    vstore_part(w, i, weight - mean * alpha / (vsqrt(square) + epsilon), left)


# A run of weights, and the two kernels that are made of it.


def _run(vector):
    @jit(inline=True, name=f"{__name__}.{vector.py_func.__name__}_run")
    def run(w, i, g, k, count, numbers, state):
        """w[i:i + count], with the gradient at g[k:]."""
        step = lanes(w)
        wide = count - count % (SEVERAL * step)
        for j in range(0, wide, SEVERAL * step):
            vector(w, i + j, g, k + j, vectors(SEVERAL), numbers, state)
        for j in range(wide, count, step):
            vector(w, i + j, g, k + j, count - j, numbers, state)

    return run


def _over_chunks(run, read, name):
    @jit(name=f"{__name__}.{name}_chunk")
    def update_chunk(chunk, w, g, numbers, state):
        """One chunk: CHUNK elements."""
        start = chunk * CHUNK
        run(w, start, g, start, min(CHUNK, w.size - start), read(numbers), state)

    return threaded(update_chunk)


def _over_product(run, read, name):
    @jit(inner=True, name=f"{__name__}.{name}_product")
    def update_product(chunk, w, product, groups, columns, numbers, state):
        """One chunk: `columns` of w, for one of the `groups` of tiles above each other.

        B's panels are packed for all of these. A row of tiles waits on the stack until it is whole: weights and state
        are then read and written in long pieces, which the hardware sees coming. (Tile by tile, a line or two of each
        row, all of it took 1.6 instead of 1.36 ms.)
        """
        a, a_row, a_col, b, b_row, m, n, depth = product
        values, width, none = read(numbers), simd.TILE_COLUMNS * lanes(w), w[:0]
        panels, panel = viewed(stack_array(np.uint8, PANELS_BYTES), w), viewed(stack_array(np.uint8, PANEL_BYTES), w)
        g = viewed(stack_array(np.uint8, G_BYTES), w)
        tiles, group, first = (m + ROWS - 1) // ROWS, chunk % groups, chunk // groups * columns
        count = min(columns, n - first)
        whole = (count + width - 1) // width * width
        pack_panels(b, first, 1, b_row, count, depth, width, panels, 0)
        for i in range(group * tiles // groups * ROWS, min(m, (group + 1) * tiles // groups * ROWS), ROWS):
            rows = min(ROWS, m - i)
            pack_panel(a, i * a_row, a_row, a_col, rows, depth, ROWS, panel, 0)
            for j in range(0, whole, width):
                tall_padded(
                    panel, 0, 1, ROWS, panels, j * depth, width, depth,
                    g, j, whole, ROWS, width, False, none, 0, NONE,
                )  # fmt: skip
            if count == whole == n:
                run(w, i * n, g, 0, rows * n, values, state)
            else:
                for row in range(rows):
                    run(w, (i + row) * n + first, g, row * whole, count, values, state)

    return threaded(update_product)


@jit(inline=True)
def _two(numbers):
    return at(numbers, 0), at(numbers, 1)


@jit(inline=True)
def _five(numbers):
    return at(numbers, 0), at(numbers, 1), at(numbers, 2), at(numbers, 3), at(numbers, 4)


def _launcher(vector, read, work):
    """A function (w, g, numbers, state): see the top."""
    name, run = vector.py_func.__name__.removesuffix("_vector"), _run(vector)
    over_chunks, over_product = _over_chunks(run, read, name), _over_product(run, read, name)

    def launch(w, g, numbers, state):
        product, numbers = taken_over(g) if w.nbytes >= FAR_BYTES else None, changing(*numbers)
        if product is None:
            over_chunks(-(-w.size // CHUNK), work * w.size, w, g, numbers, state)
            return
        groups, columns = product_cut(product.m, product.n, product.depth, w.itemsize)
        chunks, operations = groups * -(-product.n // columns), (work + 2 * product.depth) * w.size
        over_product(chunks, operations, w, product, groups, columns, numbers, state)

    return launch


def product_cut(m, n, depth, itemsize):
    """(groups of rows, columns) of the chunks of a product, from its sizes alone: an even number where there are few
    rows, and columns of which the panels, and a row of tiles, fit on the stack."""
    width, tiles = simd.TILE_COLUMNS * simd.VECTOR_BYTES // itemsize, -(-m // ROWS)
    groups = max(-(-tiles // TALL), min(16, tiles))
    room = min(PANELS_BYTES // depth, G_BYTES // ROWS) // itemsize
    pieces = -(-n // (room // width * width))
    return groups, -(-n // (pieces * width)) * width


_sgd, _momentum = _launcher(sgd_vector, _two, WORK), _launcher(momentum_vector, _two, WORK)
_rmsprop, _adam = _launcher(rmsprop_vector, _five, 2 * WORK), _launcher(adam_vector, _five, WORK)


def sgd(w, g, velocity, learning_rate, momentum, nesterov):
    if velocity is None:
        _sgd(w, g, (learning_rate, momentum), ())
    else:
        _momentum(w, g, (learning_rate, momentum), (velocity, nesterov))


def rmsprop(w, g, v, velocity, mean, *numbers):
    nothing = w[:0]
    _rmsprop(w, g, numbers, (v, nothing if velocity is None else velocity, nothing if mean is None else mean))


def adam(w, g, m, v, *numbers):
    _adam(w, g, numbers, (m, v))
