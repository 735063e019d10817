"""`Conv2D`."""

from __future__ import annotations

import math
import operator

from .. import activations, functions, initializers
from ..utils import did_you_mean
from .arguments import as_pair, as_positive_int, check_channels_last, check_known, check_rank, window_output
from .dense import Activated


class Conv2D(Activated):
    """2-D convolution (cross-correlation, as everywhere in deep learning) with bias and activation.

    Args:
        filters: number of output channels.
        kernel_size: height and width of the window; one integer for both.
        strides: step of the window, alike.
        padding: "valid", "same", or cells added as ((top, bottom), (left, right)).
        data_format: "channels_last", the only one.
        dilation_rate: distance of the window's cells.
        groups: number of groups that the channels are split into.
        activation, use_bias, kernel_initializer, bias_initializer: as in `Dense`.
        variant: the rung of `kernels.conv2d` to use; chosen by shape by default.
        **options: name, dtype, trainable, device, input_shape: see `Layer`.

    Input shape: (N, H, W, C). Output shape: (N, OH, OW, filters).

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.Conv2D(8, 3, padding="same")(np.zeros((2, 28, 28, 1))).shape
    (2, 28, 28, 8)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        *,
        variant=None,
        **options,
    ):
        super().__init__(**options)
        self.filters = as_positive_int("Conv2D", "filters", filters)
        self.kernel_size = as_pair("Conv2D", "kernel_size", kernel_size)
        self.strides = as_pair("Conv2D", "strides", strides)
        self.padding = as_padding("Conv2D", padding)
        check_channels_last("Conv2D", data_format)
        self.dilation_rate = as_pair("Conv2D", "dilation_rate", dilation_rate)
        self.groups = as_positive_int("Conv2D", "groups", groups)
        if self.filters % self.groups:
            raise ValueError(f"Conv2D: filters must be a multiple of groups, got {self.filters} and {self.groups}")
        self.activation = activation
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.variant = variant

    def build(self, input_shape):
        channels = check_images("Conv2D", input_shape)
        if channels % self.groups:
            raise ValueError(f"Conv2D: the input has {channels} channels: not a multiple of groups={self.groups}")
        self.compute_output_shape(input_shape)  # refuses images that are smaller than the window
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_weight(shape, self.kernel_initializer, name="kernel")
        self.bias = self.add_weight((self.filters,), self.bias_initializer, name="bias") if self.use_bias else None

    def call(self, x, pool=False):
        """With `pool`, the maximum over 2 x 2 pixels of the output, which the layer behind would compute."""
        y = (functions.conv2d_max_pool2d if pool else functions.conv2d)(
            x,
            self.kernel,
            self.bias,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation_rate,
            groups=self.groups,
            activation=self._fused,
            variant=self.variant,
        )
        return y if self._after is None else self._after(y)

    def compute_output_shape(self, input_shape):
        windows = zip(self.kernel_size, self.strides, self.dilation_rate)
        return (input_shape[0], *window_outputs("Conv2D", input_shape, windows, self.padding), self.filters)

    def flops(self, input_shape):
        products = math.prod(self.kernel_size) * input_shape[3] // self.groups
        return 2 * products * math.prod(self.compute_output_shape(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "variant": self.variant,
        }


def as_padding(layer, padding):
    """ "valid", "same" or ((top, bottom), (left, right)), integers from 0."""
    if isinstance(padding, str):
        if padding.lower() not in ("valid", "same"):
            raise ValueError(did_you_mean(f"{layer}: padding", padding, ("valid", "same")))
        return padding.lower()
    try:
        (top, bottom), (left, right) = padding
        cells = [operator.index(side) for side in (top, bottom, left, right)]
        if min(cells) < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{layer}: padding must be 'valid', 'same' or ((top, bottom), (left, right)) with integers from 0, "
            f"got {padding!r}"
        ) from None
    return tuple(cells[:2]), tuple(cells[2:])


def check_images(layer, input_shape):
    """Images must be (N, H, W, C); returns C."""
    missing = len(input_shape) == 3
    hint = "; a channel axis is missing, add it with x[..., None]" if missing else ""
    check_rank(layer, input_shape, 4, "(N, H, W, C)", hint)
    return check_known(layer, input_shape)


def window_outputs(layer, input_shape, windows, padding):
    """(OH, OW), None where the input's length is; an error where the window is larger than the image."""
    lengths = []
    for axis, (size, stride, dilation) in enumerate(windows):
        along = padding if isinstance(padding, str) else padding[axis]
        length = window_output(input_shape[1 + axis], size, stride, dilation, along)
        if length is not None and length <= 0:
            raise ValueError(
                f"{layer}: the input has shape {tuple(input_shape)}: it is smaller than the window of "
                f"{(size - 1) * dilation + 1} cells along axis {1 + axis}; use padding='same' or a smaller window"
            )
        lengths.append(length)
    return lengths
