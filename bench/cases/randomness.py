"""Random numbers by a counter: uniform ones, and dropout. Peers draw other numbers, so theirs are not compared."""

from functools import partial
from math import prod

from ...kernels import dropout, dropout_backward, dropout_forward, uniform
from ...kernels.randomness import reference
from ..case import Case, Work, draw, keeping, more, size_of
from .activation import SHAPES_AND_LARGEST

KEY = {"seed": 3, "stream": 1, "step": 2}
RATE = 0.25


def _uniform(shape, way, dtype):
    from .. import peers

    return Work(
        lambda variant: keeping(partial(uniform, shape, dtype=dtype, **KEY)),
        lambda: reference.uniform(shape=shape, dtype=dtype, **KEY),
        peers.of_random("uniform", draw(shape, dtype)),
        prod(shape),
        prod(shape) * dtype.itemsize,
    )


def _dropout(shape, way, dtype):
    from .. import peers

    x = draw(shape, dtype)
    if way == "backward":
        _, saved = dropout_forward(x, RATE, **KEY)
        ours = partial(dropout_backward, x, saved)  # x stands for dy as well
    else:
        ours = partial(dropout, x, RATE, **KEY)
    return Work(
        lambda variant: keeping(ours, lambda y: y[0] if way == "backward" else y),
        lambda: reference.dropout(x, rate=RATE, **KEY),
        peers.of_random("dropout_backward" if way == "backward" else "dropout", x),
        2 * x.size,
        2 * size_of(x),
    )


CASES = [
    Case("randomness", op, "", f"{size}", partial(make, (size,), ""), quick=size == 1 << 20)
    for op, make in (("uniform", _uniform), ("dropout", _dropout))
    for size in (1 << 20, 1 << 24)
]
CASES = more(
    CASES,
    (
        Case("randomness", "dropout", way, "x".join(map(str, shape)), partial(_dropout, shape, way))
        for shape in SHAPES_AND_LARGEST
        for way in ("forward", "backward")
    ),
)
