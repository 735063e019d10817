"""The main cases under pytest-benchmark: `pytest bench/`, with its own --benchmark-autosave, -compare and -histogram.

Every candidate is verified before it is timed and again after, as `handloom bench` does; a case is a group.
"""

import numpy as np
import pytest

from handloom.bench import cases, peers
from handloom.bench.measure import TOLERANCES, differs

DTYPE = "float32"
QUICK = cases.select([], "quick", DTYPE)


def _of(case):
    others = peers.PROGRAMS if case.family == "programs" else peers.OPERATIONS
    return [*case.variants, *(name for name in peers.installed() if name in others)]


@pytest.mark.parametrize(
    "case, who", [pytest.param(case, who, id=f"{case.name}-{who}") for case in QUICK for who in _of(case)]
)
def test_case(benchmark, case, who):
    work = case.make(np.dtype(DTYPE))
    if who in case.variants:
        candidate = work.ours(None if who == case.variants[-1] else who)
    else:
        found = work.peers[who]() if who in work.peers else {}
        if not found:
            pytest.skip(f"{who} does not know it")
        candidate = next(reversed(found.values()))  # of two memory formats channels_last, which is ours
    benchmark.group = case.name
    for when in ("before", "after"):
        candidate.call()
        if candidate.result is not None:  # random numbers of others are others
            wrong = differs(candidate, work.reference(), work.tolerance or TOLERANCES[DTYPE])
            assert wrong is None, f"{when} timing: {wrong}"
        if when == "before":
            benchmark(candidate.call)
