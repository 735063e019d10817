"""What a benchmark is made of: a case, the candidates that compute it, and the reference that says what is right.

A `Case` is a name until `make` draws its arrays. Most are one pass of one operation (`Pass`), from which follow our
own call, the reference's, and those of the peers that know the operation (peers/).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from importlib import import_module

import numpy as np

from .. import kernels


@dataclass
class Candidate:
    """Someone who computes a case. `result` gives what is compared, by default the array that `call` returned last."""

    call: Callable[[], object]
    result: Callable[[], object]


def keeping(call: Callable[[], object], read: Callable = np.asarray) -> Candidate:
    """A candidate whose last result is kept; `read` makes a NumPy array of it, or a tuple of them, in our layout."""
    kept = []

    def run():
        kept[:] = [call()]

    return Candidate(run, lambda: read(kept[0]))


@dataclass
class Work:
    """A case with its arrays.

    ours(variant) and each of peers[package]() make candidates, the latter {name: candidate} with names that begin with
    the package's. flops and bytes are what the algorithm has to do and to move: a multiply-add counts two, an
    exponential one, every array that is needed is read or written once. A call does `steps` of what is reported.
    """

    ours: Callable[[str | None], Candidate]
    reference: Callable[[], object]
    peers: dict[str, Callable[[], dict[str, Candidate]]] = field(default_factory=dict)
    flops: int = 0
    bytes: int = 0
    steps: int = 1
    tolerance: float | None = None


# Sets of cases, each with those before it.
EXTENTS = ("quick", "full", "survey")


@dataclass(frozen=True, eq=False)
class Case:
    """`make(dtype)` gives the work. A case with a ladder is timed in every variant that its operation has."""

    family: str
    op: str
    way: str  # which pass: "forward", "backward", ..., or nothing
    case: str
    make: Callable[[np.dtype], Work]
    quick: bool = False
    survey: bool = False  # one of very many, in a grid of sizes or among the layers of a network
    ladder: bool = False
    dtypes: tuple = ("float32", "float64")

    @property
    def name(self) -> str:
        """What `--only` picks it by."""
        return "/".join(part for part in (self.op, self.way, self.case) if part)

    @property
    def extent(self) -> str:
        """The smallest set that it is in."""
        return "quick" if self.quick else "survey" if self.survey else "full"

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of what is timed of ours; the last is the default."""
        names = tuple(kernels.VARIANTS[self.op]["cpu"]) if self.op in kernels.VARIANTS else ("default",)
        return names if self.ladder else names[-1:]


@dataclass(frozen=True, eq=False)
class Pass:
    """One pass of one operation over arrays: forward, or backward from `dy` to the gradients of arrays[i], i in wrt."""

    op: str
    arrays: tuple
    options: dict = field(default_factory=dict)
    dy: np.ndarray | None = None
    wrt: tuple = ()
    needs: tuple | None = None  # where not all gradients are asked for

    def ours(self, variant: str | None) -> Candidate:
        """Our own call; of backward passes, without the forward pass before them."""
        options = self.options if self.op not in kernels.VARIANTS else {**self.options, "variant": variant}
        if not self.wrt:
            return keeping(partial(getattr(kernels, self.op), *self.arrays, **options), first)
        _, saved = getattr(kernels, f"{self.op}_forward")(*self.arrays, **options)
        backward = getattr(kernels, f"{self.op}_backward")
        return keeping(partial(backward, self.dy, saved, self.needs), self._wanted)

    def reference(self):
        """The same in plain NumPy."""
        return _reference(self)

    def _wanted(self, gradients):
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        return tuple(np.asarray(gradients[i]) for i in self.wrt)

    def work(self, flops: int, moved: int, **options) -> Work:
        """The work of this pass, with the peers that know it."""
        from . import peers

        return Work(self.ours, self.reference, peers.of(self), flops, moved, **options)


@lru_cache(maxsize=1)
def _reference(step: Pass):
    family = getattr(kernels, step.op).__module__.split(".")[2]
    module = import_module(f"..kernels.{family}.reference", __package__)
    if not step.wrt:
        return first(getattr(module, step.op)(*step.arrays, **step.options))
    dys = (step.dy, 0.0, 0.0) if step.op == "lstm" else (step.dy,)  # nothing arrives at the last state
    return step._wanted(getattr(module, f"{step.op}_backward")(*dys, *step.arrays, **step.options))


def more(cases: list[Case], survey) -> list[Case]:
    """The cases, and those of the survey that are not among them, all by their names."""
    names = {case.name for case in cases}
    return cases + [replace(case, survey=True) for case in survey if case.name not in names]


def first(result):
    """The output: of an LSTM, without its last state."""
    return np.asarray(result[0] if isinstance(result, tuple) else result)


def draw(shape, dtype, seed: int = 0, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """The same numbers at every call, uniform."""
    return np.random.default_rng((seed, *np.atleast_1d(shape))).uniform(low, high, shape).astype(dtype)


def size_of(*arrays) -> int:
    """Bytes."""
    return sum(array.nbytes for array in arrays)
