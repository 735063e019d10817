"""Pooling: the maximum or the mean over windows, or over whole images."""

from __future__ import annotations

import math

from .. import functions
from ..utils import did_you_mean
from .arguments import as_pair, check_channels_last
from .base import Layer
from .convolution import Conv2D, check_images, window_outputs


class _Pooling2D(Layer):
    """Windows of images. A subclass names the function that reduces a window."""

    function = None

    def __init__(self, pool_size=(2, 2), strides=None, padding="valid", data_format=None, *, variant=None, **options):
        super().__init__(**options)
        kind = type(self).__name__
        self.pool_size = as_pair(kind, "pool_size", pool_size)
        self.strides = self.pool_size if strides is None else as_pair(kind, "strides", strides)
        if not isinstance(padding, str) or padding.lower() not in ("valid", "same"):
            raise ValueError(did_you_mean(f"{kind}: padding", padding, ("valid", "same")))
        self.padding = padding.lower()
        check_channels_last(kind, data_format)
        self.variant = variant

    def build(self, input_shape):
        check_images(type(self).__name__, input_shape)

    def call(self, x):
        return self.function(
            x, pool_size=self.pool_size, strides=self.strides, padding=self.padding, variant=self.variant
        )

    def compute_output_shape(self, input_shape):
        windows = zip(self.pool_size, self.strides, (1, 1))
        lengths = window_outputs(type(self).__name__, input_shape, windows, self.padding)
        return (input_shape[0], *lengths, input_shape[3])

    def flops(self, input_shape):
        return math.prod(self.pool_size) * math.prod(self.compute_output_shape(input_shape))

    def get_config(self):
        return {
            **super().get_config(),
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
            "variant": self.variant,
        }


class MaxPooling2D(_Pooling2D):
    """The largest value of each window, channel by channel.

    Args:
        pool_size: height and width of the window; one integer for both.
        strides: step of the window; as large as the window by default.
        padding: "valid" or "same".
        data_format: "channels_last", the only one.
        variant: the rung of `kernels.max_pool2d` to use; the default one otherwise.
        **options: name, dtype, device, input_shape: see `Layer`.

    Input shape: (N, H, W, C). Output shape: (N, OH, OW, C).

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.MaxPooling2D()(np.zeros((2, 5, 4, 3))).shape
    (2, 2, 2, 3)
    """

    function = functions.max_pool2d

    def backward_flops(self, input_shape, wanted):
        """One addition for each maximum."""
        return math.prod(self.compute_output_shape(input_shape))


def is_done_by(convolution, pooling):
    """Whether a convolution can hand on the maxima that the layer behind it would compute: `Conv2D.call(x, pool=True)`.

    The numbers are the same; what lies between the two layers is neither written nor read.
    """
    return (
        type(convolution) is Conv2D
        and type(pooling) is MaxPooling2D
        and pooling.pool_size == pooling.strides == (2, 2)
        and pooling.padding == "valid"
        and convolution.variant is pooling.variant is convolution._after is None
        and convolution.built
        and pooling.built
        and convolution.dtype == pooling.dtype
        and convolution.device == pooling.device
    )


class AveragePooling2D(_Pooling2D):
    """The mean of each window, channel by channel; cells of the padding do not count.

    Args and shapes: see `MaxPooling2D`.
    """

    function = functions.avg_pool2d


class _GlobalPooling2D(Layer):
    """Whole images. A subclass names the function that reduces an image."""

    function = None

    def __init__(self, data_format=None, keepdims=False, **options):
        super().__init__(**options)
        check_channels_last(type(self).__name__, data_format)
        self.keepdims = bool(keepdims)

    def build(self, input_shape):
        check_images(type(self).__name__, input_shape)

    def call(self, x):
        y = self.function(x)
        return y.reshape(y.shape[0], 1, 1, y.shape[1]) if self.keepdims else y

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *((1, 1) if self.keepdims else ()), input_shape[3])

    def flops(self, input_shape):
        return math.prod(input_shape)

    def get_config(self):
        return {**super().get_config(), "keepdims": self.keepdims}


class GlobalAveragePooling2D(_GlobalPooling2D):
    """The mean of each channel over the whole image: (N, H, W, C) to (N, C), or to (N, 1, 1, C) with `keepdims`."""

    function = functions.global_avg_pool2d


class GlobalMaxPooling2D(_GlobalPooling2D):
    """The maximum of each channel over the image: (N, H, W, C) to (N, C), or to (N, 1, 1, C) with `keepdims`."""

    function = functions.global_max_pool2d

    def backward_flops(self, input_shape, wanted):
        """One addition for each maximum."""
        return math.prod(self.compute_output_shape(input_shape))


# Keras's short names.
MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
GlobalMaxPool2D = GlobalMaxPooling2D
GlobalAvgPool2D = GlobalAveragePooling2D
