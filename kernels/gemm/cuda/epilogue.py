"""What follows a product: bias and activation, and their gradients."""

from functools import cache

import numpy as np
from numba import cuda, float32, int32, int64, uint16

from ...arrays import namespace
from ...launch import element_of, kernel, pointer
from ...ptx import exp, from_bf16, load, store, tanh, to_bf16

NONE, RELU, SIGMOID, TANH = range(4)
CODES = {None: NONE, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}


@cuda.jit(device=True, forceinline=True)
def at_least(z, floor):
    """max(z, floor); NaN stays NaN. The floor is 0 for a ReLU, else -Inf."""
    if z < floor:
        return floor
    return z


@cuda.jit(device=True, forceinline=True)
def finish(z, activation):
    """f(z)"""
    T = type(z)
    if activation == RELU:
        return at_least(z, T(0))
    if activation == SIGMOID:
        return T(1) / (T(1) + exp(-z))
    if activation == TANH:
        return tanh(z)
    return z


@cache
def activate(T):
    @kernel(threads=256)
    def activate_elements(c: pointer(T), size: int64, activation: int32):
        """One thread: one element of C, c = sigmoid(c) or tanh(c). Their exponentials are no part of the products: they
        would take the registers that the tiles need."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        if i < size:
            store(c, i, finish(load(c, i), activation))

    return activate_elements


# Rows of one partial sum of db.
CHUNK_ROWS = 64


def conversions(T):
    """(the type to compute in, how to load, how to store) of numbers kept as T: bfloat16, as uint16, is float32 between
    loads and stores."""
    if T is not uint16:
        return T, load, store

    @cuda.jit(device=True, forceinline=True)
    def load_bf16(memory, index):
        return from_bf16(load(memory, index))

    @cuda.jit(device=True, forceinline=True)
    def store_bf16(memory, index, number):
        store(memory, index, to_bf16(number))

    return float32, load_bf16, store_bf16


@cache
def epilogue_backward(E):
    T, get, put = conversions(E)

    @kernel(threads=256)
    def multiply_by_derivative(
        dy: pointer(E), y: pointer(E), dz: pointer(E), partial: pointer(T), m: int32, n: int32, activation: int32
    ):
        """One thread: one column of 64 rows of dz = dy f'(z), f' taken from y, and their sum in partial[chunk].
        Neighbouring threads take neighbouring columns, and so read whole cache lines."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        chunk, col = i // n, i % n
        if chunk * CHUNK_ROWS < m:
            total = T(0)
            for row in range(chunk * CHUNK_ROWS, min(int64(m), (chunk + 1) * CHUNK_ROWS)):
                at = row * n + col
                g = get(dy, at)
                if activation != NONE:
                    out = get(y, at)
                    if activation == RELU:
                        if out == T(0):
                            g = T(0)
                    elif activation == SIGMOID:
                        g *= out * (T(1) - out)
                    else:
                        g *= T(1) - out * out
                    put(dz, at, g)
                total += g
            store(partial, i, total)

    return multiply_by_derivative


@cache
def add_parts(E):
    T, get, put = conversions(E)

    @kernel(threads=256)
    def add_up_parts(
        partial: pointer(T), parts: int32, size: int64, total: pointer(E), bias: pointer(E), n: int32, has_bias: int32,
        activation: int32,
    ):  # fmt: skip
        """One thread: one element of total = f(partial[0] + partial[1] + ... + bias), always in this order."""
        i = int64(cuda.blockIdx.x) * 256 + cuda.threadIdx.x
        if i < size:
            value = T(0)
            for part in range(parts):
                value += load(partial, part * size + i)
            if has_bias:
                value += get(bias, i % n)
            put(total, i, finish(value, activation))

    return add_up_parts


def add_up(partial, total, bias=None, activation=None):
    """total = f(the sum of partial's arrays, each as large as total, + bias); of bfloat16, partial is float32."""
    parts = partial.size // max(total.size, 1)
    bias, n, has_bias = (total, 1, False) if bias is None else (bias, bias.size, True)
    add_parts(element_of(total))(
        (-(-total.size // 256),), partial, parts, total.size, total, bias, n, has_bias, CODES[activation]
    )


def dense_epilogue_backward(dy, y, activation):
    """(dz, db) for y = f(z + b): dz = dy f'(z), and db, the sum of dz's rows; dy and y are (M, N).

    With no activation dz is dy itself. Workspace: a row for every 64, of float32 where dy is bfloat16.
    """
    (m, n), E, xp = dy.shape, element_of(dy), namespace(dy)
    dy, y = xp.ascontiguousarray(dy), xp.ascontiguousarray(y)
    dz = dy if activation is None else xp.empty(dy.shape, dy.dtype)
    chunks = -(-m // CHUNK_ROWS)
    partial = xp.empty((chunks, n), np.float32 if E is uint16 else dy.dtype)
    db = xp.empty((n,), dy.dtype)
    epilogue_backward(E)(
        (-(-chunks * n // 256),), dy, y, dz, partial, m, n,
        CODES[activation],
    )  # fmt: skip
    add_up(partial, db)
    return dz, db
