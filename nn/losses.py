"""Losses: the scalar that training makes small, with Keras's names and definitions.

A loss is called as `loss(y_true, y_pred)` and returns a scalar tensor, the mean over the batch. Those on probabilities
look whether the prediction came from the softmax or sigmoid that belongs to them, and if so start from its logits:
that is stable where probabilities underflow, and one kernel instead of two.
"""

from __future__ import annotations

import inspect
import warnings

import numpy as np

from ..kernels.arrays import compute
from . import functions
from .devices import beside
from .functions import cast
from .tensor import Tensor
from .utils import did_you_mean

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "get",
    "serialize",
]


def _name_target(index):
    return f"y_true[{', '.join(map(str, index))}]"


class Loss:
    """Base of all: a subclass defines `call(y_true, y_pred)`, an array and a tensor, and returns a tensor: the loss, or
    that of each sample, of which the mean is taken.

    By default targets must have the shape of the predictions and are cast to their dtype.
    """

    default_name = "loss"

    def __init__(self, *, name=None):
        self.name = name or self.default_name

    def __call__(self, y_true, y_pred):
        if not isinstance(y_pred, Tensor):
            if isinstance(y_pred, tuple):
                raise TypeError(f"{self.name}: y_pred is a tuple of {len(y_pred)}: a model trained with it returns one")
            y_pred = Tensor(y_pred)
        if isinstance(y_true, Tensor):
            y_true = y_true.data
        y_true = beside(y_true, y_pred.data)
        loss = self.call(self.fit_targets(y_true, y_pred.data), y_pred)
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"loss {self.name}: returned {type(loss).__name__}: it must return a Tensor, made from y_pred with its "
                "own arithmetic and the functions of handloom.nn.functions"
            )
        loss = loss if loss.ndim == 0 else loss.mean()
        return loss if loss.dtype == y_pred.dtype else cast(loss, y_pred.dtype)

    def call(self, y_true, y_pred):
        raise NotImplementedError(f"{type(self).__name__}: define call(self, y_true, y_pred): it returns a scalar")

    def cast_targets(self, y_true, dtype):
        """All targets of a training, in the dtype that they will be needed in: once, instead of at every step."""
        return y_true.astype(dtype, copy=False)

    def fit_targets(self, y_true, y_pred):
        """The targets in the predictions' dtype and shape, from which a last axis of length 1 may be missing."""
        if y_true.shape != y_pred.shape:
            if y_true.shape + (1,) != y_pred.shape and y_true.shape != y_pred.shape + (1,):
                raise ValueError(
                    f"{self.name}: y_true is {y_true.shape} and y_pred {y_pred.shape}: they must be equal"
                    + self.hint(y_true, y_pred)
                )
            y_true = y_true.reshape(y_pred.shape)
        return y_true if y_true.dtype == y_pred.dtype else y_true.astype(y_pred.dtype)

    def check_targets(self, y_true, y_pred, name=_name_target):
        """Raises ValueError for targets that no loss can be computed of: all of a training, before its first step.

        Of `y_pred`, only shape and dtype count; `name(index)` is what the text shall call an element of `y_true`.
        """
        self.fit_targets(y_true, y_pred)

    def hint(self, y_true, y_pred):
        return ""

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name}>"


class MeanSquaredError(Loss):
    """The mean of (y_true - y_pred)²."""

    default_name = "mean_squared_error"

    def call(self, y_true, y_pred):
        return functions.mean_squared_error(y_pred, y_true)


class MeanAbsoluteError(Loss):
    """The mean of |y_true - y_pred|."""

    default_name = "mean_absolute_error"

    def call(self, y_true, y_pred):
        return functions.mean_absolute_error(y_pred, y_true)


class _Crossentropy(Loss):
    """Cross-entropy of probabilities, or with `from_logits` of what softmax or sigmoid would make them from."""

    activation = None  # whose logits are as good as its result
    of_probabilities = of_logits = None

    def __init__(self, from_logits=False, *, name=None):
        super().__init__(name=name)
        self.from_logits = bool(from_logits)

    def call(self, y_true, y_pred):
        origin = y_pred.logits
        if origin is not None and origin[0] == self.activation:
            if self.from_logits:
                warnings.warn(
                    f"{self.name}: from_logits=True, and the predictions are those of a {self.activation}: the loss is "
                    "computed from its logits; leave one of the two out",
                    stacklevel=3,
                )
            return self.of_logits(origin[1], y_true)
        return (self.of_logits if self.from_logits else self.of_probabilities)(y_pred, y_true)

    def get_config(self):
        return {"from_logits": self.from_logits, "name": self.name}


def _smooth(smooth, sharp, share):
    """smooth = sharp (1 - share) + share / classes"""
    np.multiply(sharp, 1.0 - share, out=smooth)
    smooth += share / sharp.shape[-1]


class BinaryCrossentropy(_Crossentropy):
    """The mean of -y_true * log(y_pred) - (1 - y_true) * log(1 - y_pred).

    >>> import numpy as np
    >>> BinaryCrossentropy(from_logits=True)(np.array([1.0, 0.0]), np.array([0.0, 0.0])).item().__round__(4)
    0.6931
    """

    default_name = "binary_crossentropy"
    activation = "sigmoid"
    of_probabilities = functions.binary_cross_entropy
    of_logits = functions.sigmoid_cross_entropy


