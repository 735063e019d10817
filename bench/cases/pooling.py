"""Max and average pooling, both passes."""

from functools import partial

from ..case import Case, Pass, draw, size_of


def _pool(op, n, size, c, window, strides, way, dtype):
    x = draw((n, size, size, c), dtype)
    out = (size - window) // strides + 1
    dy = draw((n, out, out, c), dtype, 1)
    options = {"pool_size": window, "strides": strides}
    step = Pass(op, (x,), options) if way == "forward" else Pass(op, (x,), options, dy, (0,))
    offsets = dy.size if op == "max_pool2d" and way == "backward" else 0  # a byte for each output
    return step.work(dy.size * window * window, size_of(x, dy) + offsets)


def _cases(op, n, size, c, window, strides, quick=False, ladder=False):
    for way in ("forward", "backward"):
        make = partial(_pool, op, n, size, c, window, strides, way)
        name = f"{n}x{size}x{size}x{c}-{window}x{window}-strides{strides}"
        yield Case("pooling", op, way, name, make, quick=quick, ladder=ladder and way == "forward")


CASES = [
    *_cases("max_pool2d", 32, 26, 32, 2, 2, quick=True, ladder=True),
    *_cases("max_pool2d", 8, 112, 64, 3, 2),
    *_cases("avg_pool2d", 32, 26, 32, 2, 2, ladder=True),
    *_cases("avg_pool2d", 8, 112, 64, 3, 2),
]
