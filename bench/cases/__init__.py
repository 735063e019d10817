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

    An empty `only` means all. Without `full` these are the quick ones, and where a text names none of them, the others.
    """
    known = [case for case in every() if dtype in case.dtypes]
    found = []
    for text in only or [""]:
        named = [case for case in known if not text or _matches(case, text)]
        if not named:
            names = dict.fromkeys(name for case in known for name in (case.family, case.op))
            raise ValueError(did_you_mean("bench: --only", text, list(names)))
        found += named if full else [case for case in named if case.quick] or named
    return [case for case in known if case in found]


def _matches(case, text):
    return case.family == text or f"{case.name}/".startswith(f"{text}/")
