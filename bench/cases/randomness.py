"""Random numbers by a counter: uniform ones, and dropout. Peers draw other numbers, so theirs are not compared."""

from functools import partial

from ...kernels import dropout, uniform
from ...kernels.randomness import reference
from ..case import Case, Work, draw, keeping, size_of

KEY = {"seed": 3, "stream": 1, "step": 2}


def _uniform(size, dtype):
    from .. import peers

    return Work(
        lambda variant: keeping(partial(uniform, (size,), dtype=dtype, **KEY)),
        lambda: reference.uniform(shape=(size,), dtype=dtype, **KEY),
        peers.of_random("uniform", draw(size, dtype)),
        size,
        size * dtype.itemsize,
    )


def _dropout(size, dtype):
    from .. import peers

    x = draw(size, dtype)
    return Work(
        lambda variant: keeping(partial(dropout, x, 0.25, **KEY)),
        lambda: reference.dropout(x, rate=0.25, **KEY),
        peers.of_random("dropout", x),
        2 * size,
        2 * size_of(x),
    )


CASES = [
    Case("randomness", op, "", f"{size}", partial(make, size), quick=size == 1 << 20)
    for op, make in (("uniform", _uniform), ("dropout", _dropout))
    for size in (1 << 20, 1 << 24)
]
