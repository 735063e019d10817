"""`Layer`: what all layers and models share, namely their name, dtype, parameters, sub-layers and modes."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import threading
from collections import Counter
from contextlib import contextmanager

import numpy as np

from .. import initializers
from ..devices import check_device, inside_device, place, place_input
from ..functions import cast
from ..tensor import Parameter, Tensor, no_grad
from ..utils import did_you_mean, get_seed, next_stream
from .arguments import as_dtype, as_positive_int, as_shape, check_declared
from .input import Input

_names_given = Counter()


_changes = [0]


def changes():
    """How often an attribute of any layer has been set: as long as that stays, all layers are what they were."""
    return _changes[0]


class _Modes(threading.local):
    """The modes that this thread has put over the layers' own for a while, innermost last.

    Other threads have their own, so `predict` in one leaves dropout on in a `fit` that runs in another.
    """

    def __init__(self):
        self.stack = []


class _Mode:
    """A layer and all below it in training or not. Which those are is looked up when one of them asks: few do."""

    def __init__(self, layer, training):
        self.layer, self.training = layer, training
        self._covered = None

    def covers(self, layer):
        """Models that are not concerned, such as one that a loss calls, are not."""
        if self._covered is None:
            self._covered = set(map(id, self.layer.all_layers()))
        return id(layer) in self._covered

    def extend(self, layer):
        """Parts of a layer that were made meanwhile belong to it."""
        if self._covered is not None and id(layer) in self._covered:
            self._covered.update(map(id, layer.all_layers()))


_modes = _Modes()


def snake_case(class_name):
    """`MaxPooling2D` -> `max_pooling2d`, as Keras writes it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", class_name).lower()


def _automatic_name(class_name):
    name = snake_case(class_name)
    number = _names_given[name]
    _names_given[name] += 1
    return f"{name}_{number}" if number else name


