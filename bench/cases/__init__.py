"""All cases, one file a family, and which of them are asked for."""

from ...nn.utils import did_you_mean
from ..case import Case
from . import activation, convolution, gemm, losses, optimizers, pooling, programs, randomness, recurrent

_FAMILIES = (gemm, convolution, pooling, recurrent, activation, losses, optimizers, randomness, programs)


def every() -> list[Case]:
    """All of them, in the order in which they are measured."""
    return [case for family in _FAMILIES for case in family.CASES]


def select(only: list[str], full: bool, dtype: str = "float32") -> list[Case]:
    """Those of a family ("gemm"), or whose name is or begins with one of `only` ("conv2d", "conv2d/forward").

    An empty `only` means all. Without `full` the quick ones alone are looked at.
    """
    found = [case for case in every() if (full or case.quick) and dtype in case.dtypes]
    for text in only:
        if not any(_matches(case, text) for case in every()):
            known = dict.fromkeys(name for case in every() for name in (case.family, case.op))
            raise ValueError(did_you_mean("bench: --only", text, list(known)))
    return [case for case in found if not only or any(_matches(case, text) for text in only)]


def _matches(case, text):
    return case.family == text or f"{case.name}/".startswith(f"{text}/")
