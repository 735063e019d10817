"""Activations and softmax, both passes, in cache and beyond."""

from functools import partial

from ..case import Case, Pass, draw, more, size_of

# Operations for an element: the softmax finds a maximum, subtracts, exponentiates, adds, divides; others count as one.
OPERATIONS = {"softmax": 5, "log_softmax": 5}


def _activation(op, shape, way, dtype):
    x, dy = draw(shape, dtype, low=-4, high=4), draw(shape, dtype, 1)
    flops = OPERATIONS.get(op, 1) * x.size
    if way == "forward":
        return Pass(op, (x,)).work(flops, 2 * size_of(x))
    return Pass(op, (x,), {}, dy, (0,)).work(flops, 3 * size_of(x))


def _cases(op, *shape, quick=False, ladder=False):
    for way in ("forward", "backward"):
        name = "x".join(map(str, shape))
        make = partial(_activation, op, shape, way)
        yield Case("activation", op, way, name, make, quick=quick, ladder=ladder and way == "forward")


CASES = [
    *_cases("softmax", 32, 10),
    *_cases("softmax", 65536, 10),
    *_cases("softmax", 1024, 1000, quick=True, ladder=True),
    *_cases("softmax", 256, 50257),
    *_cases("log_softmax", 1024, 1000),
    *_cases("gelu", 1 << 18, quick=True),
    *(case for op in ("relu", "sigmoid", "tanh", "silu", "gelu") for case in _cases(op, 1 << 24)),
]
# {width: rows}: a digit's classes, some more, ImageNet's, and the words of a language.
ROWS = {10: (32, 1024, 65536), 100: (32, 1024, 65536), 1000: (32, 1024), 50257: (1, 32, 256)}
SHAPES = [(rows, width) for width, each in ROWS.items() for rows in each]
SHAPES_AND_LARGEST = [*SHAPES, (65536, 1000)]  # 2^26 numbers, about
CASES = more(
    CASES,
    (
        case
        for op, shapes in (("softmax", SHAPES_AND_LARGEST), ("log_softmax", SHAPES_AND_LARGEST), ("gelu", SHAPES))
        for shape in shapes
        for case in _cases(op, *shape)
    ),
)
