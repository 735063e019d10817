"""`Model` and `Sequential`: layers that can be trained, saved and shown."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest

from . import layers as _layers
from . import serialization
from .layers.base import Layer, snake_case
from .layers.input import Input
from .layers.pooling import is_done_by
from .serialization import load_model
from .training import Trainer
from .utils import did_you_mean

__all__ = ["Model", "Sequential", "load_model"]


class Model(Trainer, Layer):
    """A layer that can be trained: subclasses make layers in `__init__` and use them in `call(self, x)`.

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> class Net(nn.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Dense(8, activation="tanh")
    ...         self.out = nn.Dense(1)
    ...     def call(self, x):
    ...         return self.out(self.hidden(x))
    >>> net = Net()
    >>> net.compile(optimizer="sgd", loss="mse")
    >>> history = net.fit(np.zeros((6, 3)), np.zeros((6, 1)), epochs=2, verbose=0)
    >>> history.history["loss"]
    [0.0, 0.0]
    """

    _kept = {**Layer._kept, "shuffles": "_shuffles", "epochs_shuffled": "_epochs_shuffled"}

    def __init__(self, *arguments, **options):
        if arguments or "inputs" in options or "outputs" in options:
            raise TypeError(
                f"{type(self).__name__}: models are not made from inputs and outputs here: use Sequential, or subclass "
                "Model and define call(self, x)"
            )
        super().__init__(**options)

    @property
    def layers(self):
        return self.sublayers()

    def get_layer(self, name=None, index=None):
        """The layer of this name, or at this place in `layers`."""
        if (name is None) == (index is None):
            raise ValueError(f"get_layer: give either name or index, got name={name!r} and index={index!r}")
        layers = self.layers
        if index is None:
            by_name = {layer.name: layer for layer in layers}
            if name not in by_name:
                raise ValueError(did_you_mean(f"get_layer: layer of {self.name!r}", name, by_name))
            return by_name[name]
        try:
            return layers[index]
        except (IndexError, TypeError):
            raise ValueError(
                f"get_layer: index must be an integer below {len(layers)}, the number of layers of {self.name!r}, "
                f"got {index!r}"
            ) from None

    def summary(self, line_length=None, print_fn=None):
        """Prints a table of the layers, their output shapes and their numbers of parameters."""
        from .summary import summary

        summary(self, line_length, print_fn)

    def roofline(self, batch=32, *, input_shape=None):
        """A table of the layers, forward and backward: work, time, and share of what this machine could do at best.

        Each layer is timed by itself in training mode, with the values that reach it in a forward pass, after a pass
        that compiles; the figure is the median of many calls, Python included. Weights, gradients, random streams and
        modes are afterwards what they were; a model that is not built yet is built.

            FLOP      what the layer's formula takes, a multiply-add counting as two: `Dense` 2 M K N, and backward once
                      more for the input's and once more for the weights' gradient, where they are wanted; one for each
                      number that pooling, dropout or an activation looks at, and backward as many, but for a maximum
                      one for each output. Bias, gates, and activations inside another layer are not counted.
            bytes     what must be read and written at least once. Forward: input, parameters, output. Backward: the
                      output's gradient, all that forward saved (among it the parameters), and the gradients wanted
            limit     the larger of FLOP / multiply-adds and bytes / bandwidth, the latter that of the level of cache
                      which the bytes fit into, all measured on all threads: kernels/limits.py
            share     the seconds that the limit allows, divided by those measured

        Layers whose output is their input (`Flatten`, `Reshape`) do nothing and have no row, and layers made of others
        are shown by those alone. Where a maximum over 2 x 2 follows a convolution in a `Sequential`, the two are one
        kernel and one row, the convolution's. What else runs on the machine meanwhile disturbs times and limits alike.

        Args:
            batch: number of samples.
            input_shape: of one sample; by default that which the model was declared with, or built for. Axes of any
                length, None, are 50 long.

        Returns:
            A `Roofline`: `print` it, look at its `rows` and `limits`, or `plot(path)` it.
        """
        from .roofline import roofline

        return roofline(self, batch, input_shape)

    def kernels(self, batch=None, *, input_shape=None):
        """A table of the kernels that each layer calls forward in training, in which variant and why that one.

        A maximum over 2 x 2 that follows a convolution in a `Sequential` is part of the convolution's kernel.

        Args:
            batch: number of samples; with it, the table also says whether this many are enough work for threads.
            input_shape: of one sample; as in `roofline`.

        Returns:
            A `Kernels`: `print` it, or look at its `rows`.
        """
        from .roofline import kernels_of

        return kernels_of(self, batch, input_shape)

    def save(self, filepath, overwrite=True):
        """Writes the whole model to one safetensors file: configuration, weights, and how it was compiled."""
        serialization.save_model(self, filepath, overwrite)

    def save_weights(self, filepath, overwrite=True):
        """Writes the weights alone to a safetensors file."""
        serialization.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath):
        """Reads weights that `save_weights` or `save` wrote into this model, which must be put together likewise."""
        serialization.load_weights(self, filepath)

    def build(self, input_shape):
        """Makes all weights, by calling the model on zeros."""
        self._mark_built(input_shape)
        self.compute_output_shape(input_shape)

    def _build_for_call(self, input_shape):
        """A call builds the layers as it reaches them, so there is no need to try with zeros before the first."""
        if type(self).build in (Model.build, Sequential.build):
            self._mark_built(input_shape)
        else:
            self._build_for(input_shape)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


class Sequential(Model):
    """Layers one after the other.

    With an `Input` in front, or an `input_shape` on the first layer, the weights are made at once; else on the first
    call.

    Args:
        layers: a list of layers; `add` appends more.
        dtype: for layers that are not given one of their own; by default that of the first layer.
        name, trainable, device: see `Layer`.

    Example:

    >>> from handloom import nn
    >>> model = nn.Sequential()
    >>> model.add(nn.Dense(units=64, activation="relu", input_dim=100))
    >>> model.add(nn.Dense(units=10, activation="softmax"))
    >>> model.output_shape, model.count_params()
    ((None, 10), 7114)
    """

    autocast = False  # the first layer casts

    def __init__(self, layers=None, **options):
        Layer.__init__(self, **options)
        self._layers = []
        for layer in layers or ():
            self.add(layer)

    def add(self, layer):
        """Appends a layer, or an `Input` before all layers."""
        if isinstance(layer, Input):
            if self._layers or self.declared_shape is not None:
                raise ValueError(f"Sequential.add: {layer!r} must be the first entry of the model")
            self.declared_shape = layer.shape
            if layer.device is not None and not self._device_given:
                self.to(layer.device)
            return
        if not isinstance(layer, Layer):
            raise TypeError(f"Sequential.add: {layer!r} is no layer: pass an instance such as Dense(10)")
        if any(layer is other for other in self._layers):
            raise ValueError(f"Sequential.add: the layer {layer.name!r} is in the model already: make a second one")
        if any(layer.name == other.name for other in self._layers):
            raise ValueError(f"Sequential.add: there is a layer named {layer.name!r} already: names must differ")
        before = dict(vars(self))
        try:
            self._append(layer)
        except BaseException:
            self.__dict__ = before  # a layer that does not fit leaves no trace
            raise

    def _append(self, layer):
        if self._dtype_given:
            self._hand_down_dtype(layer)
        elif not self._layers:
            self.dtype = layer.dtype
        if not self._layers:
            self.declared_shape = self.declared_shape or layer.declared_shape
        self._layers = [*self._layers, layer]
        self._hand_down_modes()
        self.built = False
        if self.declared_shape is not None:
            self.build(self.declared_shape)
            self.built = self.output_shape is not None

    def _hand_down_dtype(self, layer):
        """The model's dtype goes to the layer, and those below it, where they have none of their own."""
        for part in layer.all_layers():
            if part._dtype_given:
                continue
            if part.dtype != self.dtype and (part.built or part.weights):
                raise ValueError(
                    f"Sequential.add: {part.name!r} is {part.dtype} already and the model {self.dtype}: make it with "
                    f"dtype={str(self.dtype)!r}"
                )
            part.dtype, part._dtype_given = self.dtype, True

    def pop(self):
        """Takes the last layer off again and returns it."""
        if not self._layers:
            raise ValueError("Sequential.pop: the model has no layers")
        layer = self._layers.pop()
        if self._layers:
            self.output_shape = self._layers[-1].output_shape
        else:
            self.declared_shape = self.output_shape = None
            self.built = False
        return layer

    def build(self, input_shape):
        """Makes the weights for inputs of this shape, up to a layer that cannot say what its output's shape is."""
        shape, self.output_shape = tuple(input_shape), None
        for layer in self._layers:
            try:
                layer._build_for(shape)
                shape = layer.output_shape = layer.compute_output_shape(shape)
            except NotImplementedError:  # the rest is built on the first call
                return
        self.output_shape = shape

    def call(self, x):
        if not self._layers:
            raise ValueError(f"Sequential: the model {self.name!r} has no layers: add one first")
        done = None
        for layer, behind in zip_longest(self._layers, self._layers[1:]):
            if layer is done:
                continue
            if is_done_by(layer, behind):
                x, done = layer(x, pool=True), behind
            else:
                x = layer(x)
        return x

    def compute_output_shape(self, input_shape):
        for layer in self._layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    @property
    def input_shape(self):
        return self.declared_shape

    def _children(self):
        """Layers by their class, `dense` and `dense_1`, and not by their position or their own, global name."""
        taken = Counter()
        for layer in self._layers:
            label = snake_case(type(layer).__name__)
            yield (f"{label}_{taken[label]}" if taken[label] else label), layer
            taken[label] += 1
        for label, child in super()._children():  # what a subclass keeps beside them
            if not label.startswith("_layers/"):
                yield label, child

    def get_config(self):
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": str(self.dtype) if self._dtype_given else None,
            "input_shape": self.declared_shape and self.declared_shape[1:],
            "layers": [{"class_name": type(layer).__name__, "config": layer.get_config()} for layer in self._layers],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        entries, input_shape = config.pop("layers"), config.pop("input_shape", None)
        start = [] if input_shape is None else [Input(input_shape)]
        return cls([*start, *(_layer_from(entry, custom_objects or {}) for entry in entries)], **config)


def _layer_from(entry, custom_objects):
    """The layer for {"class_name": ..., "config": ...}; `custom_objects` holds the user's own classes by name."""
    classes = {getattr(_layers, name) for name in _layers.__all__} - {Input, Layer}
    known = {**{cls.__name__: cls for cls in classes}, "Sequential": Sequential, **custom_objects}
    name, config = entry["class_name"], entry["config"]
    if name not in known:
        raise ValueError(
            did_you_mean("load_model: layer", name, known)
            + f"; for a class of your own pass custom_objects={{{name!r}: {name}}}"
        )
    if known[name] is Sequential:
        return Sequential.from_config(config, custom_objects)
    return known[name].from_config(config)
