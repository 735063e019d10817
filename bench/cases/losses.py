"""The loss of a softmax, joined with it."""

from functools import partial

import numpy as np

from ..case import Case, Pass, draw, more, size_of
from .activation import SHAPES_AND_LARGEST


def _cross_entropy(rows, classes, way, dtype):
    logits = draw((rows, classes), dtype, low=-4, high=4)
    t = np.zeros_like(logits)
    t[np.arange(rows), np.arange(rows) * 7 % classes] = 1
    step = Pass("softmax_cross_entropy", (logits, t))
    if way == "forward":
        return step.work(5 * logits.size, size_of(logits, t))
    step = Pass("softmax_cross_entropy", (logits, t), {}, dtype.type(1), (0,))
    return step.work(5 * logits.size, 3 * size_of(logits))


def _cases(rows, classes, **options):
    for way in ("forward", "backward"):
        make = partial(_cross_entropy, rows, classes, way)
        yield Case("losses", "softmax_cross_entropy", way, f"{rows}x{classes}", make, **options)


CASES = [
    *_cases(32, 10),
    *_cases(1024, 1000, quick=True),
    *_cases(256, 50257),
]
CASES = more(CASES, (case for shape in SHAPES_AND_LARGEST for case in _cases(*shape)))
