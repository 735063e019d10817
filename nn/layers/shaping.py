"""`Flatten` and `Reshape`: the same values in another shape."""

from __future__ import annotations

import math
import operator

from .arguments import check_channels_last
from .base import Layer


class Flatten(Layer):
    """All axes of a sample in one: (N, H, W, C) to (N, H * W * C).

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.Flatten()(np.zeros((2, 3, 4))).shape
    (2, 12)
    """

    def __init__(self, data_format=None, **options):
        super().__init__(**options)
        check_channels_last("Flatten", data_format)

    def call(self, x):
        return x.reshape(x.data.shape[0], math.prod(x.data.shape[1:]))

    def compute_output_shape(self, input_shape):
        lengths = input_shape[1:]
        return (input_shape[0], None if None in lengths else math.prod(lengths))


class Reshape(Layer):
    """Each sample in the shape `target_shape`, in which one length may be -1: whatever is left.

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.Reshape((2, -1))(np.zeros((5, 6))).shape
    (5, 2, 3)
    """

    def __init__(self, target_shape, **options):
        super().__init__(**options)
        if isinstance(target_shape, int):
            target_shape = (target_shape,)
        self.target_shape = tuple(operator.index(length) for length in target_shape)
        if self.target_shape.count(-1) > 1 or any(length < -1 or length == 0 for length in self.target_shape):
            raise ValueError(
                f"Reshape: target_shape must hold positive integers and at most one -1, got {self.target_shape}"
            )

    def call(self, x):
        return x.reshape(self.compute_output_shape(x.data.shape))

    def compute_output_shape(self, input_shape):
        lengths = input_shape[1:]
        if None in lengths:
            return (input_shape[0], *(None if length == -1 else length for length in self.target_shape))
        size, known = math.prod(lengths), math.prod(length for length in self.target_shape if length != -1)
        left, remainder = divmod(size, known)
        if remainder or (left != 1 and -1 not in self.target_shape):
            raise ValueError(
                f"Reshape: a sample has shape {tuple(lengths)}, {size} values: they do not fit "
                f"target_shape {self.target_shape}"
            )
        return (input_shape[0], *(left if length == -1 else length for length in self.target_shape))

    def get_config(self):
        return {**super().get_config(), "target_shape": self.target_shape}
