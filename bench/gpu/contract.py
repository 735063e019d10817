"""The contract on the device: every case x variant x dtype of every operation, forward and gradients.

The cases, and how results are held against the references, are those of tests/, which only a checkout has. Fresh arrays
start as bytes of 255, which are NaN in every dtype of floating point, so that an output a kernel forgot to write is
seen. Each point runs twice and must give the same bits, and inputs must stay as they were.
"""

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from ... import kernels
from ...kernels import arrays as device_arrays
from ...nn import devices, gpu
from .worker import row

SUPPORT = Path(__file__).resolve().parents[2] / "tests" / "support"
# The variants on tensor cores, with what they take (float32 as TF32), and the operations of which they alone take
# bfloat16.
NARROW, TAKE_BFLOAT16 = {"tensor": ("float32", "bfloat16"), "warpgroup": ("bfloat16",)}, ("matmul", "dense")
# As in worker.py; kernels of one case that have to be compiled take some seconds.
SILENCE = 60


class Point(NamedTuple):
    case: object  # a harness.Case
    variant: str | None  # None: the default
    dtype: str

    def __str__(self):
        return f"{self.case} {self.variant or 'default'} {self.dtype}"

    @property
    def group(self):
        """Points that hardly do well where others do not: of a variant, which operations of a family share, or of an
        operation's default."""
        return f"variant {self.variant}" if self.variant else f"the default of {self.case.op}"


def missing() -> str | None:
    """What to say where the cases are not there."""
    if (SUPPORT / "harness.py").is_file():
        return None
    return f"there is no {SUPPORT}: the cases come with a checkout and not with a wheel, run `python bench/gpu` in one"


@cache
def harness():
    """The module tests/support/harness.py."""
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    return importlib.import_module("harness")


def families() -> list[str]:
    """Folders of operations."""
    return sorted({harness().family(case.op) for case in harness().load_cases()})


def points(family=None, small=False) -> list[Point]:
    """Of one family or all; `small`: of the cases alone that are small enough for the simulator.

    Group by group: defaults, which everything else uses, come first, and what tensor cores do last.
    """
    groups = {}
    for case in harness().load_cases():
        if (case.simulate or not small) and family in (None, harness().family(case.op)):
            ladder = kernels.VARIANTS[case.op]["cuda"] if case.op in kernels.VARIANTS else ()
            for point in (Point(case, name, dtype) for name in (None, *ladder) for dtype in _dtypes(case.op, name)):
                groups.setdefault((point.variant in NARROW, point.variant is not None, point.group), []).append(point)
    return [point for key in sorted(groups, key=lambda key: key[:2]) for point in groups[key]]


def _dtypes(op, variant):
    narrow = variant in NARROW and op in TAKE_BFLOAT16 and takes_bfloat16()
    return (*harness().DTYPES, *(("bfloat16",) if narrow else ()))


def takes_bfloat16() -> bool:
    """Whether there are arrays of it: with ml_dtypes, and CuPy from 14 on."""
    if importlib.util.find_spec("ml_dtypes") is None:
        return False
    if gpu.simulated():
        return True
    try:
        import cupy
    except ImportError:
        return False
    return int(cupy.__version__.partition(".")[0]) >= 14


def tasks(family, small) -> list:
    return [(str(point), lambda point=point: [check(point)], point.group) for point in points(family, small)]


class Results(NamedTuple):
    """What one run gave, on the device; `refusal`: how it was refused, in which case the rest is what came before."""

    given: dict
    outputs: list
    douts: list = []
    gradients: list = []
    refusal: str | None = None


def run(point, place) -> Results:
    """One case from fresh arrays; place(array) brings one to the device."""
    case, known = point.case, harness()
    options = case.options if point.variant is None else {**case.options, "variant": point.variant}
    given = {name: None if array is None else place(array) for name, array in arrays(point).items()}
    if not given:  # a random draw, which is made beside an array
        options = {**options, "like": place(np.zeros(1, np.float32))}
    outputs = []
    try:
        outputs = known.flat(getattr(kernels, case.op)(*given.values(), **options))
        if case.inplace:
            outputs = [given[name] for name in case.inplace]
        if not case.wrt:
            return Results(given, outputs)
        trained, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options)
        douts = [place(dout) for dout in _drawn_like(known.flat(trained), point.dtype)]
        outputs = [*outputs, *known.flat(trained)]
        return Results(given, outputs, douts, list(known.run_backward(case, douts, saved)))
    except ValueError as error:
        if point.variant is None or f"variant is '{point.variant}'" not in str(error):
            raise
        return Results(given, outputs, refusal=str(error))


def arrays(point) -> dict:
    """The case's arguments, on the CPU."""
    return harness().arrays(point.case, _dtype(point.dtype))