class CategoricalCrossentropy(_Crossentropy):
    """The mean over rows of -sum(y_true * log(y_pred)), for one-hot targets (or any distribution).

    `label_smoothing` mixes that much of the uniform distribution into the targets.
    """

    default_name = "categorical_crossentropy"
    activation = "softmax"
    of_probabilities = functions.categorical_cross_entropy
    of_logits = functions.softmax_cross_entropy

    def __init__(self, from_logits=False, label_smoothing=0.0, *, name=None):
        super().__init__(from_logits, name=name)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"{self.name}: label_smoothing must lie between 0 and 1, got {label_smoothing!r}")
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if self.label_smoothing:
            sharp, y_true = y_true, np.empty_like(y_true)
            compute(_smooth, y_true, sharp, self.label_smoothing)
        return super().call(y_true, y_pred)

    def hint(self, y_true, y_pred):
        if y_true.shape in (y_pred.shape[:-1], (*y_pred.shape[:-1], 1)):
            return (
                f"; for labels that count the classes take loss='sparse_categorical_crossentropy', "
                f"or to_categorical(y_true, {y_pred.shape[-1]})"
            )
        return ""

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


class SparseCategoricalCrossentropy(_Crossentropy):
    """The mean over rows of -log(y_pred[row, y_true[row]]), for integer labels."""

    default_name = "sparse_categorical_crossentropy"
    activation = "softmax"
    of_probabilities = functions.sparse_categorical_cross_entropy
    of_logits = functions.sparse_softmax_cross_entropy

    def cast_targets(self, y_true, dtype):
        """Integers; but as they came where not all are, so that an error text can show which."""
        if y_true.dtype.kind in "iu":
            return y_true
        with np.errstate(invalid="ignore"):  # NaN and Inf become some integer, and differ from it
            labels = y_true.astype(np.int64)
        return labels if (labels == y_true).all() else y_true

    def fit_targets(self, y_true, y_pred):
        if y_true.shape != y_pred.shape[:-1]:
            y_true = self._as_rows(y_true, y_pred)
        if y_true.dtype.kind in "iu":
            return y_true
        labels = self.cast_targets(y_true, None)
        if labels is y_true:
            self.check_targets(y_true, y_pred)  # raises, as not all are integers
        return labels

    def check_targets(self, y_true, y_pred, name=_name_target):
        labels, classes = self._as_rows(y_true, y_pred), y_pred.shape[-1]
        fitting = (labels >= 0) & (labels < classes) & (labels == np.floor(labels))
        if not fitting.all():
            index = tuple(int(i) for i in np.unravel_index(fitting.argmin(), fitting.shape))
            raise ValueError(
                f"{self.name}: {name(index)} is {labels[index]}: labels must be integers from 0 to {classes - 1}, "
                f"as there are {classes} classes"
            )

    def _as_rows(self, y_true, y_pred):
        """The labels in the shape of the predictions' rows, from which a last axis of length 1 may be left over."""
        rows = y_pred.shape[:-1]
        if y_true.shape not in (rows, (*rows, 1)):
            raise ValueError(
                f"{self.name}: y_true is {y_true.shape} and y_pred {y_pred.shape}: labels must be {rows}"
                + self.hint(y_true, y_pred)
            )
        return y_true.reshape(rows)

    def hint(self, y_true, y_pred):
        if y_true.shape == y_pred.shape:
            return "; for one-hot targets take loss='categorical_crossentropy', or y_true.argmax(-1)"
        return ""


class _FunctionLoss(Loss):
    """A user's function(y_true, y_pred) of tensors; what it returns for each sample is averaged, as Keras does."""

    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", type(function).__name__))
        self.function = function

    def cast_targets(self, y_true, dtype):
        """Integers stay integers, which may be indices, but have room for the function's arithmetic."""
        return y_true.astype(dtype if y_true.dtype.kind == "f" else np.result_type(y_true, np.int64), copy=False)

    def fit_targets(self, y_true, y_pred):
        return self.cast_targets(y_true, y_pred.dtype)

    def call(self, y_true, y_pred):
        return self.function(Tensor(y_true), y_pred)


_BY_NAME = {
    "mse": MeanSquaredError,
    "mean_squared_error": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mean_absolute_error": MeanAbsoluteError,
    "bce": BinaryCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
}
_BY_CLASS_NAME = {cls.__name__: cls for cls in _BY_NAME.values()}


def get(identifier):
    """The loss for a name, a `serialize` dict, a class, an instance or a function(y_true, y_pred) of tensors.

    >>> get("mse")
    <MeanSquaredError name=mean_squared_error>
    """
    if isinstance(identifier, Loss):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Loss):
        return identifier()
    if isinstance(identifier, dict) and identifier.keys() == {"class_name", "config"}:
        return _lookup(identifier["class_name"]).from_config(identifier["config"])
    if callable(identifier):
        return _FunctionLoss(identifier)
    return _lookup(identifier)()


def _lookup(name):
    cls = (_BY_NAME.get(name.lower()) or _BY_CLASS_NAME.get(name)) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(did_you_mean("loss", name, _BY_NAME))
    return cls


def serialize(loss):
    """The loss as plain data, which `get` turns back into one."""
    name = type(loss).__name__
    if _BY_CLASS_NAME.get(name) is not type(loss):
        raise ValueError(f"loss {loss.name}: cannot be saved: only handloom's own losses can")
    return {"class_name": name, "config": loss.get_config()}
