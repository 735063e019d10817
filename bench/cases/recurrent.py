"""LSTMs over whole sequences, both passes."""

from functools import partial

from ..case import Case, Pass, draw, size_of


def _lstm(n, steps, inputs, hidden, way, dtype):
    x, dy = draw((n, steps, inputs), dtype), draw((n, steps, hidden), dtype, 1)
    w = draw((inputs, 4 * hidden), dtype, 2) * dtype.type(inputs**-0.5)
    u = draw((hidden, 4 * hidden), dtype, 3) * dtype.type(hidden**-0.5)
    b = draw(4 * hidden, dtype, 4)
    flops = 2 * n * steps * (inputs + hidden) * 4 * hidden
    if way == "forward":
        return Pass("lstm", (x, w, u, b)).work(flops, size_of(x, w, u, b, dy))
    step = Pass("lstm", (x, w, u, b), {}, dy, (0, 1, 2, 3))
    kept = 5 * size_of(dy)  # the four gates and the cell's state
    return step.work(2 * flops, 2 * size_of(x, w, u, b) + 2 * size_of(dy) + kept)


def _cases(n, steps, inputs, hidden, quick=False):
    for way in ("forward", "backward"):
        make = partial(_lstm, n, steps, inputs, hidden, way)
        yield Case("recurrent", "lstm", way, f"{n}x{steps}x{inputs}-{hidden}", make, quick=quick, ladder=quick)


CASES = [
    *_cases(32, 50, 100, 64, quick=True),
    *_cases(1, 50, 64, 64),
    *_cases(128, 50, 100, 64),
    *_cases(32, 50, 256, 256),
    *_cases(32, 50, 512, 1024),
]
