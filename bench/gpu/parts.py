"""The parts of gpu-check by name, each a list of tasks (worker.py)."""

from ...nn import gpu
from . import contract, timings, training
from .machine import describe
from .worker import SILENCE, row

CONTRACT, MACHINE, PROGRAMS, TIMINGS = "contract", "machine", "programs", "timings"
FIRST = "gemm"


def names() -> list[str]:
    """Of all parts but the machine, in their order; those of the contract are families of operations.

    What says most comes first, because a machine may be there for minutes only.
    """
    families = [] if contract.missing() else contract.families()
    first, others = ([name for name in families if (name == FIRST) == wanted] for wanted in (True, False))
    return [*first, PROGRAMS, *others, TIMINGS]


def silence(part) -> int:
    """Seconds without a word, after which a process of this part counts as hanging."""
    return SILENCE if part in (MACHINE, PROGRAMS, TIMINGS) else contract.SILENCE


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
