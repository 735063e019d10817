"""What both passes of every rung have in common: the arrays that forward leaves for backward, and first gradients."""

import math

import numpy as np

from ...recording import on_host
from ...workspace import scratch


def _memory(name, shape, dtype, keep):
    """A new array, or scratch memory in this shape."""
    return np.empty(shape, dtype) if keep else scratch(f"recurrent.{name}", math.prod(shape), dtype).reshape(shape)


def trace(x, hidden, h0, c0, keep):
    """inputs, gates, cells: empty but for the first state."""
    n, steps, size = x.shape
    inputs = _memory("inputs", (n, steps, size + hidden), x.dtype, keep)
    gates = _memory("gates", (n, steps, 4 * hidden), x.dtype, keep)
    cells = _memory("cells", (n, steps + 1, hidden), x.dtype, keep)
    on_host(np.copyto, inputs[:, 0, size:], 0 if h0 is None else h0)
    on_host(np.copyto, cells[:, 0], 0 if c0 is None else c0)
    return inputs, gates, cells


def state_gradient(given, shape, dtype):
    """A new array with the gradient that came, or zeros; it becomes that of the first state."""
    gradient = np.empty(shape, dtype)
    on_host(np.copyto, gradient, 0 if given is None else given)
    return gradient
