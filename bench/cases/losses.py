"""The loss of a softmax, joined with it."""

from functools import partial

import numpy as np

from ..case import Case, Pass, draw, size_of


def _cross_entropy(rows, classes, way, dtype):
    logits = draw((rows, classes), dtype, low=-4, high=4)
    t = np.eye(classes, dtype=dtype)[np.arange(rows) * 7 % classes]
    step = Pass("softmax_cross_entropy", (logits, t))
    if way == "forward":
        return step.work(5 * logits.size, size_of(logits, t))
    step = Pass("softmax_cross_entropy", (logits, t), {}, dtype.type(1), (0,))
    return step.work(5 * logits.size, 3 * size_of(logits))


CASES = [
    Case(
        "losses", "softmax_cross_entropy", way, f"{rows}x{classes}",
        partial(_cross_entropy, rows, classes, way), quick=classes == 1000,
    )
    for rows, classes in ((32, 10), (1024, 1000), (256, 50257))
    for way in ("forward", "backward")
]  # fmt: skip