class Layer:
    """A function of tensors with parameters of its own.

    A subclass defines `call(self, x)`, any Python it likes, and makes sub-layers in `__init__`; parameters whose shape
    depends on the input are made in `build(self, input_shape)` with `add_weight`, which runs before the first call.
    Everything stored in an attribute (or a list, tuple or dict there) is found, in the order of definition.

    Args:
        name: by default the class's name in snake case, numbered as Keras numbers it.
        dtype: "float32" (default) or "float64"; inputs are cast to it.
        trainable: whether optimizers may change the parameters; may be set later. Sub-layers that are not given one
            of their own follow a layer that is made with False.
        device: "cpu", "cuda" (the GPU in use), "cuda:1" and so on: where the parameters are. A layer that is given
            none follows the model that it is a part of, and a model the first of its layers that is given one; else it
            is that of `with nn.device(...)`, or the CPU. NumPy arrays that the layer is called on are copied there.
        input_shape: shape of one input without the batch axis, None for any length; lets `Sequential` build at once.
        input_dim: short for `input_shape=(input_dim,)`.

    Example:

    >>> import numpy as np
    >>> from handloom import nn
    >>> class Block(nn.Layer):
    ...     def __init__(self, units):
    ...         super().__init__()
    ...         self.dense = nn.Dense(units, activation="relu")
    ...     def call(self, x):
    ...         return x + self.dense(x)
    >>> Block(4)(np.zeros((2, 4))).shape
    (2, 4)
    """

    autocast = True
    built = False
    dtype = None
    device = "cpu"
    _device_given = False
    build_shape = None  # the input shape that it was built for
    output_shape = None  # as of the build or the first call
    _training = False
    _trainable = None  # True or False once someone has said so
    _takes_training = False
    _varies = ()  # attributes that training changes and no step depends on, or that it reads anew at each
    _kept = {"trainable": "trainable"}  # what `save` keeps of the layer's state: {name in the file: attribute}

    def __new__(cls, *arguments, **options):
        layer = super().__new__(cls)
        layer._arguments = (arguments, options)  # for get_config of a class that does not define its own
        return layer

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "build" in cls.__dict__:
            cls.build = _marking_built(cls.build)
        if "call" in cls.__dict__:
            cls._takes_training = "training" in inspect.signature(cls.call).parameters

    def __init__(self, *, name=None, dtype=None, trainable=None, device=None, **shape):
        kind = type(self).__name__
        unknown = [argument for argument in shape if argument not in ("input_shape", "input_dim")]
        if unknown:
            options = [argument for argument in inspect.signature(type(self)).parameters if argument != "options"]
            raise TypeError(did_you_mean(f"{kind}: argument", unknown[0], [*options, *_COMMON]))
        self.name = _automatic_name(kind) if name is None else str(name)
        self.dtype = as_dtype(kind, dtype)
        self._dtype_given = dtype is not None
        self.device = check_device(kind, device)
        self._device_given = device is not None or inside_device()
        self.declared_shape = None
        if shape.get("input_shape") is not None:
            self.declared_shape = (None, *as_shape(kind, "input_shape", shape["input_shape"]))
        elif shape.get("input_dim") is not None:
            self.declared_shape = (None, as_positive_int(kind, "input_dim", shape["input_dim"]))
        self._own_weights = []
        self._trainable = None if trainable is None else bool(trainable)

    def __setattr__(self, name, value):
        object.__setattr__(self, name, value)
        if name not in self._varies:
            _changes[0] += 1

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name}>"

    # Calling and building.

    def call(self, x):
        raise NotImplementedError(f"{type(self).__name__}: define call(self, x): it computes the layer's output")

    def __call__(self, x, *args, training=None, **options):
        if training is not None and training != self.training:
            with self._in_mode(training):
                return self(x, *args, **options)
        if type(x) is not Tensor or x.data.dtype != self.dtype:
            x = self._as_input(x)
        if args:
            args = [None if arg is None else self._as_input(arg) for arg in args]
        if self._takes_training:
            options["training"] = self.training
        try:
            if self.built:
                return self.call(x, *args, **options)
            self._build_for_call(_shape_of(x))
            y = self.call(x, *args, **options)
            self.output_shape = _shape_of(y)
            return y
        except (ValueError, TypeError, MemoryError) as error:
            if not getattr(error, "__notes__", None):  # the innermost layer speaks
                error.add_note(f"in layer {self.name!r} ({type(self).__name__}), called on shape {_shape_of(x)}")
            raise

    def _as_input(self, x):
        """`x` as a tensor of the layer's dtype; each of them where `x` is a tuple or list of tensors and arrays."""
        if self.dtype is None:
            raise ValueError(f"{type(self).__name__}: __init__ must begin with super().__init__()")
        if isinstance(x, (tuple, list)) and x and all(hasattr(part, "ndim") for part in x):
            return tuple(self._as_input(part) for part in x)
        if isinstance(x, (Layer, Input)):
            raise TypeError(
                f"{type(self).__name__}: called on {x!r}: layers take arrays and tensors; chain layers with "
                "Sequential, or write a Model whose call(self, x) calls them"
            )
        if not isinstance(x, Tensor):
            if not self.built:
                self._settle_device()
            x = Tensor(place_input(self, x))
        return cast(x, self.dtype) if self.autocast and x.data.dtype != self.dtype else x

    def build(self, input_shape):
        """Makes the parameters for inputs of this shape (with the batch axis first, None for any length)."""
        self._mark_built(input_shape)

    def _mark_built(self, input_shape):
        self.built = True
        self.build_shape = tuple(input_shape)
        self._hand_down_modes()

    def _build_for(self, input_shape):
        """`build`, once, for a shape that does not contradict the declared one."""
        if self.declared_shape is not None:
            check_declared(type(self).__name__, input_shape, self.declared_shape)
        if not self.built:
            self.build(input_shape)

    def _build_for_call(self, input_shape):
        """What has to be built before the first call."""
        self._build_for(input_shape)

    def compute_output_shape(self, input_shape):
        """The output's shape for this input shape, None for any length; found by a call on zeros if not redefined."""
        if None in input_shape[1:]:
            raise NotImplementedError(
                f"{type(self).__name__}: define compute_output_shape(self, input_shape): the output's shape for inputs "
                f"{tuple(input_shape)} cannot be found by trying"
            )
        with no_grad():
            return _shape_of(self(_zeros(input_shape, self.dtype), training=False))

    def flops(self, input_shape):
        """Arithmetic operations of a forward pass on an input of this shape, batch included; a multiply-add is two.

        For `Model.roofline`: a layer with arithmetic of its own defines it.
        """
        return 0

    def backward_flops(self, input_shape, wanted):
        """Those of the backward pass; `wanted`: whether the gradients of the input and of the parameters are.

        By default each of the two takes as many as the forward pass.
        """
        return sum(wanted) * self.flops(input_shape)

    def add_weight(self, shape=None, initializer=None, dtype=None, trainable=True, name=None):
        """A new parameter of this layer, drawn from the initializer (Glorot's uniform, zeros for one axis or none)."""
        shape = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        if initializer is None:
            initializer = "glorot_uniform" if len(shape) > 1 else "zeros"
        values = initializers.get(initializer)(shape, dtype or self.dtype, seed=get_seed(), stream=next_stream())
        weight = Parameter(place(values, self.device), name or f"weight_{len(self._own_weights)}", trainable)
        weight.requires_grad = trainable and self.trainable
        self._own_weights.append(weight)
        return weight

    # Parameters and sub-layers.

    def _children(self):
        """(label, parameter or layer) for everything the attributes hold, in the order of definition."""
        for attribute, value in vars(self).items():
            if isinstance(value, _HOLDERS) and attribute != "_arguments":
                yield from _found_in(attribute, value)

    def named_weights(self):
        """(unique name, parameter) for every parameter: the layer's own, then those of its sub-layers.

        The names are paths such as `encoder/dense/kernel`. They depend on how the layer is put together and not on
        how many others there are, so that weights saved in one process fit the same model in another.
        """
        found, seen = {}, set()
        for prefix, layer in self.named_layers():
            for label, child in layer._children():
                if isinstance(child, Parameter) and id(child) not in seen:
                    seen.add(id(child))
                    path = prefix + (child.name or label)
                    numbered = (f"{path}_{number}" for number in itertools.count(1))
                    found[next(name for name in itertools.chain([path], numbered) if name not in found)] = child
        return list(found.items())

    def named_layers(self):
        """(path, layer) for this layer, at "", and all layers below it, at `encoder/dense/` and so on, each once."""
        found, waiting = {}, [("", self)]
        while waiting:
            path, layer = waiting.pop()
            if id(layer) not in found:
                found[id(layer)] = (path, layer)
                children = [
                    (f"{path}{label}/", child) for label, child in layer._children() if isinstance(child, Layer)
                ]
                waiting.extend(reversed(children))
        return list(found.values())

    def sublayers(self):
        """The layers directly inside this one, in the order of definition."""
        return list({id(child): child for _, child in self._children() if isinstance(child, Layer)}.values())

    def all_layers(self):
        """This layer and all layers below it, each once."""
        return [layer for _, layer in self.named_layers()]

    @property
    def weights(self):
        return [weight for _, weight in self.named_weights()]

    variables = weights

    @property
    def trainable_weights(self):
        return [weight for weight in self.weights if weight.requires_grad]

    trainable_variables = trainable_weights

    @property
    def non_trainable_weights(self):
        return [weight for weight in self.weights if not weight.requires_grad]

    def get_weights(self):
        """Copies of all parameters as NumPy arrays, in the order of `weights`."""
        return [np.array(weight.numpy()) for weight in self.weights]

    def set_weights(self, weights):
        """Copies arrays, as `get_weights` returns them, into the parameters."""
        named = self.named_weights()
        if len(weights) != len(named):
            raise ValueError(
                f"set_weights: got {len(weights)} arrays and {self.name!r} has {len(named)} parameters"
                + ("" if self.built else " because it is not built yet: call it once, or give input_shape")
            )
        for (name, weight), value in zip(named, weights):
            if np.shape(value) != weight.shape:
                raise ValueError(f"set_weights: {name} is {weight.shape} and its array {np.shape(value)}")
            dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
            if dtype.kind not in "fiub":
                raise TypeError(f"set_weights: the array for {name} holds {dtype}: it must hold numbers")
        for (_, weight), value in zip(named, weights):
            weight.assign(value)

    def count_params(self):
        """The number of values in all parameters."""
        if not all(layer.built for layer in self.all_layers()):
            raise ValueError(
                f"count_params: {self.name!r} is not built yet: call it once, or give its first layer an input_shape"
            )
        return sum(weight.size for weight in self.weights)

    def zero_grad(self):
        for weight in self.weights:
            weight.grad = None

    # Modes.

    @property
    def training(self):
        """Whether dropout and its like are on.

        Setting it reaches all sub-layers and lasts. `fit` and `predict`, or a call with `training=...`, have a mode
        of their own, which goes first as long as they run, in the thread that they run in.
        """
        for mode in reversed(_modes.stack):
            if mode.covers(self):
                return mode.training
        return self._training

    @training.setter
    def training(self, value):
        for layer in self.all_layers():
            layer._training = bool(value)

    @contextmanager
    def _in_mode(self, training):
        """Puts this layer and all below it in a mode, in this thread and for the moment."""
        _modes.stack.append(_Mode(self, bool(training)))
        try:
            yield
        finally:
            _modes.stack.pop()

    @property
    def trainable(self):
        """Whether optimizers may change the parameters; setting it reaches all sub-layers."""
        return self._trainable is not False

    @trainable.setter
    def trainable(self, value):
        for layer in self.all_layers():
            layer._set_trainable(bool(value))

    def _set_trainable(self, value):
        self._trainable = value
        for _, child in self._children():
            if isinstance(child, Parameter):
                child.requires_grad = child.trainable and value

    def _hand_down_modes(self):
        """What was set on this layer before a part of it was made holds for that part too."""
        if self._training:
            self.training = True
        if not self.trainable:
            for layer in self.all_layers():
                if layer._trainable is not True:  # a part may have been told otherwise
                    layer._set_trainable(False)
        for mode in _modes.stack:
            mode.extend(self)
        self._settle_device()

    # Devices.

    def to(self, device):
        """Moves the parameters, and what gradients they have, to a device; returns the layer.

        Optimizers made for the parameters before are to be made, or bound, again.
        """
        device = check_device(f"{type(self).__name__}.to", device)
        for layer in self.all_layers():
            layer._device_given = True
            layer._move(device)
        return self

    def _settle_device(self):
        """Parts that are given no device follow this layer, and it, given none, the first part that is."""
        layers = self.all_layers()
        if not self._device_given:
            self.device = next((layer.device for layer in layers if layer._device_given), self.device)
        for layer in layers:
            layer._move(layer.device if layer._device_given else self.device)

    def _move(self, device):
        self.device = device
        for _, child in self._children():
            if isinstance(child, Parameter):
                child.move(device)

    # Configuration.

    def get_config(self):
        """The arguments that make the same layer again, without its weights.

        A subclass adds its own. One that does not define `get_config` is made again from what it was first made with.
        """
        config = {"name": self.name, "trainable": self.trainable, "dtype": str(self.dtype)}
        if type(self).get_config is not Layer.get_config:
            return config
        signature = inspect.signature(type(self))
        arguments, options = self._arguments
        given = signature.bind(*arguments, **options).arguments
        rest = [name for name, kind in signature.parameters.items() if kind.kind is kind.VAR_KEYWORD]
        for name in rest:
            given.update(given.pop(name, {}))
        accepted = config if rest else signature.parameters
        return {**{name: value for name, value in config.items() if name in accepted}, **given}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


