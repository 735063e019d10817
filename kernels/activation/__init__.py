"""Activations: elementwise functions, and softmax along an axis.

    relu          max(x, 0)                            sigmoid    1 / (1 + e^-x)
    leaky_relu    x if x >= 0 else negative_slope x    tanh       (e^x - e^-x) / (e^x + e^-x)
    elu           x if x >= 0 else alpha (e^x - 1)     softplus   log(1 + e^x)
    silu          x sigmoid(x)                         gelu       x P(Z < x), Z normally distributed
    softmax       e^x_j / sum over k of e^x_k          log_softmax   its logarithm

For all of them: `x` is float32 or float64 of any shape and strides, the result C-contiguous and of its shape and dtype.
Elementwise results are within 4 ulp of the exact ones, also where they are denormal (on processors without fused
multiply-add, gelu far below zero is not); at -Inf and Inf they are the functions' limits, and NaN stays NaN. Empty
arrays give empty arrays. `TypeError` for other dtypes, `ValueError` for a gradient of another shape.

On a GPU elementwise results are as exact as what they are made of: the toolkit's exponentials and logarithms, of one or
two ulp each, and, for gelu far below zero, an argument that was rounded.

Arrays that are not C-contiguous are copied first. Otherwise there is no workspace, but for softmax and log_softmax
along another axis than the last: x once more, backward dy and y once more.
"""

import operator
from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import contiguous, namespace
from ..dispatch import Variants, backend, device_of

_ELEMENTWISE = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh")
# Each pass's launchers. Elementwise functions are bound by memory in their simplest form and have no ladder on a GPU.
_KERNELS = {
    name: Variants(
        name.removesuffix("_backward"), __name__, cpu={"simd": f"cpu:{name}"}, cuda={"vectors": f"cuda:{name}"}
    )
    for op in _ELEMENTWISE
    for name in (op, f"{op}_backward")
}
_KERNELS |= {
    f"{op}{backward}": Variants(
        op, __name__,
        cpu={
            "naive": f"cpu:{op}{backward}_naive",
            "simd": f"cpu:{op}{backward}_simd",
            "threaded": f"cpu:{op}{backward}",
        },
        cuda={
            "three-pass": f"cuda:{op}_three_pass{backward}",
            "online": f"cuda:{op}_online{backward}",
            "warp-per-row": f"cuda:{op}_warp_per_row{backward}",
            "registers": f"cuda:{op}_registers{backward}",
        },
    )
    for op in ("softmax", "log_softmax")
    for backward in ("", "_backward")
}  # fmt: skip
VARIANTS = {op: _KERNELS[op] for op in ("softmax", "log_softmax")}


class ActivationSaved(NamedTuple):
    """What an activation's backward needs: its input or its output, and its parameter."""

    kept: np.ndarray
    parameter: float = 0.0


class SoftmaxSaved(NamedTuple):
    """What the backward of softmax and log_softmax needs: the output, the axis and the variant."""

    y: np.ndarray
    axis: int
    variant: str | None


def relu(x):
    """y = max(x, 0).  Saved for backward: y.  dx = dy where y is not zero.

    x : (...) float32 | float64; returns y : (...).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.relu(np.array([-2.0, 3.0]))
    array([0., 3.])
    """
    return _apply("relu", x)


def relu_forward(x):
    """`relu`, and what its backward needs."""
    y = relu(x)
    return y, ActivationSaved(y)


def relu_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("relu", dy, saved, needs)


def leaky_relu(x, negative_slope=0.2):
    """y = x where x >= 0, negative_slope * x elsewhere.  Saved for backward: x.

    x : (...) float32 | float64; returns y : (...).  A. Maas et al., "Rectifier Nonlinearities Improve Neural Network
    Acoustic Models", ICML 2013.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.leaky_relu(np.array([-2.0, 3.0]), 0.5)
    array([-1.,  3.])
    """
    return _apply("leaky_relu", x, negative_slope)


def leaky_relu_forward(x, negative_slope=0.2):
    """`leaky_relu`, and what its backward needs."""
    return leaky_relu(x, negative_slope), ActivationSaved(x, negative_slope)


def leaky_relu_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("leaky_relu", dy, saved, needs)


