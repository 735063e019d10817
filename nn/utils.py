"""Seeds and random streams, one-hot labels, and the text of a "no such name" error."""

import difflib
import os
import threading
from collections.abc import Iterable

import numpy as np

__all__ = ["did_you_mean", "get_seed", "next_stream", "set_random_seed", "to_categorical"]


class _Randomness:
    """The process's seed and the number of the next unused stream.

    Every random draw of the counter-based generator is keyed by (seed, stream). Parameters and dropout layers take
    one stream each, in the order in which they are made, so that a seeded program draws the same numbers every time.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.reset(int.from_bytes(os.urandom(8)))

    def reset(self, seed: int) -> None:
        with self.lock:
            self.seed = seed
            self.stream = 0

    def take(self) -> int:
        with self.lock:
            stream = self.stream
            self.stream += 1
        return stream


_randomness = _Randomness()


def next_stream() -> int:
    """A stream number that nothing else in this process has used since the last `set_random_seed`."""
    return _randomness.take()


def get_seed() -> int:
    """The seed of every draw that names none of its own: random in each process until `set_random_seed` fixes it."""
    return _randomness.seed


def set_random_seed(seed: int) -> None:
    """Make all that follows repeatable: seeds handloom, Python's `random` and NumPy's global generator.

    Args:
        seed: An integer from 0 to 2**32 - 1 (the range of NumPy's global generator).

    Example:

    >>> set_random_seed(7)
    >>> get_seed(), next_stream(), next_stream()
    (7, 0, 1)
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"set_random_seed: seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"set_random_seed: seed must lie between 0 and 2**32 - 1, got {seed}")
    import random

    random.seed(int(seed))
    np.random.seed(int(seed))
    _randomness.reset(int(seed))


def to_categorical(y, num_classes: int | None = None, dtype=np.float32) -> np.ndarray:
    """One-hot rows for integer class labels.

    Args:
        y: Integer labels of any shape; a last axis of length one is dropped, as in Keras.
        num_classes: Width of a row; by default the largest label plus one.
        dtype: Type of the result.

    Returns:
        An array of shape `y.shape + (num_classes,)` with a single 1 in each row.

    Example:

    >>> to_categorical([0, 2, 1])
    array([[1., 0., 0.],
           [0., 0., 1.],
           [0., 1., 0.]], dtype=float32)
    """
    given = np.asarray(y)
    labels = given.astype(np.int64)
    if not np.array_equal(labels, given):
        raise ValueError(f"to_categorical: labels must be whole numbers, got {given.dtype} values that are not")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.size and labels.min() < 0:
        raise ValueError(f"to_categorical: labels must not be negative, got {labels.min()}")
    largest = int(labels.max()) if labels.size else -1
    if num_classes is None:
        num_classes = largest + 1
    elif largest >= num_classes:
        raise ValueError(
            f"to_categorical: label {largest} does not fit num_classes={num_classes}: "
            f"labels count from 0, so num_classes must be at least {largest + 1}"
        )
    rows = np.zeros((labels.size, num_classes), dtype)
    rows[np.arange(labels.size), labels.ravel()] = 1
    return rows.reshape(*labels.shape, num_classes)


def did_you_mean(kind: str, name: object, options: Iterable[str]) -> str:
    """The error text for a name that is not among the options, with the nearest of them where one is near.

    Example:

    >>> did_you_mean("optimizer", "adma", ["sgd", "adam"])
    "optimizer: unknown name 'adma': it must be one of adam, sgd; did you mean 'adam'?"
    """
    options = sorted(options)
    text = f"{kind}: unknown name {name!r}: it must be one of {', '.join(options)}"
    by_lower = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.6)
    return f"{text}; did you mean {by_lower[near[0]]!r}?" if near else text
