"""The parts of gpu-check by name, each a list of tasks (worker.py)."""

from ...nn import gpu
from . import contract, timings, training
from .machine import describe
from .worker import row

CONTRACT, MACHINE, PROGRAMS, TIMINGS = "contract", "machine", "programs", "timings"


def names() -> list[str]:
    """Of all parts but the machine; those of the contract are families of operations."""
    return [*([] if contract.missing() else contract.families()), PROGRAMS, TIMINGS]


def tasks(part, quick, match=None) -> list:
    """Those of a part; of the timings, the limits and those whose name begins with one of `match`."""
    found = _tasks(part, quick)
    return [task for task in found if match is None or task[0].startswith((*timings.LIMITS, *match))]


def _tasks(part, quick):
    if part == MACHINE:
        return [(MACHINE, lambda: [row(MACHINE, "ok", **describe())])]
    simulated = gpu.simulated()
    if part == PROGRAMS:
        return training.tasks(quick, tiny=simulated)
    if part == TIMINGS:
        return [(TIMINGS, _no_times)] if simulated else timings.tasks(quick)
    return contract.tasks(part, small=quick or simulated)


def _no_times():
    return [row(TIMINGS, "not run", "times in a simulator mean nothing")]