def elu(x, alpha=1.0):
    """y = x where x >= 0, alpha (exp(x) - 1) elsewhere.  Saved for backward: x.

    x : (...) float32 | float64; returns y : (...).  D.-A. Clevert et al., "Fast and Accurate Deep Network Learning by
    Exponential Linear Units", arXiv:1511.07289.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.elu(np.array([-np.inf, 3.0]))
    array([-1.,  3.])
    """
    return _apply("elu", x, alpha)


def elu_forward(x, alpha=1.0):
    """`elu`, and what its backward needs."""
    return elu(x, alpha), ActivationSaved(x, alpha)


def elu_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("elu", dy, saved, needs)


def sigmoid(x):
    """y = 1 / (1 + exp(-x)).  Saved for backward: y.  dx = dy y (1 - y).

    x : (...) float32 | float64; returns y : (...).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.sigmoid(np.array([0.0, 1e4]))
    array([0.5, 1. ])
    """
    return _apply("sigmoid", x)


def sigmoid_forward(x):
    """`sigmoid`, and what its backward needs."""
    y = sigmoid(x)
    return y, ActivationSaved(y)


def sigmoid_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("sigmoid", dy, saved, needs)


def tanh(x):
    """y = tanh(x).  Saved for backward: y.  dx = dy (1 - y^2).

    x : (...) float32 | float64; returns y : (...).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.tanh(np.array([-1e4, 0.0]))
    array([-1.,  0.])
    """
    return _apply("tanh", x)


def tanh_forward(x):
    """`tanh`, and what its backward needs."""
    y = tanh(x)
    return y, ActivationSaved(y)


def tanh_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("tanh", dy, saved, needs)


def softplus(x):
    """y = log(1 + exp(x)).  Saved for backward: x.  dx = dy sigmoid(x).

    x : (...) float32 | float64; returns y : (...).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.softplus(np.array([-1e4, 1e4]))
    array([    0., 10000.])
    """
    return _apply("softplus", x)


def softplus_forward(x):
    """`softplus`, and what its backward needs."""
    return softplus(x), ActivationSaved(x)


def softplus_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("softplus", dy, saved, needs)


def silu(x):
    """y = x sigmoid(x), also called swish.  Saved for backward: x.

    x : (...) float32 | float64; returns y : (...).  P. Ramachandran et al., "Searching for Activation Functions",
    arXiv:1710.05941.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.silu(np.array([0.0, 1e4]))
    array([    0., 10000.])
    """
    return _apply("silu", x)


def silu_forward(x):
    """`silu`, and what its backward needs."""
    return silu(x), ActivationSaved(x)


def silu_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("silu", dy, saved, needs)


def gelu(x, approximate=False):
    """y = x (1 + erf(x / sqrt(2))) / 2, or with `approximate` x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    x : (...) float32 | float64; returns y : (...).  Saved for backward: x.  D. Hendrycks and K. Gimpel, "Gaussian Error
    Linear Units", arXiv:1606.08415.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.gelu(np.array([-np.inf, 0.0, 1.0])).round(4)
    array([-0.    ,  0.    ,  0.8413])
    """
    if not isinstance(approximate, bool | np.bool_):
        raise TypeError(f"gelu: approximate must be True or False, got {approximate!r}")
    return _apply("gelu_tanh" if approximate else "gelu", x)


def gelu_forward(x, approximate=False):
    """`gelu`, and what its backward needs."""
    return gelu(x, approximate), ActivationSaved(x, float(approximate))


def gelu_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _gradient("gelu_tanh" if saved.parameter else "gelu", dy, saved, needs)


