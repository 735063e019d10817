"""Differentiable functions on tensors: the one place that says which forward belongs to which backward.

A `Function` makes a pure triple (plain, forward, backward) callable on tensors. The kernels' triples are found by
their name; the arithmetic at the end borrows the array's own operators, so that a loss can be written as a formula.
"""

from __future__ import annotations

import operator

import numpy as np

from .. import kernels
from ..kernels.arrays import namespace
from ..kernels.recording import is_recording, refuse
from .devices import explain_mixture
from .tensor import Node, Tensor, _mode, made_by


class Function:
    """`plain(*args)` where nothing needs a gradient, else `forward` with a node that knows the way back.

    The first `arity` arguments are differentiable where they are tensors that require it; tensors, arrays, numbers
    and None may stand anywhere. `triple` is given for functions that are not kernels.
    """

    __slots__ = ("name", "arity", "plain", "forward", "backward")

    def __init__(self, name, arity=1, triple=None):
        self.name = name
        self.arity = arity
        if triple is not None:
            self.plain, self.forward, self.backward = triple

    def __getattr__(self, attribute):
        """Reached on the first call alone, while the slots are empty: fetches the kernels of that name."""
        if attribute not in ("plain", "forward", "backward"):
            raise AttributeError(f"{self!r} has no attribute {attribute!r}")
        self.plain = getattr(kernels, self.name)
        self.forward = getattr(kernels, self.name + "_forward")
        self.backward = getattr(kernels, self.name + "_backward")
        return getattr(self, attribute)

    def __repr__(self):
        return f"<function {self.name} on tensors>"

    def __call__(self, *args, **options):
        arrays, needs, depth, needed = [], [False] * self.arity, 0, False
        for index, arg in enumerate(args):
            if isinstance(arg, Tensor):
                arrays.append(arg.data)
                if arg.requires_grad and index < self.arity:
                    needs[index] = needed = True
                    node = arg._node
                    if node is not None and node.depth >= depth:
                        depth = node.depth + 1
            else:
                arrays.append(arg)
        if needed and _mode.recording:
            y, saved = self.forward(*arrays, **options)
            return self.wrap(y, Node(self.backward, saved, args, tuple(needs), depth))
        return self.wrap(self.plain(*arrays, **options), None)

    wrap = staticmethod(made_by)


class _Remembering(Function):
    """Softmax and sigmoid: the result remembers its logits, and cross-entropy takes the stable way from there."""

    __slots__ = ()

    def __call__(self, x, **options):
        x = x if isinstance(x, Tensor) else Tensor(x)
        y = Function.__call__(self, x, **options)
        if options.get("axis", -1) in (-1, x.data.ndim - 1):
            y.logits = (self.name, x)
        return y


class _Recurrent(Function):
    """Three results: all outputs, the last output and the last cell state."""

    __slots__ = ()

    @staticmethod
    def wrap(results, node):
        y, (h, c) = results
        if node is not None:
            node.outputs = 3
            node.backward = _lstm_backward
        return made_by(y, node, 0), made_by(h, node, 1), made_by(c, node, 2)


def _lstm_backward(grads, saved, needs):
    dy, dh, dc = grads
    return kernels.lstm_backward(dy, saved, needs, dh=dh, dc=dc)


matmul = Function("matmul", 2)
dense = Function("dense", 3)
conv2d = Function("conv2d", 3)
conv2d_max_pool2d = Function("conv2d_max_pool2d", 3)
max_pool2d = Function("max_pool2d")
avg_pool2d = Function("avg_pool2d")
global_max_pool2d = Function("global_max_pool2d")
global_avg_pool2d = Function("global_avg_pool2d")
lstm = _Recurrent("lstm", 6)
dropout = Function("dropout")

relu = Function("relu")
leaky_relu = Function("leaky_relu")
elu = Function("elu")
gelu = Function("gelu")
silu = Function("silu")
softplus = Function("softplus")
tanh = Function("tanh")
sigmoid = _Remembering("sigmoid")
softmax = _Remembering("softmax")
log_softmax = Function("log_softmax")

mean_squared_error = Function("mean_squared_error")
mean_absolute_error = Function("mean_absolute_error")
binary_cross_entropy = Function("binary_cross_entropy")
sigmoid_cross_entropy = Function("sigmoid_cross_entropy")
categorical_cross_entropy = Function("categorical_cross_entropy")
softmax_cross_entropy = Function("softmax_cross_entropy")
sparse_categorical_cross_entropy = Function("sparse_categorical_cross_entropy")
sparse_softmax_cross_entropy = Function("sparse_softmax_cross_entropy")


