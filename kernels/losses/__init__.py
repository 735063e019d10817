"""Losses: how far predictions are from targets, as one number; and how many answers were right.

    mean_squared_error         mean of (y - t)^2
    mean_absolute_error        mean of |y - t|
    binary_cross_entropy       mean of -t log(p) - (1 - t) log(1 - p)
    sigmoid_cross_entropy      the same, from the logits x of p = sigmoid(x)
    categorical_cross_entropy  mean over rows of -sum of t log(p)
    softmax_cross_entropy      the same, from the logits x of p = softmax(x)
    sparse_...                 the last two, for labels (which class) instead of t

Each is one pass over the data. Predictions y, p or `logits` are float32 or float64 of any shape and strides; targets t
have their shape and dtype. On classes, the last axis counts them and all others count rows. Labels are integers of any
kind, one a row, each from 0 to the number of classes - 1.

Losses return an array without dimensions, of the predictions' dtype: an accurate mean, the same bits for any number of
threads. `loss_backward(dloss, saved, needs=None)` takes a number (or such an array) and returns (dy,): targets get no
gradient. NaN gives NaN; where probabilities are clipped, their gradient is zero, as in Keras.

Arrays that are not C-contiguous are copied first, and labels that are not int64 too. Workspace of losses on elements: a
number for each 4096 of them; on classes at most three numbers a row; backward none.

On a GPU nothing waits for the result, with two exceptions. Losses that take labels do, since one that is no class is an
error that says which; and so does a backward whose dloss is an array of another dtype than the predictions'.

Raises ValueError for other shapes, no elements and labels that are no class, TypeError for other or mixed dtypes.
Saved for backward: predictions and targets, and where it says so two numbers a row.
"""

from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import contiguous, flat, namespace
from ..dispatch import Variants, device_of
from ..recording import afterwards, on_host

_NAMES = (
    *("mean_squared_error", "mean_absolute_error", "binary_cross_entropy", "sigmoid_cross_entropy"),
    *("categorical_cross_entropy", "softmax_cross_entropy"),
    *("sparse_categorical_cross_entropy", "sparse_softmax_cross_entropy"),
)
_COUNTS = "count_correct", "count_correct_binary"
_KERNELS = {
    name: Variants(name, __name__, cpu={"simd": f"cpu:{name}"}, cuda={"vectors": f"cuda:{name}"})
    for name in (*_NAMES, *map("{}_backward".format, _NAMES), *_COUNTS, "first_outside")
}


class ElementLossSaved(NamedTuple):
    """What the backward of a loss on elements needs: predictions and targets."""

    y: np.ndarray
    t: np.ndarray


class RowLossSaved(NamedTuple):
    """What the backward of a loss on classes needs: predictions, targets or labels, and two numbers a row.

    Of logits, these are all rows' highest logits, then all rows' sum of t / sum of exp(logits - highest); of
    probabilities, all rows' sum of p, then all rows' sum of t where p was not clipped. (Parts of the loss follow.)
    """

    y: np.ndarray
    t: np.ndarray
    notes: np.ndarray


def mean_squared_error(y, t):
    """mean of (y - t)^2;  dy = 2 (y - t) / size.

    y, t : (...) float32 | float64; returns the loss : ().

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(2.)
    """
    return mean_squared_error_forward(y, t)[0]


def mean_squared_error_forward(y, t):
    """`mean_squared_error`, and what its backward needs."""
    return _element_loss("mean_squared_error", "y", y, t)


def mean_squared_error_backward(dloss, saved, needs=None):
    """(dy,) from a number; None where `needs`, one bool, says so."""
    return _gradient("mean_squared_error_backward", dloss, saved, needs)


def mean_absolute_error(y, t):
    """mean of |y - t|;  dy = sign(y - t) / size.

    y, t : (...) float32 | float64; returns the loss : ().

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.mean_absolute_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    array(1.)
    """
    return mean_absolute_error_forward(y, t)[0]


def mean_absolute_error_forward(y, t):
    """`mean_absolute_error`, and what its backward needs."""
    return _element_loss("mean_absolute_error", "y", y, t)


def mean_absolute_error_backward(dloss, saved, needs=None):
    """(dy,) from a number; None where `needs`, one bool, says so."""
    return _gradient("mean_absolute_error_backward", dloss, saved, needs)


def binary_cross_entropy(p, t):
    """mean of -t log(q) - (1 - t) log(1 - q), q being p kept between 1e-7 and 1 - 1e-7.

    p, t : (...) float32 | float64; returns the loss : ().  dp = (p - t) / (p (1 - p)) / size, zero where p was clipped.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.binary_cross_entropy(np.array([0.5, 0.5]), np.array([0.0, 1.0])).round(4)
    np.float64(0.6931)
    """
    return binary_cross_entropy_forward(p, t)[0]


def binary_cross_entropy_forward(p, t):
    """`binary_cross_entropy`, and what its backward needs."""
    return _element_loss("binary_cross_entropy", "p", p, t)


