"""Interleaved timing of candidates that do the same work.

Each round runs every candidate once for a short stretch. Before it comes a pause, in which the threads of the one
before fall asleep: OpenBLAS's spin for a tenth of a second after their last call, and whoever is measured meanwhile
shares a core with them (a product of 1024^3 took 8.9 ms instead of 4.9 so). Its first calls are thrown away (threads
that slept need up to milliseconds to wake, caches have to be filled again), then single calls are timed.
A drift of the machine's speed so meets all candidates alike. The figure of a candidate is the median over all its
calls; a ratio is the peer's median divided by ours, above 1 where we are faster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Seconds between two candidates.
PAUSE = 0.2


@dataclass(frozen=True)
class Sample:
    """Seconds a call."""

    p20: float
    p50: float
    p80: float


def interleave(
    candidates: dict[str, Callable[[], object]], *, rounds: int = 7, stretch: float = 0.15
) -> dict[str, Sample]:
    """Seconds a call for each candidate; `stretch` is about how long one runs before the next has its turn."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    calls = {name: max(1, min(200, int(stretch / _once(call)))) for name, call in candidates.items()}
    for _ in range(rounds):
        for name, call in candidates.items():
            time.sleep(PAUSE)
            for _ in range(1 + calls[name] // 5):
                call()
            for _ in range(calls[name]):
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
    return {name: Sample(*np.percentile(seconds, (20, 50, 80)).tolist()) for name, seconds in times.items()}


def _once(call) -> float:
    call()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin + 1e-9


def agree(results: dict[str, np.ndarray], tolerance: float) -> str | None:
    """None where all results are the same, within the tolerance times the largest magnitude; else who differs."""
    names = list(results)
    first = np.asarray(results[names[0]], np.float64)
    scale = np.abs(first).max() + 1e-30
    if not np.isfinite(first).all():
        return f"{names[0]} is not finite"
    for name in names[1:]:
        other = np.asarray(results[name], np.float64)
        if other.shape != first.shape or not np.abs(other - first).max() <= tolerance * scale:
            return f"{names[0]} and {name} differ"
    return None
