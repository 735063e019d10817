"""All cases, one file a family, and which of them are asked for."""

from ...nn.utils import did_you_mean
from ..case import EXTENTS, Case
from . import activation, convolution, gemm, losses, optimizers, pooling, programs, randomness, recurrent

_FAMILIES = (gemm, convolution, pooling, recurrent, activation, losses, optimizers, randomness, programs)


def every() -> list[Case]:
    """All of them, in the order in which they are measured."""
    return [case for family in _FAMILIES for case in family.CASES]


def select(only: list[str], extent: str = "quick", dtype: str = "float32") -> list[Case]:
    """Those of a family ("gemm"), or whose name is or begins with one of `only` ("conv2d", "conv2d/forward").

    An empty `only` means all. Of these, what belongs to an extent, quick, full or survey; where a text names nothing in
    it, what it names in the next one that has some.
    """
    known = [case for case in every() if dtype in case.dtypes]
    found = set()
    for text in only or [""]:
        named = [case for case in known if not text or _matches(case, text)]
        if not named:
            names = dict.fromkeys(name for case in known for name in (case.family, case.op))
            raise ValueError(did_you_mean("bench: --only", text, list(names)))
        reach = max(EXTENTS.index(extent), min(EXTENTS.index(case.extent) for case in named))
        found |= {case for case in named if EXTENTS.index(case.extent) <= reach}
    return [case for case in known if case in found]


def _matches(case, text):
    return case.family == text or f"{case.name}/".startswith(f"{text}/")