def binary_cross_entropy_backward(dloss, saved, needs=None):
    """(dp,) from a number; None where `needs`, one bool, says so."""
    return _gradient("binary_cross_entropy_backward", dloss, saved, needs)


def sigmoid_cross_entropy(logits, t):
    """mean of max(x, 0) - x t + log(1 + exp(-|x|)) over the logits x;  dx = (sigmoid(x) - t) / size.

    logits, t : (...) float32 | float64; returns the loss : ().

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.sigmoid_cross_entropy(np.array([-1e4, 1e4]), np.array([0.0, 0.0]))
    array(5000.)
    """
    return sigmoid_cross_entropy_forward(logits, t)[0]


def sigmoid_cross_entropy_forward(logits, t):
    """`sigmoid_cross_entropy`, and what its backward needs."""
    return _element_loss("sigmoid_cross_entropy", "logits", logits, t)


def sigmoid_cross_entropy_backward(dloss, saved, needs=None):
    """(dlogits,) from a number; None where `needs`, one bool, says so."""
    return _gradient("sigmoid_cross_entropy_backward", dloss, saved, needs)


def categorical_cross_entropy(p, t):
    """mean over rows of -sum of t log(q), q being p / sum of p kept between 1e-7 and 1 - 1e-7.

    p, t : (..., C) float32 | float64; returns the loss : ().  Saved besides: the sum of p, and of t where q was not
    clipped.  dp = (sum of t not clipped / sum of p - t / p, the latter zero where q was clipped) / rows.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.categorical_cross_entropy(np.array([[2.0, 2.0]]), np.array([[0.0, 1.0]])).round(4)
    np.float64(0.6931)
    """
    return categorical_cross_entropy_forward(p, t)[0]


def categorical_cross_entropy_forward(p, t):
    """`categorical_cross_entropy`, and what its backward needs."""
    return _row_loss("categorical_cross_entropy", "p", p, t)


def categorical_cross_entropy_backward(dloss, saved, needs=None):
    """(dp,) from a number; None where `needs`, one bool, says so."""
    return _gradient("categorical_cross_entropy_backward", dloss, saved, needs)


def softmax_cross_entropy(logits, t):
    """mean over rows of -sum of t log(softmax(x)), x being the row's logits.

    logits, t : (..., C) float32 | float64; returns the loss : ().  A logit of -Inf costs nothing where t is zero.
    Saved besides: the highest logit, and sum of t / sum of exp(x - highest).  dx = (softmax(x) sum of t - t) / rows.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.softmax_cross_entropy(np.array([[1e4, 0.0]]), np.array([[0.0, 1.0]]))
    array(10000.)
    """
    return softmax_cross_entropy_forward(logits, t)[0]


def softmax_cross_entropy_forward(logits, t):
    """`softmax_cross_entropy`, and what its backward needs."""
    return _row_loss("softmax_cross_entropy", "logits", logits, t)


def softmax_cross_entropy_backward(dloss, saved, needs=None):
    """(dlogits,) from a number; None where `needs`, one bool, says so."""
    return _gradient("softmax_cross_entropy_backward", dloss, saved, needs)


def sparse_categorical_cross_entropy(p, labels):
    """`categorical_cross_entropy` where t is 1 at each row's label and 0 elsewhere.

    p : (..., C) float32 | float64;  labels : (...) integers; returns the loss : ().

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.sparse_categorical_cross_entropy(np.array([[2.0, 2.0]]), np.array([1])).round(4)
    np.float64(0.6931)
    """
    return sparse_categorical_cross_entropy_forward(p, labels)[0]


def sparse_categorical_cross_entropy_forward(p, labels):
    """`sparse_categorical_cross_entropy`, and what its backward needs."""
    return _label_loss("sparse_categorical_cross_entropy", "p", p, labels)


def sparse_categorical_cross_entropy_backward(dloss, saved, needs=None):
    """(dp,) from a number; None where `needs`, one bool, says so."""
    return _gradient("sparse_categorical_cross_entropy_backward", dloss, saved, needs)


def sparse_softmax_cross_entropy(logits, labels):
    """`softmax_cross_entropy` where t is 1 at each row's label and 0 elsewhere.

    logits : (..., C) float32 | float64;  labels : (...) integers; returns the loss : ().

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.sparse_softmax_cross_entropy(np.array([[1e4, 0.0]]), np.array([1]))
    array(10000.)
    """
    return sparse_softmax_cross_entropy_forward(logits, labels)[0]


def sparse_softmax_cross_entropy_forward(logits, labels):
    """`sparse_softmax_cross_entropy`, and what its backward needs."""
    return _label_loss("sparse_softmax_cross_entropy", "logits", logits, labels)


def sparse_softmax_cross_entropy_backward(dloss, saved, needs=None):
    """(dlogits,) from a number; None where `needs`, one bool, says so."""
    return _gradient("sparse_softmax_cross_entropy_backward", dloss, saved, needs)


