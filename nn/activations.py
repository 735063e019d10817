"""Activation functions by name, with Keras's names and arguments.

The functions take tensors or arrays and return tensors. Layers ask `get` for an `Activation`, which also tells
whether the matrix product and the convolution can apply it while they store their result.
"""

from collections.abc import Callable

from .. import kernels
from . import functions
from .utils import did_you_mean

__all__ = [
    "Activation",
    "elu",
    "gelu",
    "get",
    "leaky_relu",
    "linear",
    "log_softmax",
    "relu",
    "serialize",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "swish",
    "tanh",
]


def linear(x):
    """x itself."""
    return x


def relu(x, negative_slope: float = 0.0):
    """max(x, 0); with a `negative_slope`, `leaky_relu`."""
    return functions.leaky_relu(x, negative_slope=negative_slope) if negative_slope else functions.relu(x)


def leaky_relu(x, negative_slope: float = 0.2):
    """x where it is positive, else negative_slope * x."""
    return functions.leaky_relu(x, negative_slope=negative_slope)


def elu(x, alpha: float = 1.0):
    """x where it is positive, else alpha * (exp(x) - 1)."""
    return functions.elu(x, alpha=alpha)


def gelu(x, approximate: bool = False):
    """x * P(X <= x) for a standard normal X; `approximate` takes the formula with tanh."""
    return functions.gelu(x, approximate=approximate)


def silu(x):
    """x * sigmoid(x), also called swish."""
    return functions.silu(x)


swish = silu


def softplus(x):
    """log(1 + exp(x))."""
    return functions.softplus(x)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return functions.sigmoid(x)


def tanh(x):
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    return functions.tanh(x)


def softmax(x, axis: int = -1):
    """exp(x) / sum(exp(x)) along `axis`."""
    return functions.softmax(x, axis=axis)


def log_softmax(x, axis: int = -1):
    """log(softmax(x)), computed without overflow."""
    return functions.log_softmax(x, axis=axis)


class Activation:
    """A named function from tensor to tensor; `fused` says that `dense` and `conv2d` take its name."""

    __slots__ = ("name", "function", "fused")

    def __init__(self, name: str, function: Callable):
        self.name = name
        self.function = function
        self.fused = _BY_NAME.get(name) is function and name in kernels.FUSED_ACTIVATIONS

    def __call__(self, x):
        return self.function(x)

    def __repr__(self) -> str:
        return f"Activation({self.name!r})"


_BY_NAME = {
    "linear": linear,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
    "swish": silu,
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "softmax": softmax,
    "log_softmax": log_softmax,
}


def get(identifier) -> Activation:
    """The activation for a name, an `Activation`, one of the functions above or one of your own; None is linear.

    Example:

    >>> get("relu")
    Activation('relu')
    """
    if isinstance(identifier, Activation):
        return identifier
    if identifier is None:
        return Activation("linear", linear)
    if callable(identifier):
        return Activation(getattr(identifier, "__name__", type(identifier).__name__), identifier)
    if not isinstance(identifier, str) or identifier not in _BY_NAME:
        raise ValueError(did_you_mean("activation", identifier, _BY_NAME))
    return Activation(identifier, _BY_NAME[identifier])


def serialize(activation: Activation) -> str:
    """The activation's name, which `get` turns back into it."""
    if _BY_NAME.get(activation.name) is not activation.function:
        raise ValueError(f"activation {activation.name}: cannot be saved: only handloom's own activations can")
    return activation.name
