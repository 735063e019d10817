"""`Dropout`."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np

from ...kernels.arrays import namespace
from ...kernels.recording import beforehand, is_recording, own_memory
from .. import functions
from ..utils import get_seed, next_stream
from .base import Layer


class Dropout(Layer):
    """In training, sets each value to 0 with probability `rate` and scales the others by 1 / (1 - rate).

    The mask depends on the seed, on the layer's own random stream and on the number of training calls so far, and
    on nothing else: it is the same on every device and for any number of threads.

    Args:
        rate: between 0 and 1, 1 excluded.
        seed: the process's seed (see `utils.set_random_seed`) by default.
        **options: name, dtype, device, input_shape: see `Layer`.
    """

    _varies = ("_step",)
    _kept = {**Layer._kept, "seed": "_key", "stream": "_stream", "step": "_step"}

    def __init__(self, rate, *, seed=None, **options):
        super().__init__(**options)
        if isinstance(rate, bool) or not isinstance(rate, Real):
            raise TypeError(f"Dropout: rate must be a number from 0 to below 1, got {rate!r}")
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be a number from 0 to below 1, got {rate!r}")
        self.rate = float(rate)
        self.seed = seed
        self._key = get_seed() if seed is None else seed
        self._stream = next_stream()
        self._step = 0

    def call(self, x):
        if not self.training or not self.rate:
            return x
        if is_recording():  # each replay is another step
            with own_memory():
                step = namespace(x.data).empty((1,), np.int64)
            beforehand(self._take_step, step)
        else:
            step = self._step
            self._step += 1
        return functions.dropout(x, self.rate, seed=self._key, stream=self._stream, step=step)

    def _take_step(self, step):
        """Writes the number of this call."""
        step[...] = self._step
        self._step += 1

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def flops(self, input_shape):
        return math.prod(input_shape)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
