"""Matrix products in plain NumPy: what the kernels are checked against."""

import numpy as np


def matmul(a, b, *, transpose_a=False, transpose_b=False):
    """C = op(A) op(B)"""
    a = np.swapaxes(a, -1, -2) if transpose_a else a
    b = np.swapaxes(b, -1, -2) if transpose_b else b
    return a @ b


def matmul_backward(dc, a, b, *, transpose_a=False, transpose_b=False):
    """dA = dC Bᵀ, dB = Aᵀ dC, each turned back and summed over the batch dimensions that were broadcast."""
    op_a = np.swapaxes(a, -1, -2) if transpose_a else a
    op_b = np.swapaxes(b, -1, -2) if transpose_b else b
    da = dc @ np.swapaxes(op_b, -1, -2)
    db = np.swapaxes(op_a, -1, -2) @ dc
    da = np.swapaxes(da, -1, -2) if transpose_a else da
    db = np.swapaxes(db, -1, -2) if transpose_b else db
    return _sum_to(da, a.shape), _sum_to(db, b.shape)


def _sum_to(gradient, shape):
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1
    )
    return gradient.sum(axis=axes).reshape(shape)


_ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.where(z < 0, 0, z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}
_DERIVATIVES = {
    None: lambda y: np.ones_like(y),
    "relu": lambda y: np.where(y == 0, 0, np.ones_like(y)),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}


def dense(x, w, b=None, *, activation=None):
    """Y = f(X W + b)"""
    z = x @ w if b is None else x @ w + b
    return _ACTIVATIONS[activation](z)


def dense_backward(dy, x, w, b=None, *, activation=None):
    """With dZ = dY * f'(Z): dX = dZ Wᵀ, dW = Xᵀ dZ, db = the sum of dZ's rows."""
    dz = dy * _DERIVATIVES[activation](dense(x, w, b, activation=activation))
    rows = dz.reshape(-1, w.shape[1])
    dw = x.reshape(-1, w.shape[0]).T @ rows
    return dz @ w.T, dw, None if b is None else rows.sum(axis=0)