def softmax(x, axis=-1, *, variant=None):
    """y_j = exp(x_j - m) / sum over k of exp(x_k - m) along an axis, m being the largest x_k.

    x : (...) float32 | float64, at least 1-D; returns y : (...).  Another axis than the last costs two copies.
    variant : naive, simd, threaded (the default) on a CPU; on a GPU three-pass, online, warp-per-row, registers (the
    default)
    Raises ValueError for an axis that x does not have, and for an unknown variant.  Saved for backward: y.
    dx = y (dy - sum over k of dy_k y_k).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.softmax(np.array([[0.0, 0.0], [-1e4, 1e4]]))
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    return _softmax("softmax", x, axis, variant)


def softmax_forward(x, axis=-1, *, variant=None):
    """`softmax`, and what its backward needs."""
    y = softmax(x, axis, variant=variant)
    return y, SoftmaxSaved(y, axis, variant)


def softmax_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _softmax_gradient("softmax_backward", dy, saved, needs)


def log_softmax(x, axis=-1, *, variant=None):
    """y_j = (x_j - m) - log(sum over k of exp(x_k - m)) along an axis, m being the largest x_k.

    x : (...) float32 | float64, at least 1-D; returns y : (...).  Another axis than the last costs two copies.
    variant : naive, simd, threaded (the default) on a CPU; on a GPU three-pass, online, warp-per-row, registers (the
    default)
    Raises ValueError for an axis that x does not have, and for an unknown variant.  Saved for backward: y.
    dx = dy - exp(y) sum over k of dy_k.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.log_softmax(np.array([0.0, 1e4]))
    array([-10000.,      0.])
    """
    return _softmax("log_softmax", x, axis, variant)


def log_softmax_forward(x, axis=-1, *, variant=None):
    """`log_softmax`, and what its backward needs."""
    y = log_softmax(x, axis, variant=variant)
    return y, SoftmaxSaved(y, axis, variant)


def log_softmax_backward(dy, saved, needs=None):
    """(dx,) from dy; None where `needs`, one bool, says so."""
    return _softmax_gradient("log_softmax_backward", dy, saved, needs)


def _apply(op, x, parameter=0.0):
    launcher = _KERNELS[op].launcher(device_of(op, x=x), None)
    checks.floats(op, x=x)
    y = namespace(x).empty(x.shape, x.dtype)
    launcher(x, y, parameter)
    return y


def _gradient(op, dy, saved, needs):
    name = f"{op}_backward"
    kept, parameter = saved
    launcher = _KERNELS[name].launcher(device_of(name, dy=dy, x=kept), None)
    (need,) = checks.wanted(name, needs, ("x",))
    checks.floats(name, x=kept, dy=dy)
    checks.shape(name, kept.shape, dy=dy)
    if not need:
        return (None,)
    dx = namespace(kept).empty(kept.shape, kept.dtype)
    launcher(dy, kept, dx, parameter)
    return (dx,)


def _softmax(op, x, axis, variant):
    if type(x) is np.ndarray and variant is None:
        y = getattr(backend(__name__, "cpu"), f"{op}_at_once")(x, axis)
        if y is not None:
            return y
    launcher = _KERNELS[op].launcher(device_of(op, x=x), variant)
    checks.floats(op, x=x)
    return _along_axis(op, launcher, axis, x)


def _softmax_gradient(op, dy, saved, needs):
    y, axis, variant = saved
    if type(dy) is type(y) is np.ndarray and needs is variant is None:
        dx = getattr(backend(__name__, "cpu"), f"{op}_at_once")(dy, axis, y)
        if dx is not None:
            return (dx,)
    launcher = _KERNELS[op].launcher(device_of(op, dy=dy, y=y), variant)
    (need,) = checks.wanted(op, needs, ("x",))
    checks.floats(op, y=y, dy=dy)
    checks.shape(op, y.shape, dy=dy)
    return (_along_axis(op, launcher, axis, dy, y) if need else None,)


def _along_axis(op, launcher, axis, *arrays):
    """Run a row kernel along an axis of arrays of one shape; the result is C-contiguous."""
    x = arrays[0]
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"{op}: axis must be an integer, got {axis!r}") from None
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{op}: axis is {axis} and x is {x.shape}: x must have that axis")
    xp = namespace(x)
    if axis in (-1, x.ndim - 1):
        out = xp.empty(x.shape, x.dtype)
        launcher(*arrays, out)
        return out
    last = [_turned(array, axis, -1) for array in arrays]
    out = xp.empty(last[0].shape, x.dtype)
    launcher(*last, out)
    return contiguous(_turned(out, -1, axis))


def _turned(x, axis, to):
    """x with an axis moved."""
    order = [*range(x.ndim)]
    order.insert(to % x.ndim, order.pop(axis))
    return x.transpose(order)
