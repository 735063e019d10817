"""From a case to its rows: verify, time, verify again."""

import time
from dataclasses import asdict, dataclass, field

import numpy as np

from ..kernels import limits
from . import peers
from .case import Candidate, Case
from .timing import Effort, interleave

OURS = "handloom"
# Allowed differences from the reference, as shares of its largest magnitude.
TOLERANCES = {"float32": 1e-4, "float64": 1e-10}


@dataclass
class Row:
    """One variant of one case, and its peers: medians and more in microseconds by candidate, ours under "handloom"."""

    name: str
    family: str
    op: str
    way: str
    case: str
    variant: str
    default: bool
    dtype: str
    us: dict = field(default_factory=dict)
    p20_p80: dict = field(default_factory=dict)
    cpu_us: dict = field(default_factory=dict)
    first_s: dict = field(default_factory=dict)
    flops: int = 0
    bytes: int = 0
    gflops: float | None = None
    gbs: float | None = None
    limit: str | None = None
    share: float | None = None
    ratio: float | None = None
    wrong: str | None = None
    command: str = ""

    def as_dict(self) -> dict:
        return {("pass" if name == "way" else name): value for name, value in asdict(self).items()}


class Suite:
    """What all cases of a run share; `not_measured` gathers what had to be left out, and why."""

    def __init__(self, found: dict, threads: int, effort: Effort, dtype: str, asked: list[str]):
        self.limits, self.threads, self.effort, self.dtype = found, threads, effort, dtype
        self.peers = [name for name in peers.installed() if name in asked]
        self.not_measured = [f"{name}: not installed" for name in asked if name not in self.peers]

    def rows(self, case: Case) -> list[Row]:
        """The rows of one case, a row for each variant; its peers are timed once, with all of them."""
        work = case.make(np.dtype(self.dtype))
        rows = {name: self._row(case, name, work) for name in case.variants}
        ours = {name: work.ours(None if row.default else name) for name, row in rows.items()}
        first = {name: _seconds(candidate.call) for name, candidate in ours.items()}
        expected = work.reference()
        for name, row in rows.items():
            row.wrong = differs(ours[name], expected, self._tolerance(work))
        candidates = {name: candidate for name, candidate in ours.items() if rows[name].wrong is None}
        if not candidates:
            return list(rows.values())
        others = self._others(case, work, expected, first)
        samples = interleave({name: one.call for name, one in (candidates | others).items()}, self.effort)
        expected = work.reference()  # of programs, whose weights have changed
        others = {name: one for name, one in others.items() if self._agrees(case, name, one, expected, work)}
        for variant, candidate in candidates.items():
            row = rows[variant]
            row.wrong = differs(candidate, expected, self._tolerance(work))
            if row.wrong is None:
                mine = {OURS: samples[variant]} | {name: samples[name] for name in others}
                self._fill(row, mine, work.steps, {OURS: first[variant], **{name: first[name] for name in others}})
        return list(rows.values())

    def _row(self, case, variant, work):
        default = variant == case.variants[-1]
        command = f"handloom bench --only {case.name} --threads {self.threads}"
        command += "" if self.dtype == "float32" else f" --dtype {self.dtype}"
        return Row(
            case.name, case.family, case.op, case.way, case.case, variant, default, self.dtype,
            flops=work.flops, bytes=work.bytes, command=command,
        )  # fmt: skip

    def _others(self, case, work, expected, first) -> dict[str, Candidate]:
        """The peers' candidates that agree with the reference; whoever does not is left out, aloud."""
        found = {}
        for package in self.peers:
            try:
                made = work.peers[package]() if package in work.peers else {}
                for name, candidate in made.items():
                    first[name] = _seconds(candidate.call)
            except Exception as error:  # whatever goes wrong in there, our own figures stand
                self.not_measured.append(f"{case.name}: {package}: {type(error).__name__}: {str(error)[:200]}")
                continue
            found |= made
        return {name: one for name, one in found.items() if self._agrees(case, name, one, expected, work)}

    def _agrees(self, case, name, candidate, expected, work):
        if candidate.result is None:  # random numbers, which are others than ours
            return True
        wrong = differs(candidate, expected, self._tolerance(work))
        if wrong:
            self.not_measured.append(f"{case.name}: {name}: {wrong}")
        return wrong is None

    def _tolerance(self, work):
        return work.tolerance or TOLERANCES[self.dtype]

    def _fill(self, row, samples, steps, first):
        for name, sample in samples.items():
            row.us[name] = sample.p50 * 1e6 / steps
            row.p20_p80[name] = [sample.p20 * 1e6 / steps, sample.p80 * 1e6 / steps]
            row.cpu_us[name] = sample.cpu * 1e6 / steps
            row.first_s[name] = first[name]
        ours, *theirs = row.us.values()
        row.gflops = row.flops / ours / 1e3 if row.flops else None
        row.gbs = row.bytes / ours / 1e3 if row.bytes else None
        row.ratio = min(theirs) / ours if theirs else None
        itemsize = np.dtype(self.dtype).itemsize
        seconds, row.limit = limits.attainable(self.limits, self.threads, row.flops, row.bytes, itemsize)
        row.share = seconds * 1e6 / ours


def differs(candidate: Candidate, expected, tolerance: float) -> str | None:
    """None where a candidate's result is the reference's, within the tolerance times the largest magnitude."""
    try:
        found = candidate.result()
    except ValueError as error:
        return f"the result cannot be read: {error}"
    wrong = _difference(found, expected, tolerance)
    return wrong and f"{wrong} from the reference"


def agree(results: dict, tolerance: float) -> str | None:
    """None where all results are the same, within the tolerance times the largest magnitude; else who differs."""
    (first, expected), *others = results.items()
    if not all(np.isfinite(part).all() for part in _parts(expected)):
        return f"{first} is not finite"
    for name, found in others:
        if wrong := _difference(found, expected, tolerance):
            return f"{name} {wrong} from {first}"
    return None


def _difference(found, expected, tolerance):
    ours, theirs = _parts(found), _parts(expected)
    if [part.shape for part in ours] != [part.shape for part in theirs]:
        return f"differs in shape, {[part.shape for part in ours]} and {[part.shape for part in theirs]},"
    for one, other in zip(ours, theirs):
        error = np.abs(one.astype(np.float64) - other).max(initial=0.0)
        scale = np.abs(other).max(initial=0.0) + 1e-30
        if not error <= tolerance * scale:  # also where one is not finite
            return f"differs by {error / scale:.1e} of the largest magnitude"
    return None


def _parts(result):
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def _seconds(call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def geometric_mean(ratios) -> float:
    """The mean that treats twice as fast and half as fast alike."""
    return float(np.exp(np.mean(np.log(ratios))))


def verdict(ratio: float) -> str:
    """Where we stand: level within 5 %."""
    return "ahead" if ratio > 1.05 else "behind" if ratio < 0.95 else "level"
