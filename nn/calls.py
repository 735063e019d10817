"""The calls that a model's layers get in one training step's forward pass, noted while it runs.

    with unchanged(model, x):
        for call in calls_of(model, x):
            call.layer, call.args, call.outputs, call.operations()

The operations are found on the tape: they are the nodes between a call's outputs and its inputs, with all that they
saved. Layers made of others are left out, since their parts are there.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ..kernels.recording import Recorder
from .layers.arguments import as_positive_int, as_shape
from .layers.base import Layer
from .tensor import Tensor, _mode, no_grad

# How long an axis of any length is taken to be.
ANY_LENGTH = 50


class Call(NamedTuple):
    """One call of a layer: what it was given and gave, and whether a launch of it had work enough for threads."""

    layer: Layer
    args: tuple
    options: dict
    outputs: list  # its tensors
    parallel: bool

    @property
    def names(self):
        return self.layer.name, type(self.layer).__name__

    @property
    def inputs(self):
        return list(within((self.args, self.options), Tensor))

    @property
    def is_view(self):
        """Whether the output is an input, perhaps in another shape."""
        return any(np.may_share_memory(self.outputs[0].data, x.data) for x in self.inputs)

    def operations(self):
        """The nodes between the outputs and the inputs, in the order in which they were made."""
        before = {id(x._node) for x in self.inputs}
        found, waiting = {}, [y._node for y in self.outputs]
        while waiting:
            node = waiting.pop()
            if node is not None and id(node) not in before and id(node) not in found:
                found[id(node)] = node
                waiting += [x._node for x in within(node.inputs, Tensor)]
        return sorted(found.values(), key=lambda node: node.depth)

    def alone(self):
        """The same call, cut off from what came before it."""
        return self._replace(args=_leaves(self.args), options=_leaves(self.options))

    def repeat(self):
        """Calls the layer once more; its first output."""
        return next(within(self.layer(*self.args, **self.options), Tensor))


class Listener(Recorder):
    """Notes in `launches`, for each on the CPU, whether it has work enough for threads."""

    def __init__(self):
        super().__init__()
        self.launches = []

    def launched(self, drive, rounds, chunks, parallel, args):
        if self.thread == threading.get_ident():
            self.launches.append(parallel)

    def captured(self, kernel, grid, args, shared):
        """On a GPU there is nothing to note."""


def calls_of(model, x, launches=()):
    """The calls of all layers without layers inside, in a forward pass; `launches` are a listener's."""
    found = []

    def noting(layer):
        call = layer.call

        def noted(*args, **options):
            before = len(launches)
            y = call(*args, **options)
            found.append(Call(layer, args, options, list(within(y, Tensor)), any(launches[before:])))
            return y

        return noted

    innermost = [layer for layer in model.all_layers() if not layer.sublayers()]
    for layer in innermost:
        layer.call = noting(layer)  # goes before the class's own
    try:
        model(x)
    finally:
        for layer in innermost:
            del layer.call
    return [call for call in found if call.outputs]


@contextmanager
def unchanged(model, x):
    """Training mode, for a model whose weights, gradients and attributes are afterwards what they were before.

    Parts that are not built yet are built for it.
    """
    if not all(layer.built for layer in model.all_layers()):
        with no_grad():
            model(x[:1], training=False)
    attributes = [(layer, dict(vars(layer))) for layer in model.all_layers()]
    weights = [(weight, weight.data, weight.data.copy(), weight.grad) for weight in model.weights]
    recording, _mode.recording = _mode.recording, True  # also inside no_grad
    try:
        with model._in_mode(True):
            yield
    finally:
        _mode.recording = recording
        for layer, before in attributes:
            layer.__dict__ = before
        for weight, data, values, grad in weights:
            data[...] = values
            weight.data, weight.grad = data, grad


def example(operation, model, batch, input_shape):
    """Random numbers in the shape that the model takes."""
    batch = as_positive_int(operation, "batch", batch)
    if input_shape is not None:
        shape = as_shape(operation, "input_shape", input_shape)
    else:
        shape = _known_shape(operation, model)
    shape = (batch, *(ANY_LENGTH if length is None else length for length in shape))
    return np.random.default_rng(0).random(shape).astype(model.dtype)


def _known_shape(operation, model):
    """The shape of one input that the model was declared with, or built for."""
    shape = model.declared_shape or model.build_shape
    if shape is None:
        raise ValueError(
            f"{operation}: the shape of an input of {model.name!r} is not known: pass it without the batch axis, for "
            "example input_shape=(28, 28, 1), or call the model once"
        )
    if isinstance(shape[0], tuple):
        raise TypeError(
            f"{operation}: {model.name!r} was built for several inputs, {shape}: it must take one, ask the models "
            "inside it one by one"
        )
    return shape[1:]


def within(value, kind):
    """All of a kind in a value, which may be one itself or hold some."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from within(part, kind)
    elif isinstance(value, dict):
        yield from within(list(value.values()), kind)


def _leaves(value):
    """The same with tensors that nothing led to."""
    if isinstance(value, Tensor):
        return Tensor(value.data, value.requires_grad)
    if isinstance(value, (tuple, list)):
        return tuple(_leaves(part) for part in value)
    if isinstance(value, dict):
        return {name: _leaves(part) for name, part in value.items()}
    return value
