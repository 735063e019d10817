"""The rung "steps": the formulas, for one number after another."""

import math

import numpy as np

from ...arrays import contiguous
from ...jit import jit
from ..passes import Passes
from .trace import state_gradient, trace


@jit
def sigmoid(z, one):
    return one / (one + math.exp(-z))


@jit
def forward_in_steps(x, w, u, b, y, inputs, gates, cells):
    """The formulas, for one number after another."""
    n, steps, size = x.shape
    hidden = u.shape[0]
    one = x.dtype.type(1)
    for t in range(steps):
        for row in range(n):
            z = gates[row, t]
            for k in range(size):
                inputs[row, t, k] = x[row, t, k]
            for j in range(4 * hidden):
                z[j] = b[j]
                for k in range(size):
                    z[j] += x[row, t, k] * w[k, j]
                for k in range(hidden):
                    z[j] += inputs[row, t, size + k] * u[k, j]
            for j in range(hidden):
                z[j] = i = sigmoid(z[j], one)
                z[hidden + j] = f = sigmoid(z[hidden + j], one)
                z[2 * hidden + j] = g = math.tanh(z[2 * hidden + j])
                z[3 * hidden + j] = o = sigmoid(z[3 * hidden + j], one)
                cells[row, t + 1, j] = f * cells[row, t, j] + i * g
                y[row, t, j] = o * math.tanh(cells[row, t + 1, j])
                if t + 1 < steps:
                    inputs[row, t + 1, size + j] = y[row, t, j]


@jit
def backward_in_steps(w, u, inputs, gates, cells, dy, dh, dc, dz, dx, dw, du, db):
    """One step and row after another, the last step first; dh and dc become the gradients of the first state."""
    n, steps, size = dx.shape
    hidden = u.shape[0]
    one = dx.dtype.type(1)
    for t in range(steps - 1, -1, -1):
        for row in range(n):
            for j in range(hidden):
                i, f = gates[row, t, j], gates[row, t, hidden + j]
                g, o = gates[row, t, 2 * hidden + j], gates[row, t, 3 * hidden + j]
                tanh_c = math.tanh(cells[row, t + 1, j])
                dh_j = dh[row, j] + dy[row, t, j]
                dc_j = dc[row, j] + dh_j * o * (one - tanh_c * tanh_c)
                dz[j] = dc_j * g * i * (one - i)
                dz[hidden + j] = dc_j * cells[row, t, j] * f * (one - f)
                dz[2 * hidden + j] = dc_j * i * (one - g * g)
                dz[3 * hidden + j] = dh_j * tanh_c * o * (one - o)
                dc[row, j] = dc_j * f
                dh[row, j] = 0
            for j in range(4 * hidden):
                db[j] += dz[j]
                for k in range(size):
                    dw[k, j] += inputs[row, t, k] * dz[j]
                    dx[row, t, k] += dz[j] * w[k, j]
                for k in range(hidden):
                    du[k, j] += inputs[row, t, size + k] * dz[j]
                    dh[row, k] += dz[j] * u[k, j]


def _forward_in_steps(x, w, u, b, h0, c0, keep):
    n, steps, _ = x.shape
    hidden = u.shape[0]
    kept = trace(x, hidden, h0, c0, keep)
    y = np.empty((n, steps, hidden), x.dtype)
    w, u = contiguous(w), contiguous(u)
    b = np.zeros(4 * hidden, x.dtype) if b is None else contiguous(b)
    forward_in_steps(x, w, u, b, y, *kept)
    return y, *kept


def _backward_in_steps(saved, needs, dy, dh, dc):
    w, u, _, inputs, gates, cells, _ = saved
    n, steps, _ = inputs.shape
    hidden, dtype = u.shape[0], u.dtype
    dy = np.zeros((n, steps, hidden), dtype) if dy is None else contiguous(dy)
    dh, dc = (state_gradient(given, (n, hidden), dtype) for given in (dh, dc))
    w, u = contiguous(w), contiguous(u)
    dx, dw, du = (np.zeros(shape, dtype) for shape in ((n, steps, w.shape[0]), w.shape, u.shape))
    dz, db = np.zeros((2, 4 * hidden), dtype)
    backward_in_steps(w, u, inputs, gates, cells, dy, dh, dc, dz, dx, dw, du, db)
    return tuple(grad if need else None for grad, need in zip((dx, dw, du, db, dh, dc), needs))


STEPS = Passes(_forward_in_steps, _backward_in_steps)
