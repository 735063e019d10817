"""The limits of this machine, measured: multiply-adds, memory, and what a call costs.

    multiply-adds     twelve vectors in registers, each multiplied and added to over and over; on one thread and on all
    copy, triad       y = x, and y = x + 3 z, in arrays that fill half of each cache, and four times the last one
    region, launch    a parallel loop over chunks that do nothing, and a kernel without any, as Python calls it

A loop of multiply-adds always does the same work, so how far its samples lie apart says how quiet the machine is. It
runs again beside every row that is measured (`Quiet`): others on the same cores show there. Others that load memory
or a cache that is shared do not.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..kernels import simd
from ..kernels.jit import jit
from ..kernels.simd import fma, lanes, rolled, vfill, vload, vstore
from ..kernels.threads import THREADS_PAY, threaded
from .timing import PAUSE

# Samples of a fixed loop may lie this far apart, as a share of their median.
NOISY = 0.1
# Seconds that one sample of anything takes, about, and how many there are.
STRETCH, SAMPLES = 2e-3, 15
LOOKS = 5
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
LARGEST = 1 << 28  # bytes for measuring memory, at most


@jit(inner=True)
def multiply_add(chunk, x, out, rounds):
    """Twelve sums, more than the eight that two units with a latency of four cycles have under way."""
    a, b = vload(x, 0), vload(x, lanes(x))
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = vfill(x, 0.0)
    for _ in range(rounds):
        rolled()
        s0, s1, s2, s3 = fma(s0, a, b), fma(s1, a, b), fma(s2, a, b), fma(s3, a, b)
        s4, s5, s6, s7 = fma(s4, a, b), fma(s5, a, b), fma(s6, a, b), fma(s7, a, b)
        s8, s9, s10, s11 = fma(s8, a, b), fma(s9, a, b), fma(s10, a, b), fma(s11, a, b)
    vstore(out, chunk * lanes(x), s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11)


SUMS = 12
ROUNDS = 100_000  # of the fixed loop: a millisecond, or less


@jit(inner=True)
def copy(chunk, x, z, y, size, rounds):
    """One chunk: `size` numbers, several times over."""
    for _ in range(rounds):
        rolled()
        for i in range(chunk * size, (chunk + 1) * size, lanes(x)):
            vstore(y, i, vload(x, i))


@jit(inner=True)
def triad(chunk, x, z, y, size, rounds):
    three = vfill(x, 3.0)
    for _ in range(rounds):
        rolled()
        for i in range(chunk * size, (chunk + 1) * size, lanes(x)):
            vstore(y, i, fma(vload(z, i), three, vload(x, i)))


@jit(inner=True)
def nothing(chunk, x):
    """What is left are the region, or the call, themselves."""


_multiply_add, _copy, _triad, _nothing = (threaded(kernel) for kernel in (multiply_add, copy, triad, nothing))


def measure(threads: int) -> dict:
    """All limits, in GFLOP/s, GB/s and microseconds; float32."""
    return {
        "multiply-adds, GFLOP/s": {count: _peak(count) for count in _counts(threads)},
        "copy, GB/s": _bandwidths(_copy, 2, threads),
        "triad, GB/s": _bandwidths(_triad, 3, threads),
        "parallel region, us": _microseconds(lambda: _nothing(threads, THREADS_PAY, _X)) if threads > 1 else None,
        "launch, us": _microseconds(lambda: _nothing(1, 0, _X)),
    }


class Quiet:
    """Whether the machine stays quiet: `look` takes samples of the fixed loop, on one thread."""

    def __init__(self):
        self._run = _work(1)
        self._run()
        self.seconds = []

    def look(self):
        time.sleep(PAUSE)  # threads of the one before spin on
        self._run()
        self.seconds += [_seconds(self._run) for _ in range(LOOKS)]

    @property
    def spread(self) -> float:
        """From the 10th to the 90th of a hundred samples, as a share of the median."""
        low, middle, high = np.percentile(self.seconds, (10, 50, 90))
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        return self.spread > NOISY


def lines(limits: dict) -> list[str]:
    """The limits in words."""
    found = [f"{title}: {_values(value)}" for title, value in limits.items() if value is not None]
    return [f"limits: {found[0]}", *(f"        {line}" for line in found[1:])]


def cache_sizes(folder: Path = CACHES) -> dict[str, int]:
    """Bytes of the data caches by name, "L1" to "L3"; what is usual where the machine does not say."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and (number := re.fullmatch(r"(\d+)([KM])", size)):
            found[f"L{level}"] = int(number[1]) << (10 if number[2] == "K" else 20)
    return found or {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 24}


_X = np.linspace(0.1, 0.2, 2 * simd.VECTOR_BYTES // 4, dtype=np.float32)


def _counts(threads):
    return (1, threads) if threads > 1 else (1,)


def _values(value):
    if not isinstance(value, dict):
        return f"{value:.2f}"
    return ", ".join(f"{_threads(name) if isinstance(name, int) else name} {x:,.0f}" for name, x in value.items())


def _threads(count):
    return "1 thread" if count == 1 else f"{count} threads"


def _seconds(run: Callable) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _work(threads):
    """The fixed loop, on each of so many threads."""
    out = np.empty(threads * _X.size, np.float32)
    if threads > 1:
        return lambda: _multiply_add(threads, THREADS_PAY, _X, out, ROUNDS)
    return lambda: _multiply_add.in_turn(1, _X, out, ROUNDS)


def _peak(threads):
    """GFLOP/s: the best of the samples, since whatever disturbs the loop only makes it longer."""
    run = _work(threads)
    run()
    best = min(_seconds(run) for _ in range(4 * SAMPLES))
    return threads * 2 * SUMS * (simd.VECTOR_BYTES // 4) * ROUNDS / best * 1e-9


def _bandwidths(launch, arrays, threads):
    """GB/s for each level on one thread, and of memory on all: read and written bytes, the median of the samples."""
    sizes = cache_sizes()
    plan = [(name, size // 2, 1) for name, size in sizes.items()]
    beyond = min(LARGEST, 4 * max(sizes.values()))
    plan += [(f"memory on {_threads(count)}", beyond, count) for count in _counts(threads)]
    return {name: _bandwidth(launch, arrays, size, count) for name, size, count in plan}


def _bandwidth(launch, arrays, size, threads):
    step = simd.VECTOR_BYTES // 4
    numbers = max(1, size // (4 * arrays * threads * step)) * step  # of an array, for each thread
    x, z, y = (np.ones(numbers * threads, np.float32) for _ in range(3))
    moved = arrays * 4 * numbers * threads

    def run(rounds):
        if threads > 1:
            launch(threads, THREADS_PAY, x, z, y, numbers, rounds)
        else:
            launch.in_turn(1, x, z, y, numbers, rounds)

    run(1)
    rounds = max(1, int(STRETCH / _seconds(lambda: run(1))))
    return moved * rounds / float(np.median([_seconds(lambda: run(rounds)) for _ in range(SAMPLES)])) * 1e-9


def _microseconds(call):
    """Of one call, the median of many."""
    for _ in range(100):
        call()
    return float(np.median([_seconds(call) for _ in range(1000)])) * 1e6
