"""LSTMs over whole sequences, both passes."""

from functools import partial

from ..case import Case, Pass, draw, more, size_of


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
    *_cases(1, 50, 256, 256),
    *_cases(128, 50, 100, 64),
    *_cases(32, 50, 256, 256),
    *_cases(32, 50, 512, 1024),
]
LONG, MANY = 500, 8192  # steps, and the units of a batch from which so many are left out
CASES = more(
    CASES,
    (
        case
        for inputs, hidden in ((64, 64), (100, 64), (256, 256), (512, 1024))
        for n in (1, 32, 128)
        for steps in (1, 50, LONG)
        if steps < LONG or n * hidden <= MANY
        for case in _cases(n, steps, inputs, hidden)
    ),
)
