"""Interleaved timing of candidates that do the same work.

Each round runs every candidate once for a short stretch. Before it comes a pause, in which the threads of the one
before fall asleep: OpenBLAS's spin for a tenth of a second after their last call, and whoever is measured meanwhile
shares a core with them (a product of 1024^3 took 8.9 ms instead of 4.9 so). Its first calls are thrown away, then
single calls are timed: threads that slept may wake on one core, and it takes the system up to two ticks of 4 ms to
part them; caches have to be filled again.
A drift of the machine's speed so meets all candidates alike. The figure of a candidate is the median over all its
calls; a ratio is the peer's median divided by ours, above 1 where we are faster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WAKING = 0.02  # seconds


@dataclass(frozen=True)
class Sample:
    """Seconds a call, and the processor's seconds that all threads together burn for one."""

    p20: float
    p50: float
    p80: float
    cpu: float | None = None


@dataclass(frozen=True)
class Effort:
    """So many rounds; in each, after a pause, `stretch` seconds for every candidate, about."""

    rounds: int
    stretch: float
    pause: float = 0.2


QUICK, FULL = Effort(3, 0.05, 0.12), Effort(5, 0.1)


def interleave(candidates: dict[str, Callable[[], object]], effort: Effort) -> dict[str, Sample]:
    """Seconds a call for each candidate."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    burned = dict.fromkeys(candidates, 0.0)
    calls = {name: max(1, min(200, int(effort.stretch / _once(call)))) for name, call in candidates.items()}
    for _ in range(effort.rounds):
        for name, call in candidates.items():
            time.sleep(effort.pause)
            wake(call)
            before = time.process_time()
            for _ in range(calls[name]):
                begin = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - begin)
            burned[name] += time.process_time() - before
    return {
        name: Sample(*np.percentile(seconds, (20, 50, 80)).tolist(), burned[name] / len(seconds))
        for name, seconds in times.items()
    }


def wake(call: Callable[[], object]) -> None:
    """Call for so long, and at least once, that threads which slept are at work, each on a core of its own."""
    awake = time.perf_counter() + WAKING
    call()
    while time.perf_counter() < awake:
        call()


def _once(call) -> float:
    call()
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin + 1e-9
