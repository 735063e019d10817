"""Max and average pooling, both passes."""

from functools import partial

from ..case import Case, Pass, draw, more, size_of


def _pool(op, n, size, c, window, strides, padding, way, dtype):
    x = draw((n, size, size, c), dtype)
    out = -(-size // strides) if padding == "same" else (size - window) // strides + 1
    dy = draw((n, out, out, c), dtype, 1)
    options = {"pool_size": window, "strides": strides, "padding": padding}
    step = Pass(op, (x,), options) if way == "forward" else Pass(op, (x,), options, dy, (0,))
    offsets = dy.size if op == "max_pool2d" and way == "backward" else 0  # a byte for each output
    return step.work(dy.size * window * window, size_of(x, dy) + offsets)


def _cases(op, n, size, c, window, strides, padding="valid", quick=False, ladder=False):
    for way in ("forward", "backward"):
        make = partial(_pool, op, n, size, c, window, strides, padding, way)
        name = f"{n}x{size}x{size}x{c}-{window}x{window}-strides{strides}" + ("-same" if padding == "same" else "")
        yield Case("pooling", op, way, name, make, quick=quick, ladder=ladder and way == "forward")


CASES = [
    *_cases("max_pool2d", 32, 26, 32, 2, 2, quick=True, ladder=True),
    *_cases("max_pool2d", 8, 112, 64, 3, 2),
    *_cases("avg_pool2d", 32, 26, 32, 2, 2, ladder=True),
    *_cases("avg_pool2d", 8, 112, 64, 3, 2),
]
# (channels, height = width, images): about 200 KB, 3 MB and 50 MB, which fit in the second cache, the third and none.
IMAGES = (
    (1, 28, (64, 1024, 16384)),
    (3, 32, (16, 256, 4096)),
    (32, 28, (2, 32, 512)),
    (64, 28, (1, 16, 256)),
    (256, 14, (1, 16, 256)),
)
CASES = more(
    CASES,
    (
        case
        for op in ("max_pool2d", "avg_pool2d")
        for window in ((2, 2), (3, 2), (3, 1, "same"))
        for c, size, images in IMAGES
        for n in images
        for case in _cases(op, n, size, c, *window)
    ),
)
