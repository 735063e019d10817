"""`Dense` and `Activation`."""

from __future__ import annotations

import math

from .. import activations, functions, initializers
from .arguments import as_positive_int, check_known
from .base import Layer


def split_activation(activation):
    """How a layer applies it: (the name that the kernel fuses, or None; the function for afterwards, or None).

    Sigmoid is not fused, although the kernels could: it has to keep its logits, from which binary cross-entropy is
    computed stably.
    """
    if activation.function is activations.linear:
        return None, None
    if activation.fused and activation.name != "sigmoid":
        return activation.name, None
    return None, activation.function


class Activated(Layer):
    """Base of layers whose `activation` is part of their kernel where it can be; it may be exchanged at any time."""

    @property
    def activation(self):
        return self._activation

    @activation.setter
    def activation(self, activation):
        self._activation = activations.get(activation)
        self._fused, self._after = split_activation(self._activation)


class Dense(Activated):
    """`activation(x @ kernel + bias)` on the last axis.

    Args:
        units: length of the output's last axis.
        activation: a name, or a function of a tensor; none by default.
        use_bias: whether to add a bias.
        kernel_initializer, bias_initializer: names or initializers.
        variant: the rung of `kernels.dense` to use; chosen by shape by default.
        **options: name, dtype, trainable, device, input_shape, input_dim: see `Layer`.

    Input shape: (N, ..., features). Output shape: (N, ..., units).

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.Dense(3, activation="relu")(np.zeros((2, 5))).shape
    (2, 3)
    """

    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        *,
        variant=None,
        **options,
    ):
        super().__init__(**options)
        self.units = as_positive_int("Dense", "units", units)
        self.activation = activation
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.variant = variant

    def build(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                f"Dense: the input has {len(input_shape)} axis: it must have at least 2 axes (N, ..., features), "
                "for one sample x[None]"
            )
        features = check_known("Dense", input_shape)
        self.kernel = self.add_weight((features, self.units), self.kernel_initializer, name="kernel")
        self.bias = self.add_weight((self.units,), self.bias_initializer, name="bias") if self.use_bias else None

    def call(self, x):
        y = functions.dense(x, self.kernel, self.bias, activation=self._fused, variant=self.variant)
        return y if self._after is None else self._after(y)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def flops(self, input_shape):
        return 2 * math.prod(input_shape) * self.units

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "variant": self.variant,
        }


class Activation(Layer):
    """An activation function as a layer.

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.Activation("relu")(np.array([[-1.0, 2.0]])).data
    array([[0., 2.]], dtype=float32)
    """

    def __init__(self, activation, **options):
        super().__init__(**options)
        self.activation = activations.get(activation)

    def call(self, x):
        return self.activation(x)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def flops(self, input_shape):
        return math.prod(input_shape)

    def get_config(self):
        return {**super().get_config(), "activation": activations.serialize(self.activation)}
