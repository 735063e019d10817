"""Metrics: running means over the batches of an epoch, with Keras's names.

A metric keeps two numbers, a total and a count. `update` is called once a batch with plain arrays, so it does nothing
but add to them; `result` divides. Training calls `follow`, in which handloom's own metrics do nothing but launch
kernels: these may be recorded and played back, and nobody waits for them.
"""

import inspect
from functools import partial

import numpy as np

from .. import kernels
from ..kernels.arrays import contiguous
from .devices import as_array, beside, to_host
from .tensor import Tensor
from .utils import did_you_mean

__all__ = [
    "AutoAccuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanMetric",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
    "direction",
    "get",
    "serialize",
]


class Metric:
    """Base of all: a subclass defines `measure(y_pred, y_true) -> (total, count)` for one batch.

    Attributes:
        name: Its key in the logs and in `History.history`.
        direction: Which way is better, "min" or "max".
    """

    default_name = "metric"
    direction = "min"

    def __init__(self, name: str | None = None):
        self.name = name or self.default_name
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.total = 0.0
        self.count = 0

    def update(self, y_pred, y_true) -> None:
        """Add one batch of predictions and targets, both arrays."""
        self._add(*self.measure(y_pred, y_true))

    def follow(self, y_pred, y_true):
        """`update` in two parts: launches kernels, which may be recorded, and returns the function, with its arguments,
        that adds the batch once they are done."""
        return (partial(self.update, y_pred, y_true),)

    def _add(self, total, count):
        self.total += float(total)
        self.count += count

    def measure(self, y_pred, y_true) -> tuple[float, int]:
        raise NotImplementedError(f"{type(self).__name__}: a metric must define measure(y_pred, y_true)")

    def result(self) -> float:
        """The mean over everything since the last `reset`; 0 before the first batch, as in Keras."""
        return self.total / self.count if self.count else 0.0

    def update_state(self, y_true, y_pred) -> None:
        """`update` in Keras's argument order, for tensors too, and for predictions that are whole numbers."""
        y_pred, y_true = (y.data if isinstance(y, Tensor) else as_array(y) for y in (y_pred, y_true))
        if y_pred.dtype.kind in "iub":
            y_pred = y_pred.astype(np.float32)
        self.update(y_pred, beside(y_true, y_pred))

    reset_state = reset

    def get_config(self) -> dict:
        """The arguments that make the same metric again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}): {self.result():g}"


class _Counts(Metric):
    """A metric whose `measure` does nothing but launch kernels, of which one writes the total into an array."""

    direction = "max"

    def follow(self, y_pred, y_true):
        return self._add, *self.measure(y_pred, y_true)


class CategoricalAccuracy(_Counts):
    """How often the largest of the class probabilities (..., C) is that of the one-hot target (..., C)."""

    default_name = "categorical_accuracy"

    def measure(self, y_pred, y_true):
        y_true = _in_dtype_of(y_pred, y_true)
        return kernels.count_correct(y_pred, y_true), y_pred.size // y_pred.shape[-1]


class SparseCategoricalAccuracy(_Counts):
    """How often the largest of the class probabilities (..., C) is at the label (...) or (..., 1)."""

    default_name = "sparse_categorical_accuracy"

    def measure(self, y_pred, y_true):
        rows = y_pred.shape[:-1]
        if y_true.shape not in (rows, (*rows, 1)):
            raise ValueError(f"{self.name}: predictions are {y_pred.shape} and labels {y_true.shape}: must be {rows}")
        y_true = y_true.reshape(rows)
        if y_true.dtype.kind == "f":
            y_true = contiguous(y_true, np.dtype(np.int64))
        return kernels.count_correct(y_pred, y_true), y_true.size


class BinaryAccuracy(_Counts):
    """How often a probability lies on the same side of the threshold as its target, which is 0 or 1."""

    default_name = "binary_accuracy"

    def __init__(self, name: str | None = None, *, threshold: float = 0.5):
        super().__init__(name)
        self.threshold = threshold

    def measure(self, y_pred, y_true):
        y_true = _like(self.name, y_pred, y_true)
        return kernels.count_correct_binary(y_pred, y_true, self.threshold), y_pred.size

    def get_config(self):
        return {"name": self.name, "threshold": self.threshold}


class AutoAccuracy(_Counts):
    """What "accuracy" means: binary, sparse or categorical, as the shapes of predictions and targets tell.

    One output is binary; targets with an axis less, or with a last axis of one, are labels; all else is one-hot.
    This is Keras's rule with one addition: under a binary cross-entropy, several outputs are so many binary answers.
    """

    default_name = "accuracy"

    def __init__(self, name: str | None = None, loss=None):
        super().__init__(name)
        self._binary = BinaryAccuracy(self.name)
        self._sparse = SparseCategoricalAccuracy(self.name)
        self._categorical = CategoricalAccuracy(self.name)
        names = {name.replace("_", "").lower() for name in (_name_of(loss), type(loss).__name__)}
        self._binary_loss = not names.isdisjoint(("binarycrossentropy", "bce"))

    def measure(self, y_pred, y_true):
        return self._meant(y_pred.shape, y_true.shape).measure(y_pred, y_true)

    def _meant(self, shape, labels):
        """The metric for predictions and targets of these shapes."""
        if self._binary_loss or len(shape) == 1 or shape[-1] == 1:
            return self._binary
        if len(labels) < len(shape) or labels[-1] == 1:
            return self._sparse
        return self._categorical


class _MeanOfElements(Metric):
    """A metric whose batches have a mean that a kernel computes: `_mean_of(y_pred, y_true)`, an array."""

    def measure(self, y_pred, y_true):
        return float(self._mean(y_pred, y_true)) * y_pred.size, y_pred.size

    def follow(self, y_pred, y_true):
        return self._add_mean, self._mean(y_pred, y_true), y_pred.size

    def _mean(self, y_pred, y_true):
        return self._mean_of(y_pred, _like(self.name, y_pred, y_true))

    def _add_mean(self, mean, count):
        self._add(float(mean) * count, count)


class MeanSquaredError(_MeanOfElements):
    """The mean of (prediction - target)²."""

    default_name = "mean_squared_error"
    _mean_of = staticmethod(kernels.mean_squared_error)


class MeanAbsoluteError(_MeanOfElements):
    """The mean of |prediction - target|."""

    default_name = "mean_absolute_error"
    _mean_of = staticmethod(kernels.mean_absolute_error)


class MeanMetric(Metric):
    """The mean of what a function(y_true, y_pred) of your own returns for each batch, weighted by the batch sizes."""

    def __init__(self, function, name: str | None = None):
        super().__init__(name or _name_of(function))
        self.function = function

    def measure(self, y_pred, y_true):
        return float(np.mean(to_host(as_array(self.function(y_true, y_pred))))) * len(y_pred), len(y_pred)


def _in_dtype_of(y_pred, y_true):
    """The targets in the dtype of the predictions: kernels take no mixtures."""
    return contiguous(y_true, y_pred.dtype)


def _like(name, y_pred, y_true):
    """The targets in the dtype of the predictions, and in their shape where they differ by axes of one, as (N,) and
    (N, 1) do."""
    if y_true.shape != y_pred.shape:
        if [n for n in y_true.shape if n != 1] != [n for n in y_pred.shape if n != 1]:
            raise ValueError(f"{name}: predictions are {y_pred.shape} and targets {y_true.shape}: shapes must be equal")
        y_true = y_true.reshape(y_pred.shape)
    return _in_dtype_of(y_pred, y_true)


def _name_of(thing) -> str:
    """The name of a loss or function, however it was given."""
    if isinstance(thing, str):
        return thing
    return getattr(thing, "name", None) or getattr(thing, "__name__", type(thing).__name__)


_BY_NAME = {
    "accuracy": AutoAccuracy,
    "acc": AutoAccuracy,
    "binary_accuracy": BinaryAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
}
_BY_CLASS_NAME = {cls.__name__: cls for cls in _BY_NAME.values()}


def get(identifier, loss=None) -> Metric:
    """The metric for a name, a `serialize` dict, a class, an instance or a function(y_true, y_pred).

    Args:
        identifier: A name stays the metric's name: "mse" reports as "mse".
        loss: The model's loss, by which "accuracy" may know what to count.

    Example:

    >>> get("mse").name
    'mse'
    """
    if isinstance(identifier, Metric):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Metric):
        return identifier()
    if callable(identifier):
        return MeanMetric(identifier)
    if isinstance(identifier, dict) and identifier.keys() == {"class_name", "config"}:
        identifier, config = identifier["class_name"], identifier["config"]
    else:
        config = {"name": identifier}
    cls = (_BY_NAME.get(identifier) or _BY_CLASS_NAME.get(identifier)) if isinstance(identifier, str) else None
    if cls is None:
        raise ValueError(did_you_mean("metric", identifier, _BY_NAME))
    return cls(**config, loss=loss) if cls is AutoAccuracy else cls(**config)


def direction(name: str) -> str | None:
    """Which way is better for the metric of that name, "min" or "max"; None where the name is not known."""
    cls = _BY_NAME.get(name)
    return cls and cls.direction


def serialize(metric: Metric) -> dict:
    """The metric as plain data, which `get` turns back into one."""
    name = type(metric).__name__
    if _BY_CLASS_NAME.get(name) is not type(metric):
        raise ValueError(f"metric {metric.name}: cannot be saved: only handloom's own metrics can")
    return {"class_name": name, "config": metric.get_config()}