def _dtype(name):
    if name == "bfloat16":
        import ml_dtypes  # NumPy does not know the name without

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _drawn_like(outputs, dtype):
    rng = np.random.default_rng(11)
    return [np.asarray(rng.uniform(-1, 1, np.shape(output)), _dtype(dtype)) for output in outputs]


def check(point) -> dict:
    """The row of one point. AssertionError for a wrong result."""
    with poisoned():
        first, second = run(point, _to_device), run(point, _to_device)
    if first.refusal and not _may_refuse(point, first.refusal):
        return row(str(point), "wrong", f"refused: {first.refusal}")
    error = _compare(point, first)
    assert _bits(first) == _bits(second), "two runs gave different bits"
    for name, array in arrays(point).items():
        if array is not None and name not in point.case.inplace:
            assert _host(first.given[name]).tobytes() == array.tobytes(), f"input {name} was changed"
    return row(str(point), "refused" if first.refusal else "ok", first.refusal or "", error=error)


def _may_refuse(point, text):
    """Shapes, of cases that do not say which they suit; dtypes; and GPUs other than the one that a variant is for."""
    too_narrow = point.variant in NARROW and point.dtype not in NARROW[point.variant]
    return point.variant in point.case.unsuited or not point.case.simulate or too_narrow or "the GPU is sm_" in text


@contextmanager
def poisoned():
    """Inside, fresh arrays on the device are full of NaN."""
    if gpu.simulated():
        owner, name, wrap = device_arrays._Simulated, "empty", staticmethod
    else:
        import cupy

        owner, name, wrap = cupy, "empty", lambda function: function
    empty = getattr(owner, name)

    def full(*args, **options):
        array = empty(*args, **options)
        if array.size:
            array.reshape(-1).view(np.uint8).fill(255)
        return array

    with mock.patch.object(owner, name, wrap(full)):
        yield


def _to_device(array):
    return devices.place(array, "cuda:0")


def _host(array):
    return np.asarray(devices.to_host(array))


def _bits(results):
    return [_host(array).tobytes() for array in (*results.outputs, *results.gradients) if array is not None]


def _wide(array):
    return array if array is None or array.dtype.kind in "iub" else array.astype(np.float64)


def _compare(point, results) -> float:
    """Holds all results against the reference; the largest error, relative to the largest number of its array."""
    case, known, errors = point.case, harness(), [0.0]
    wide = {name: _wide(array) for name, array in arrays(point).items()}
    expected = known.flat(known.reference(case.op)(*wide.values(), **case.options))
    for number, output in enumerate(results.outputs):
        want = expected[number % len(expected)]  # the outputs of training follow those of inference
        errors.append(_assert_close(point, output, want, f"output {number % len(expected)}"))
    if results.gradients:
        douts, options = [_wide(_host(dout)) for dout in results.douts], case.options
        if point.variant in NARROW and options.get("activation") == "relu":
            # A sum near zero may be rounded to its other side: the gradient starts from where it was found.
            douts, options = [np.where(_host(results.outputs[-1]) == 0, 0, *douts)], {**options, "activation": None}
        expected = known.reference(case.op, "_backward")(*douts, *wide.values(), **options)
        for name, got, want in zip(case.wrt, results.gradients, expected, strict=True):
            if wide[name] is not None:
                errors.append(_assert_close(point, got, want, f"gradient of {name}", gradient=True))
    return max(errors)


def _assert_close(point, got, want, what, gradient=False) -> float:
    got, want = _host(got), np.asarray(want)
    if point.variant in NARROW:
        _assert_near(point, got, want, what, gradient)
    else:
        harness().assert_close(got, want, point.case.length, what)
    both = np.isfinite(want) if want.dtype.kind == "f" else np.zeros(want.shape, bool)
    if not both.any():
        return 0.0
    scale = float(np.abs(want[both]).max())
    return float(np.abs(_wide(got)[both] - want[both]).max() / scale) if scale else 0.0


def _assert_near(point, got, want, what, gradient):
    """As exact as tensor cores are.

    bfloat16 keeps eight bits, to which a sum is rounded once (2^-8 of itself); TF32 keeps eleven of both factors (2^-10
    of a product, 2^-9 of the largest sum). A gradient through an activation starts from numbers so rounded: four times.
    """
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    finite = want[np.isfinite(want)]
    scale = np.abs(finite).max() if finite.size else 0.0
    further = 4 if gradient and point.case.options.get("activation") else 1
    if point.dtype == "bfloat16":
        rtol, atol = 2.0**-8, harness().tolerance(np.float32, point.case.length) if further == 1 else 2.0**-6
    elif point.dtype == "float32":
        rtol, atol = 0.0, 2.0**-9 * further
    else:
        rtol, atol = 1e-12, 1e-12
    np.testing.assert_allclose(_wide(got), want, rtol=rtol, atol=atol * scale, err_msg=what)
