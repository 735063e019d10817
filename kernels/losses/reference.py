"""Losses in plain NumPy: what the kernels are checked against. All are means over elements, or over rows."""

import numpy as np

EPSILON = 1e-7


def mean_squared_error(y, t):
    return np.mean((y - t) ** 2)


def mean_squared_error_backward(dloss, y, t):
    return (dloss * 2 * (y - t) / y.size,)


def mean_absolute_error(y, t):
    return np.mean(np.abs(y - t))


def mean_absolute_error_backward(dloss, y, t):
    return (dloss * np.sign(y - t) / y.size,)


def binary_cross_entropy(p, t):
    q, other = np.clip(p, EPSILON, 1 - EPSILON), np.clip(1 - p, EPSILON, 1 - EPSILON)
    return np.mean(-t * np.log(q) - (1 - t) * np.log(other))


def binary_cross_entropy_backward(dloss, p, t):
    q = np.clip(p, EPSILON, 1 - EPSILON)
    return (np.where(p == q, dloss * ((1 - t) / (1 - q) - t / q) / p.size, 0),)


def sigmoid_cross_entropy(logits, t):
    return np.mean(np.maximum(logits, 0) - logits * t + np.log1p(np.exp(-np.abs(logits))))


def sigmoid_cross_entropy_backward(dloss, logits, t):
    return (dloss * ((1 + np.tanh(logits / 2)) / 2 - t) / logits.size,)


def _rows(y):
    return y.size // y.shape[-1]


def categorical_cross_entropy(p, t):
    q = np.clip(p / p.sum(axis=-1, keepdims=True), EPSILON, 1 - EPSILON)
    return np.sum(-t * np.log(q)) / _rows(p)


def categorical_cross_entropy_backward(dloss, p, t):
    total = p.sum(axis=-1, keepdims=True)
    q = p / total
    dq = np.where(q == np.clip(q, EPSILON, 1 - EPSILON), -t / np.maximum(q, EPSILON), 0)
    return (dloss * (dq - (dq * q).sum(axis=-1, keepdims=True)) / total / _rows(p),)


def softmax_cross_entropy(logits, t):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.sum(-t * (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))) / _rows(logits)


def softmax_cross_entropy_backward(dloss, logits, t):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    return (dloss * (p * t.sum(axis=-1, keepdims=True) - t) / _rows(logits),)


def _one_hot(labels, y):
    return (labels[..., None] == np.arange(y.shape[-1])).astype(y.dtype)


def sparse_categorical_cross_entropy(p, labels):
    return categorical_cross_entropy(p, _one_hot(labels, p))


def sparse_categorical_cross_entropy_backward(dloss, p, labels):
    return categorical_cross_entropy_backward(dloss, p, _one_hot(labels, p))


def sparse_softmax_cross_entropy(logits, labels):
    return softmax_cross_entropy(logits, _one_hot(labels, logits))


def sparse_softmax_cross_entropy_backward(dloss, logits, labels):
    return softmax_cross_entropy_backward(dloss, logits, _one_hot(labels, logits))


def count_correct_binary(p, t, threshold=0.5):
    return np.sum((p > threshold) == t)


def count_correct(p, t):
    return np.sum(p.argmax(axis=-1) == (t.argmax(axis=-1) if t.ndim == p.ndim else t))