_COMMON = [name for name in inspect.signature(Layer.__init__).parameters if name not in ("self", "shape")]
_COMMON += ["input_shape", "input_dim"]


def _marking_built(build):
    """A layer that someone builds by hand is not built a second time on its first call, nor by hand again."""

    @functools.wraps(build)
    def marked(self, input_shape):
        if self.built and self._own_weights:
            raise ValueError(
                f"{type(self).__name__}.build: {self.name!r} has been built for {self.build_shape}: make another layer"
            )
        build(self, input_shape)
        self._mark_built(input_shape)

    return marked


# What may be, or hold, a layer or a parameter.
_HOLDERS = Layer, Parameter, list, tuple, dict


def _found_in(label, value):
    if isinstance(value, (Layer, Parameter)):
        yield label, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _found_in(f"{label}/{index}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _found_in(f"{label}/{key}", item)


def _zeros(shape, dtype):
    """One sample of zeros; a tuple of them for a tuple of shapes."""
    if isinstance(shape[0], tuple):
        return tuple(_zeros(part, dtype) for part in shape)
    return np.zeros((1, *shape[1:]), dtype)


def _shape_of(x):
    """(None, ...) for a tensor, whose batch may have any size; a tuple of those for several."""
    if isinstance(x, (tuple, list)):
        return tuple(_shape_of(part) for part in x)
    return (None, *x.shape[1:]) if isinstance(x, Tensor) else None
