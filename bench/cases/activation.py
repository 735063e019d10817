"""Activations and softmax, both passes, in cache and beyond."""

from functools import partial

from ..case import Case, Pass, draw, size_of

# Operations for an element: the softmax finds a maximum, subtracts, exponentiates, adds, divides; others count as one.
OPERATIONS = {"softmax": 5, "log_softmax": 5}


def _activation(op, shape, way, dtype):
    x, dy = draw(shape, dtype, low=-4, high=4), draw(shape, dtype, 1)
    flops = OPERATIONS.get(op, 1) * x.size
    if way == "forward":
        return Pass(op, (x,)).work(flops, 2 * size_of(x))
    return Pass(op, (x,), {}, dy, (0,)).work(flops, 3 * size_of(x))


def _cases(op, *shape, quick=False):
    for way in ("forward", "backward"):
        name = "x".join(map(str, shape))
        yield Case("activation", op, way, name, partial(_activation, op, shape, way), quick=quick)


CASES = [
    *_cases("softmax", 32, 10),
    *_cases("softmax", 65536, 10),
    *_cases("softmax", 1024, 1000, quick=True),
    *_cases("softmax", 256, 50257),
    *_cases("log_softmax", 1024, 1000),
    *_cases("gelu", 1 << 18, quick=True),
    *(case for op in ("relu", "sigmoid", "tanh", "silu", "gelu") for case in _cases(op, 1 << 24)),
]
