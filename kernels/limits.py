"""The limits of this machine, measured: multiply-adds, memory, and what a call costs.

    multiply-adds     twelve vectors in registers, each multiplied and added to over and over; on one thread and on all
    copy, triad       y = x, and y = x + 3 z, in arrays that fill half of each cache, and four times the last one
    region, launch    a parallel loop over chunks that do nothing, and a kernel without any, as Python calls it

Each is measured on one thread and on all. A limit of the machine is not a promise: a kernel can pass the bandwidth of a
level where it moves less than it would have to, and nothing here says what others on the same machine leave of it.
"""

import time
from collections.abc import Callable

import numpy as np

from . import simd
from .jit import jit
from .simd import fma, lanes, rolled, vfill, vload, vstore
from .simd.machine import cache_sizes
from .threads import THREADS_PAY, threaded
from .workspace import SMALL, aligned

# Seconds that one sample of a bandwidth takes, at least, and how many samples there are.
STRETCH, SAMPLES = 2e-3, 15
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
    """All limits in float32: GFLOP/s and, for each level, GB/s, by the number of threads; and microseconds."""
    counts = (1, threads) if threads > 1 else (1,)
    return {
        "multiply-adds, GFLOP/s": {count: _peak(count) for count in counts},
        "copy, GB/s": _bandwidths(_copy, 2, counts),
        "triad, GB/s": _bandwidths(_triad, 3, counts),
        "parallel region, us": _microseconds(lambda: _nothing(threads, THREADS_PAY, _X)) if threads > 1 else None,
        "launch, us": _microseconds(lambda: _nothing(1, 0, _X)),
    }


def attainable(limits: dict, threads: int, flops: float, moved: float, itemsize: int = 4) -> tuple[float, str]:
    """(The fewest seconds for so many operations and bytes, what sets them), by the roofline model.

        seconds = max(flops / peak, bytes / bandwidth)

    with the bandwidth of copying in the level that the bytes fit into; a core has an L1 and an L2 of its own.
    Float64 has half of float32's peak. Source: S. Williams, A. Waterman, D. Patterson, "Roofline" (2009).
    """
    arithmetic = flops / (limits["multiply-adds, GFLOP/s"][threads] * 4 / itemsize) * 1e-9
    level = level_of(moved, threads)
    traffic = moved / limits["copy, GB/s"][level][threads] * 1e-9
    return (arithmetic, "multiply-adds") if arithmetic >= traffic else (traffic, level)


def level_of(moved: float, threads: int) -> str:
    """The cache that so many bytes fit into, or "memory"."""
    for name, size in cache_sizes().items():
        if moved <= size * (threads if name in ("L1", "L2") else 1):
            return name
    return "memory"


def lines(limits: dict) -> list[str]:
    """The limits in words."""
    found = []
    for title, value in limits.items():
        if isinstance(value, float):
            found.append(f"{title}: {value:.2f}")
        elif value is not None:
            levels = value if isinstance(next(iter(value.values())), dict) else {"": value}
            parts = (f"{name} {' / '.join(f'{x:,.0f}' for x in by.values())}".strip() for name, by in levels.items())
            found.append(f"{title}: {', '.join(parts)}")
    return found


def fixed_loop(threads: int) -> Callable:
    """A function that does the same multiply-adds at every call, on each of so many threads."""
    out = np.empty(threads * _X.size, np.float32)
    if threads > 1:
        return lambda: _multiply_add(threads, THREADS_PAY, _X, out, ROUNDS)
    return lambda: _multiply_add.in_turn(1, _X, out, ROUNDS)


_X = np.linspace(0.1, 0.2, 2 * simd.VECTOR_BYTES // 4, dtype=np.float32)


def _seconds(run: Callable, *args) -> float:
    begin = time.perf_counter()
    run(*args)
    return time.perf_counter() - begin


def _peak(threads):
    """GFLOP/s, the best of the samples: whatever disturbs the loop only makes it longer."""
    run = fixed_loop(threads)
    run()
    best = min(_seconds(run) for _ in range(4 * SAMPLES))
    return threads * 2 * SUMS * (simd.VECTOR_BYTES // 4) * ROUNDS / best * 1e-9


def _bandwidths(launch, arrays, counts):
    """GB/s for each level and number of threads: read and written bytes, the best of the samples."""
    sizes = cache_sizes()
    found = {}
    for name, size in sizes.items():
        shared = name not in ("L1", "L2")  # by the threads; the others have one each
        found[name] = {n: _bandwidth(launch, arrays, size // 2 * (1 if shared else n), n) for n in counts}
    beyond = min(LARGEST, 4 * max(sizes.values()))
    return found | {"memory": {n: _bandwidth(launch, arrays, beyond, n) for n in counts}}


def _bandwidth(launch, arrays, size, threads):
    step = simd.VECTOR_BYTES // 4
    numbers = max(1, size // (4 * arrays * threads * step)) * step  # of an array, for each thread
    x, z, y = np.split(aligned(max(SMALL, 3 * numbers * threads), np.float32)[: 3 * numbers * threads], 3)
    for array in (x, z, y):
        array.fill(1)
    moved = arrays * 4 * numbers * threads

    def run(rounds):
        if threads > 1:
            launch(threads, THREADS_PAY, x, z, y, numbers, rounds)
        else:
            launch.in_turn(1, x, z, y, numbers, rounds)

    run(1)
    rounds = 1
    while _seconds(run, rounds) < STRETCH:
        rounds *= 2
    return moved * rounds / min(_seconds(run, rounds) for _ in range(SAMPLES)) * 1e-9


def _microseconds(call):
    """Of one call, the median of many."""
    for _ in range(100):
        call()
    return float(np.median([_seconds(call) for _ in range(1000)])) * 1e6