def count_correct(p, t):
    """The number of rows whose largest p stands at the class that t says; of equal ones the first, NaN is the largest.

    p : (..., C) float32 | float64;  t : (..., C), dtype as p, whose largest number stands at the class, or integer
    labels (...); returns an int64 array (). A label that is no class is never right.  Workspace: at most a number a
    row.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.count_correct(np.array([[0.2, 0.8], [0.6, 0.4]]), np.array([1, 1]))
    array(1)
    """
    launcher = _KERNELS["count_correct"].launcher(device_of("count_correct", p=p, t=t), None)
    if t.dtype.kind in "iu":
        checks.floats("count_correct", p=p)
        checks.not_empty("count_correct", p=p)
        checks.shape("count_correct", p.shape[:-1], t=t)
        targets = p, contiguous(t, np.int64)
    else:
        _alike("count_correct", "p", p, t)
        targets = (t,)
    _check_rows("count_correct", "p", p)
    return launcher(p, *targets)


def count_correct_binary(p, t, threshold=0.5):
    """The number of p that are above the threshold and whose t is 1, or are not (NaN is not) and whose t is 0.

    p, t : (...) float32 | float64; threshold : a number; returns an int64 array (). Where t is anything else, p is
    never right.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.count_correct_binary(np.array([0.2, 0.8, 0.6]), np.array([0.0, 1.0, 0.0]))
    array(2)
    """
    launcher = _KERNELS["count_correct_binary"].launcher(_alike("count_correct_binary", "p", p, t), None)
    try:
        threshold = float(threshold)
    except (TypeError, ValueError):
        raise TypeError(f"count_correct_binary: threshold must be a number, got {threshold!r}") from None
    return launcher(p, t, threshold)


def _alike(op, name, y, t):
    """The device of two arrays of one shape and dtype, which are not empty."""
    plain = type(y) is type(t) is np.ndarray
    if plain and y.dtype is t.dtype and y.dtype in checks.FLOATS and y.shape == t.shape and y.size:
        return "cpu"
    named = {name: y, "t": t}
    device = device_of(op, **named)
    checks.floats(op, **named)
    checks.not_empty(op, **named)
    checks.shape(op, y.shape, t=t)
    return device


def _check_rows(op, name, y):
    if not y.ndim:
        raise ValueError(f"{op}: {name} is (): must have at least 1 dimension (..., C)")


def _element_loss(op, name, y, t):
    launcher = _KERNELS[op].launcher(_alike(op, name, y, t), None)
    return launcher(y, t), ElementLossSaved(y, t)


def _row_loss(op, name, y, t):
    launcher = _KERNELS[op].launcher(_alike(op, name, y, t), None)
    _check_rows(op, name, y)
    loss, notes = launcher(y, t)
    return loss, RowLossSaved(y, t, notes)


def _label_loss(op, name, y, labels):
    device = device_of(op, **{name: y, "labels": labels})
    launcher = _KERNELS[op].launcher(device, None)
    checks.floats(op, **{name: y})
    checks.not_empty(op, **{name: y})
    _check_rows(op, name, y)
    labels = _check_labels(op, labels, y.shape, device)
    loss, notes = launcher(y, labels)
    return loss, RowLossSaved(y, labels, notes)


def _check_labels(op, labels, shape, device):
    """The labels as int64."""
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{op}: labels are {labels.dtype}: must be integers, for example labels.astype('int64')")
    checks.shape(op, shape[:-1], labels=labels)
    wide, classes = contiguous(labels, np.int64), shape[-1]
    first_outside = _KERNELS["first_outside"].launcher(device, None)
    if device == "cpu":
        on_host(lambda wide: _check_range(op, labels, classes, first_outside(flat(wide), classes)), wide)
    else:  # what the kernels make of other labels does no harm, and is not looked at before this
        first = first_outside(flat(wide), classes)
        afterwards(lambda first: _check_range(op, labels, classes, int(first[0])), first)
    return wide


def _check_range(op, labels, classes, row):
    """`row`: where the first label stands that is no class; -1, or behind them all, where there is none."""
    if 0 <= row < labels.size:
        position = np.unravel_index(row, labels.shape)
        where = ", ".join(str(int(i)) for i in position)
        raise ValueError(
            f"{op}: labels[{where}] is {labels[position]}: must be from 0 to {classes - 1}, "
            f"as there are {classes} classes"
        )


def _gradient(op, dloss, saved, needs):
    (need,) = checks.wanted(op, needs, (saved._fields[0],))
    if getattr(dloss, "ndim", 0):
        raise ValueError(f"{op}: dloss is {dloss.shape}: must be a number, or an array without dimensions ()")
    y = saved[0]
    device = device_of(op, y=y)
    # A number on the GPU stays there: the host would have to wait for it.
    if device == "cpu" or type(dloss) is not type(y) or dloss.dtype != y.dtype:
        dloss = _number(op, dloss)
    if not need:
        return (None,)
    dy = namespace(y).empty(y.shape, y.dtype)
    _KERNELS[op].launcher(device, None)(dloss, *saved, dy)
    return (dy,)


def _number(op, dloss):
    try:
        return float(dloss)
    except (TypeError, ValueError):
        raise TypeError(
            f"{op}: dloss is a {type(dloss).__name__}: must be a number, or an array without dimensions ()"
        ) from None
