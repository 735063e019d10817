"""What layers ask of their arguments: one check and one error text for each kind."""

from __future__ import annotations

import operator

import numpy as np


def as_positive_int(layer, name, value):
    """`value` as a Python integer above 0."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{layer}: {name} must be a positive integer, got {value!r}") from None
    if number <= 0 or isinstance(value, bool):
        raise ValueError(f"{layer}: {name} must be a positive integer, got {value!r}")
    return number


def as_count(layer, name, value):
    """`value` as a Python integer from 0 on."""
    text = f"{layer}: {name} must be an integer from 0 on, got {value!r}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(text) from None
    if number < 0:
        raise ValueError(text)
    return number


def as_pair(layer, name, value):
    """`value`, a positive integer or two of them, as two: (height, width)."""
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(parts) != 2:
        raise ValueError(f"{layer}: {name} must be a positive integer or two of them (height, width), got {value!r}")
    return tuple(as_positive_int(layer, name, part) for part in parts)


def as_dtype(layer, dtype):
    """float32 (the default) or float64."""
    try:
        known = np.dtype("float32" if dtype is None else dtype)
    except TypeError:  # a name that NumPy does not know, such as one of Keras's policies
        known = dtype
    if known not in (np.float32, np.float64):
        raise TypeError(f"{layer}: dtype must be float32 or float64, got {known}")
    return known


def as_shape(layer, name, shape):
    """A tuple of positive integers and None (any length)."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"{layer}: {name} must be a tuple such as (28, 28, 1), got {shape!r}")
    return tuple(length if length is None else as_positive_int(layer, name, length) for length in shape)


def check_channels_last(layer, data_format):
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f"{layer}: data_format is {data_format!r}: images are (N, H, W, C) here, move the channels to the end, "
            "for example with x.transpose(0, 2, 3, 1), and pass 'channels_last' or nothing"
        )


def check_rank(layer, input_shape, rank, axes, hint=""):
    """The input must have `rank` axes, which `axes` names."""
    if len(input_shape) != rank:
        raise ValueError(f"{layer}: the input has shape {tuple(input_shape)}: it must have {rank} axes {axes}{hint}")


def check_known(layer, input_shape, axis=-1):
    """The length that the weights' shape depends on."""
    if input_shape[axis] is None:
        raise ValueError(
            f"{layer}: the input has shape {tuple(input_shape)}: its last axis must have a known length, "
            "for example input_shape=(None, 100)"
        )
    return input_shape[axis]


def check_declared(layer, input_shape, declared):
    """The input must not contradict the shape that the layer was declared with, where both are known."""
    known = [pair for pair in zip(input_shape, declared) if None not in pair]
    if len(input_shape) != len(declared) or any(a != b for a, b in known):
        raise ValueError(
            f"{layer}: the input has shape {tuple(input_shape)} and the layer is declared for {declared}: they must be "
            "equal, leave its input_shape or input_dim out"
        )


def window_output(length, size, stride, dilation, padding):
    """How often a window fits along an axis; None where the length is unknown.

    `padding` is "valid", "same" or the cells added on either side.
    """
    if length is None:
        return None
    if padding == "same":
        return -(-length // stride)
    added = 0 if padding == "valid" else padding[0] + padding[1]
    return (length + added - (size - 1) * dilation - 1) // stride + 1
