"""Activations in plain NumPy: what the kernels are checked against."""

import math

import numpy as np


def relu(x):
    return np.where(x < 0, 0, x)


def relu_backward(dy, x):
    return (np.where(relu(x) == 0, 0, dy),)


def leaky_relu(x, negative_slope=0.2):
    return np.where(x < 0, negative_slope * x, x)


def leaky_relu_backward(dy, x, negative_slope=0.2):
    return (np.where(x < 0, negative_slope * dy, dy),)


def elu(x, alpha=1.0):
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def elu_backward(dy, x, alpha=1.0):
    return (np.where(x < 0, dy * alpha * np.exp(np.minimum(x, 0)), dy),)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def sigmoid_backward(dy, x):
    return (dy * sigmoid(x) * sigmoid(-x),)


def tanh(x):
    return np.tanh(x)


def tanh_backward(dy, x):
    return (dy / np.cosh(x) ** 2,)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy, x):
    return (dy * sigmoid(x),)


def silu(x):
    return x * sigmoid(x)


def silu_backward(dy, x):
    return (dy * sigmoid(x) * (1 + x * sigmoid(-x)),)


_erfc = np.vectorize(math.erfc, otypes=[float])


def gelu(x, approximate=False):
    if approximate:
        return x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))
    return x * _erfc(-x / math.sqrt(2)) / 2


def gelu_backward(dy, x, approximate=False):
    if approximate:
        z = math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)
        dz = math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return (dy * sigmoid(z) * (1 + x * sigmoid(-z) * dz),)
    return (dy * (_erfc(-x / math.sqrt(2)) / 2 + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)),)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_backward(dy, x, axis=-1):
    y = softmax(x, axis)
    return (y * (dy - (dy * y).sum(axis, keepdims=True)),)


def log_softmax(x, axis=-1):
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def log_softmax_backward(dy, x, axis=-1):
    return (dy - softmax(x, axis) * dy.sum(axis, keepdims=True),)
