"""Times of work on a GPU, by CUDA's events, interleaved among candidates as in ../timing.py.

An event is a mark in the stream that notes when the GPU passes it. Between two of them lie as many calls as fill some
milliseconds; the calls are queued while the GPU works, so that what Python takes for one is hidden wherever the GPU
takes longer. Where it does not, the figure is Python's, as it would be for whoever calls the function in a loop.

A GPU's clocks fall while it has nothing to do, and rise with work. So it works before anything is timed.
"""

import time

from ..timing import Sample

ROUNDS = 9
STRETCH = 0.01  # seconds between two events, about
WARM, FROM_IDLE = 0.03, 0.3  # seconds of work before the first round; of a GPU that has done little so far


def seconds_of(candidates, rounds=ROUNDS, warm=WARM) -> dict[str, Sample]:
    """Seconds a call for each candidate, warmed up: of all rounds the 20th, 50th and 80th percentile."""
    import numpy as np

    for call in candidates.values():
        _between(call, 3)  # compiles, chooses algorithms, fills the pools of memory
    until, call = time.monotonic() + warm, next(iter(candidates.values()))
    while time.monotonic() < until:
        _between(call, 3)
    calls = {name: max(1, min(1000, int(STRETCH / (_between(call, 3) + 1e-9)))) for name, call in candidates.items()}
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            call()  # not timed: the one before has left its own data in the caches
            times[name].append(_between(call, calls[name]))
    return {name: Sample(*np.percentile(seconds, (20, 50, 80)).tolist()) for name, seconds in times.items()}


def _between(call, count) -> float:
    """Seconds a call between two events around `count` of them."""
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1000 / count
