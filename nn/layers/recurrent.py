"""`LSTM`."""

from __future__ import annotations

import math

from .. import activations, functions, initializers
from .arguments import as_positive_int, check_known, check_rank
from .base import Layer


class LSTM(Layer):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; with forget gate: Gers et al., 2000).

    For each step, with gates in Keras's order i, f, c, o:

        z = x[:, t] @ kernel + h @ recurrent_kernel + bias
        c = sigmoid(z_f) * c + sigmoid(z_i) * tanh(z_c)
        h = sigmoid(z_o) * tanh(c)

    Args:
        units: length H of the state.
        activation, recurrent_activation: "tanh" and "sigmoid", the pair that the kernel computes.
        use_bias: whether there is a bias.
        kernel_initializer, recurrent_initializer, bias_initializer: names or initializers.
        unit_forget_bias: whether the forget gate's bias starts at 1.
        return_sequences: return all outputs (N, T, H) instead of the last (N, H).
        return_state: return (output, h, c).
        go_backwards: go through the steps from the last to the first.
        variant: the rung of `kernels.lstm` to use; chosen by shape by default.
        **options: name, dtype, trainable, device, input_shape: see `Layer`.

    Input shape: (N, T, I), any T. `initial_state=(h, c)`, both (N, H), may be given in the call; zeros by default.

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.LSTM(4, return_sequences=True)(np.zeros((2, 7, 3))).shape
    (2, 7, 4)
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        *,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        variant=None,
        **options,
    ):
        super().__init__(**options)
        self.units = as_positive_int("LSTM", "units", units)
        pair = (activations.get(activation).name, activations.get(recurrent_activation).name)
        if pair != ("tanh", "sigmoid"):
            raise ValueError(
                f"LSTM: activation is {pair[0]!r} and recurrent_activation {pair[1]!r}: the kernel computes 'tanh' "
                "and 'sigmoid', leave both out"
            )
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.unit_forget_bias = bool(unit_forget_bias)
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.go_backwards = bool(go_backwards)
        self.variant = variant

    def build(self, input_shape):
        check_rank("LSTM", input_shape, 3, "(N, T, features)", "; for one step a sample, x[:, None]")
        features = check_known("LSTM", input_shape)
        gates = 4 * self.units
        self.kernel = self.add_weight((features, gates), self.kernel_initializer, name="kernel")
        self.recurrent_kernel = self.add_weight(
            (self.units, gates), self.recurrent_initializer, name="recurrent_kernel"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight((gates,), self.bias_initializer, name="bias")
            if self.unit_forget_bias:
                self.bias.data[self.units : 2 * self.units] = 1

    def call(self, x, initial_state=None):
        h, c = (None, None) if initial_state is None else self._states(initial_state)
        if self.go_backwards:
            x = x[:, ::-1]
        y, h, c = functions.lstm(x, self.kernel, self.recurrent_kernel, self.bias, h, c, variant=self.variant)
        output = y if self.return_sequences else h
        return (output, h, c) if self.return_state else output

    def _states(self, initial_state):
        if not isinstance(initial_state, (tuple, list)) or len(initial_state) != 2:
            raise ValueError(f"LSTM: initial_state must be the two states (h, c), got {type(initial_state).__name__}")
        return [self._as_input(state) for state in initial_state]

    def compute_output_shape(self, input_shape):
        batch, steps = input_shape[:2]
        state = (batch, self.units)
        output = (batch, steps, self.units) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def flops(self, input_shape):
        return 8 * math.prod(input_shape[:2]) * self.units * (input_shape[2] + self.units)

    def backward_flops(self, input_shape, wanted):
        """The gradient goes back through the steps whichever gradients are wanted."""
        features, units = input_shape[2], self.units
        products = units + wanted[0] * features + wanted[1] * (features + units)
        return 8 * math.prod(input_shape[:2]) * units * products

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": initializers.serialize(self.recurrent_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "unit_forget_bias": self.unit_forget_bias,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "variant": self.variant,
        }
