"""What comes into `fit`, `evaluate` and `predict`: arrays, checked once, and cut into batches."""

from __future__ import annotations

import math
from numbers import Number

import numpy as np

from .devices import to_host
from .tensor import Tensor


class Batches:
    """The batches of `x` and `y` as pairs: slices in order (`y` may be None), or gathered by a permutation `order`.

    Gathered batches of NumPy arrays lie in buffers that are used again for the next, so an epoch allocates nothing. For
    error texts, `operation` says what they are for, and `first` which of the user's samples comes first here.
    """

    def __init__(self, operation, x, y, batch_size, first=0):
        self.operation = operation
        self.x, self.y = x, y
        self.batch_size = min(batch_size, len(x))
        self.first = first
        self.order = None
        self._buffers = None

    def __len__(self):
        return -(-len(self.x) // self.batch_size)

    def __iter__(self):
        size, x, y = self.batch_size, self.x, self.y
        if self.order is None:
            for start in range(0, len(x), size):
                yield x[start : start + size], None if y is None else y[start : start + size]
            return
        if type(x) is not np.ndarray or type(y) is not np.ndarray:
            for start in range(0, len(x), size):
                rows = self.order[start : start + size]
                yield x[rows], y[rows]
            return
        if self._buffers is None:
            self._buffers = [np.empty_like(array, shape=(size, *array.shape[1:])) for array in (x, y)]
        for number in range(len(self)):
            rows = self.fill(number, self._buffers)
            yield self._buffers if rows == size else [buffer[:rows] for buffer in self._buffers]

    def fill(self, number, arrays):
        """Puts batch `number` of NumPy's x, and y, into the first rows of these arrays, and returns how many."""
        start = number * self.batch_size
        stop = min(start + self.batch_size, len(self.x))
        for source, array in zip((self.x, self.y), arrays):
            if self.order is None:
                array[: stop - start] = source[start:stop]
            else:  # mode "clip", because "raise" goes through a copy, and the rows are known to exist
                source.take(self.order[start:stop], 0, array[: stop - start], "clip")
        return stop - start

    def sample(self, batch, row):
        """Which sample is row `row` of batch `batch`."""
        position = batch * self.batch_size + row
        return self.first + int(position if self.order is None else self.order[position])

    def name_target(self, index):
        """What the element `index` (a tuple) of `y` is called in an error text, and in which batch it comes."""
        row, *inside = index
        position = row if self.order is None else int((self.order == row).argmax())
        place = ", ".join(map(str, (self.first + row, *inside)))
        return f"y[{place}] in batch {position // self.batch_size + 1} of {len(self)}"

    def explain_loss(self, loss, batch, epoch, x, y):
        """The error text for a loss that is NaN or Inf: where that came from, as far as it can be seen."""
        what = "NaN" if loss != loss else "Inf"
        text = f"{self.operation}: the loss is {what} in batch {batch + 1} of {len(self)}, epoch {epoch + 1}: "
        for what, found_in in (("NaN", np.isnan), ("Inf", np.isinf)):
            for name, array in (("x", x), ("y", y)):
                rows = found_in(to_host(array)).reshape(len(array), -1).any(axis=1).nonzero()[0]
                if len(rows):
                    return (
                        f"{text}{name}[{self.sample(batch, int(rows[0]))}] has {what}, and {len(rows)} of the batch's "
                        f"{len(array)} samples do: remove or replace them"
                    )
        return (
            f"{text}the batch has neither NaN nor Inf, so the weights have grown beyond all bounds: lower the "
            "learning rate, or scale the data"
        )


def as_array(operation, name, data):
    """`data` as an array with at least one sample."""
    if data is None:
        raise ValueError(f"{operation}: {name} is missing: pass an array with one sample a row")
    if isinstance(data, dict):
        raise TypeError(f"{operation}: {name} is a dict: it must be one array; for several inputs write a loop")
    if isinstance(data, Tensor):
        data = data.data
    elif not hasattr(data, "strides"):
        data = _converted(operation, name, data)
    if data.dtype.kind not in "fiub":
        raise TypeError(f"{operation}: {name} holds {data.dtype}: it must hold numbers")
    if data.ndim == 0 or len(data) == 0:
        raise ValueError(f"{operation}: {name} has shape {data.shape}: there must be at least one sample")
    return data


def _converted(operation, name, data):
    """Lists, numbers and what offers itself as an array; NumPy would iterate over all else, perhaps without end."""
    if isinstance(data, (list, tuple)):
        try:
            return np.asarray(data)
        except ValueError:
            raise ValueError(
                f"{operation}: {name} is a ragged {type(data).__name__}: all samples must have the same shape, pad them"
            ) from None
    if not isinstance(data, Number) and not hasattr(data, "__array__") and not hasattr(data, "__array_interface__"):
        raise TypeError(
            f"{operation}: {name} is a {type(data).__name__}: it must be an array or a list; for generators write a "
            "loop with train_on_batch, test_on_batch or predict_on_batch"
        )
    return np.asarray(data)


def check_input_shape(operation, x, model):
    """`x` against the input shape that the model was declared with."""
    declared = model.declared_shape
    if declared is None or matches(x.shape, declared):
        return
    if matches((1, *x.shape), declared):
        hint = ": it takes a batch, for one sample x[None]"
    elif matches((*x.shape, 1), declared):
        hint = ": the last axis is missing, add it with x[..., None]"
    elif None not in declared[1:] and math.prod(x.shape[1:]) == math.prod(declared[1:]):
        hint = f": the values fit, reshape it with x.reshape{(-1, *declared[1:])}"
    else:
        hint = ": all axes but the first must be equal where they are not None"
    raise ValueError(f"{operation}: x is {x.shape} and the model {model.name!r} takes {declared}{hint}")


def matches(shape, declared):
    return len(shape) == len(declared) and all(b is None or a == b for a, b in zip(shape, declared))


def split(x, y, fraction):
    """(x, y, x, y): what to train on, and the last `fraction` of the samples to validate on; (x, y) for 0 or None."""
    fraction = 0.0 if fraction is None else fraction
    if not 0 <= fraction < 1:
        raise ValueError(f"fit: validation_split must be a fraction from 0 to below 1, got {fraction!r}")
    if not fraction:
        return x, y
    at = math.floor(len(x) * (1 - fraction))
    if at in (0, len(x)):
        raise ValueError(
            f"fit: validation_split={fraction} of {len(x)} samples leaves none to "
            + ("train on" if at == 0 else "validate on")
        )
    return x[:at], y[:at], x[at:], y[at:]
