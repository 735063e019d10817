"""Losses on an NVIDIA GPU: one pass over the data each, forward and backward.

A block leaves one number, its part of the mean, and where there are several one more block adds these up. Nobody adds
up more than a few dozen terms in a row, in the dtype of the data; the sizes alone fix the order. The host waits for
nothing but what it has to know: labels.py.
"""

from .elements import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    count_correct_binary,
    mean_absolute_error,
    mean_absolute_error_backward,
    mean_squared_error,
    mean_squared_error_backward,
    sigmoid_cross_entropy,
    sigmoid_cross_entropy_backward,
)
from .labels import count_correct, first_outside
from .rows import (
    categorical_cross_entropy,
    categorical_cross_entropy_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
    sparse_categorical_cross_entropy,
    sparse_categorical_cross_entropy_backward,
    sparse_softmax_cross_entropy,
    sparse_softmax_cross_entropy_backward,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "categorical_cross_entropy",
    "categorical_cross_entropy_backward",
    "count_correct",
    "count_correct_binary",
    "first_outside",
    "mean_absolute_error",
    "mean_absolute_error_backward",
    "mean_squared_error",
    "mean_squared_error_backward",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "sparse_categorical_cross_entropy",
    "sparse_categorical_cross_entropy_backward",
    "sparse_softmax_cross_entropy",
    "sparse_softmax_cross_entropy_backward",
]
