"""Convolutions, three passes each: some of every kind, and in the survey the layers of two networks."""

from functools import partial

from ..case import Case, Pass, draw, more, size_of
from .networks import INCEPTION_V3, OTHERS, RESNET_50

WAYS = ("forward", "data-gradient", "weight-gradient")
# (images, height = width, channels, filters, window)
PLAIN = (
    (32, 28, 1, 32, 3),
    (32, 30, 32, 64, 3),
    (8, 58, 64, 64, 3),
    (8, 30, 128, 128, 3),
    (4, 16, 256, 256, 3),
    (4, 56, 64, 256, 1),
    (4, 34, 192, 64, 5),
)


def _conv2d(n, size, c, f, window, way, dtype, padding=(0, 0), **options):
    """`padding`: zeros on either side, along the height and the width."""
    groups, dilation, strides = (options.get(name, 1) for name in ("groups", "dilation", "strides"))
    x, w = draw((n, size, size, c), dtype), draw((*window, c // groups, f), dtype, 1)
    out = [(size + 2 * zeros - (cells - 1) * dilation - 1) // strides + 1 for cells, zeros in zip(window, padding)]
    dy = draw((n, *out, f), dtype, 2)
    flops = 2 * dy.size * window[0] * window[1] * (c // groups)
    if any(padding):
        options["padding"] = tuple((zeros, zeros) for zeros in padding)
    if way == "forward":
        return Pass("conv2d", (x, w), options).work(flops, size_of(x, w, dy))
    wanted = 0 if way == "data-gradient" else 1
    needs = (wanted == 0, wanted == 1, False)
    return Pass("conv2d", (x, w), options, dy, (wanted,), needs).work(flops, size_of(x, w, dy))


def _cases(n, size, c, f, window, quick=False, ladder=False, padding=(0, 0), **options):
    window = window if isinstance(window, tuple) else (window, window)
    words = [f"{k}{v}" for k, v in options.items()] + (["pad" + "x".join(map(str, padding))] if any(padding) else [])
    name = "-".join([f"{n}x{size}x{size}x{c}", "x".join(map(str, window)), f"{f}", *words])
    for way in WAYS:
        make = partial(_conv2d, n, size, c, f, window, way, padding=padding, **options)
        yield Case("convolution", "conv2d", way, name, make, quick=quick, ladder=ladder and way == "forward")


def _pooled(n, size, c, f, padding, dtype):
    """With bias and relu before the maximum: what a network for images has most of."""
    x, w, b = draw((n, size, size, c), dtype), draw((3, 3, c, f), dtype, 1), draw((f,), dtype, 2)
    out = size if padding == "same" else size - 2
    flops, y = 2 * n * out * out * f * 9 * c, x.itemsize * n * (out // 2) ** 2 * f
    step = Pass("conv2d_max_pool2d", (x, w, b), {"padding": padding, "activation": "relu"})
    return step.work(flops, size_of(x, w, b) + y)


def _pooled_case(n, size, c, f, padding, quick=False):
    name = f"{n}x{size}x{size}x{c}-3x3-{f}-{padding}-relu"
    make = partial(_pooled, n, size, c, f, padding)
    return Case("convolution", "conv2d_max_pool2d", "forward", name, make, quick=quick, ladder=True)


CASES = [
    *(case for shape in PLAIN for case in _cases(*shape, quick=shape[2] in (1, 128), ladder=shape[2] == 1)),
    *_cases(2, 18, 64, 64, 3, ladder=True),
    *_cases(8, 57, 64, 128, 3, strides=2),
    *_cases(1, 229, 3, 64, 7, strides=2),
    *_cases(8, 60, 32, 32, 3, dilation=2),
    *_cases(8, 58, 64, 64, 3, groups=64),
    *_cases(8, 56, 64, 64, 3, padding=(1, 1), groups=64),
    _pooled_case(32, 28, 1, 32, "valid", quick=True),
    _pooled_case(32, 13, 32, 64, "valid"),
    _pooled_case(1, 224, 64, 64, "same"),
    _pooled_case(4, 56, 128, 128, "same"),
]
CASES = more(
    CASES,
    (
        case
        for n in (1, 8)
        for size, c, f, window, padding, options in RESNET_50 + INCEPTION_V3 + OTHERS
        for case in _cases(n, size, c, f, window, padding=padding, **options)
    ),
)