def _borrowed(name, compute, *gradients):
    """A function made of the array's own operators.

    `compute(*args, **options)` gives y; each of `gradients`, one for each differentiable argument, is a formula
    `(dy, y, *args, **options)`. Broadcasting and dtypes are undone here, once for all.
    """

    def plain(*args, **options):
        try:
            y = compute(*args, **options)[...]  # [...] because NumPy makes scalars of 0-d results
        except TypeError:
            if len(gradients) == 2:
                explain_mixture(name, *args)
            raise
        _stay_out_of_recordings(name, y, args[0])
        return y

    def forward(*args, **options):
        y = plain(*args, **options)
        return y, (y, args, options)

    def backward(dy, saved, needs):
        y, args, options = saved
        found = tuple(
            _as_before_broadcasting(gradient(dy, y, *args, **options), arg) if needed else None
            for gradient, arg, needed in zip(gradients, args, needs)
        )
        _stay_out_of_recordings(name, found[0], dy)
        return found

    return Function(name, len(gradients), (plain, forward, backward))


def _stay_out_of_recordings(name, y, x):
    """A step whose arrays were computed here is not played back: only kernels are. Views of x are welcome."""
    if is_recording() and not np.may_share_memory(y, x):
        refuse(f"{name} is computed outside the kernels")


def _as_before_broadcasting(grad, x):
    """`grad` summed over the axes along which `x` was repeated, in the dtype of `x`."""
    if grad.shape != x.shape:
        new = grad.ndim - x.ndim
        stretched = (new + axis for axis, length in enumerate(x.shape) if length == 1)
        grad = grad.sum(axis=(*range(new), *stretched)).reshape(x.shape)
    return grad.astype(x.dtype, copy=False)[...]


def _spread(dy, y, x, axis=None, keepdims=False):
    """The gradient of a sum: every element of `x` receives what its sum received."""
    if axis is not None and not keepdims:
        dy = np.expand_dims(dy, axis)
    return namespace(dy).broadcast_to(dy, x.shape).copy()


def _scatter(dy, y, x, index):
    dx = np.zeros_like(x)
    parts = index if isinstance(index, tuple) else (index,)
    if all(part is None or part is Ellipsis or isinstance(part, (int, slice)) for part in parts):
        dx[index] = dy
    else:
        np.add.at(dx, index, dy)  # arrays of indices may name an element twice
    return dx


add = _borrowed("add", operator.add, lambda dy, y, a, b: dy, lambda dy, y, a, b: dy)
subtract = _borrowed("subtract", operator.sub, lambda dy, y, a, b: dy, lambda dy, y, a, b: -dy)
multiply = _borrowed("multiply", operator.mul, lambda dy, y, a, b: dy * b, lambda dy, y, a, b: dy * a)
divide = _borrowed("divide", operator.truediv, lambda dy, y, a, b: dy / b, lambda dy, y, a, b: -dy * y / b)
power = _borrowed(  # where a is 0, neither a ** -1 nor the logarithm is a number, and both are multiplied by 0
    "power",
    operator.pow,
    lambda dy, y, a, b: dy * b * a ** (b - (b != 0)),
    lambda dy, y, a, b: dy * y * np.log(a + (a == 0)),
)
negative = _borrowed("negative", operator.neg, lambda dy, y, x: -dy)
absolute = _borrowed("absolute", operator.abs, lambda dy, y, x: dy * np.sign(x))
exp = _borrowed("exp", np.exp, lambda dy, y, x: dy * y)
log = _borrowed("log", np.log, lambda dy, y, x: dy / x)
sum = _borrowed("sum", lambda x, axis=None, keepdims=False: x.sum(axis=axis, keepdims=keepdims), _spread)
mean = _borrowed(
    "mean",
    lambda x, axis=None, keepdims=False: x.mean(axis=axis, keepdims=keepdims),
    lambda dy, y, x, **axes: _spread(dy, y, x, **axes) / (x.size // dy.size),
)
reshape = _borrowed("reshape", lambda x, shape: x.reshape(shape), lambda dy, y, x, shape: dy.reshape(x.shape))
transpose = _borrowed(
    "transpose",
    lambda x, axes=None: x.transpose(axes or None),
    lambda dy, y, x, axes=None: dy.transpose(np.argsort([axis % x.ndim for axis in axes]) if axes else None),
)
getitem = _borrowed("getitem", lambda x, index: x[index], _scatter)
cast = _borrowed("cast", lambda x, dtype: x.astype(dtype), lambda dy, y, x, dtype: dy)
