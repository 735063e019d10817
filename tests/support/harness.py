"""The cases of an operation, and the generated checks that every operation goes through (see test_contract.py).

An operation joins by a file in `cases/` with a list CASES; nothing else. Its reference is looked up under the same
name in its folder's `reference.py`:

    reference.op(*arrays, **options) -> outputs                       an array, or a (nested) tuple of them
    reference.op_backward(*douts, *arrays, **options) -> gradients    one for each differentiable input, in order
"""

import runpy
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from handloom import kernels

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Case:
    """One call of one operation.

    make(rng, dtype) gives the array arguments by name, in the order of the signature (None allowed).
    """

    op: str
    id: str
    make: Callable
    options: dict = field(default_factory=dict)
    # Names of the differentiable inputs, in the order of the gradients.
    wrt: tuple = ()
    # Terms in the longest sum: it sets the tolerance.
    length: int = 1
    # Inputs that the operation overwrites (optimizer updates); the reference returns their new values in this order.
    inplace: tuple = ()
    # How outputs' gradients are handed to op_backward, where that is not op_backward(dout, saved, needs).
    backward: Callable | None = None
    # Variants that suit this case; None means all.
    variants: tuple | None = None
    # NaN in an input must appear in the output where the reference has it; off for operations that only compare.
    nan: bool = True
    # Variants in which NaN may reach more than the reference says.
    spreads: tuple = ()
    # Smooth enough for finite differences at the drawn point.
    smooth: bool = True
    # Small enough for the simulator, where every thread of a block is a thread of Python.
    simulate: bool = False
    # Variants on a GPU that refuse this case.
    unsuited: tuple = ()
    # Bytes of workspace that the docstrings state, as workspace(variant, *arrays) -> (forward, backward).
    workspace: Callable = lambda variant, *arrays: (0, 0)

    def __str__(self):
        return f"{self.op}-{self.id}"


def load_cases() -> list[Case]:
    """The cases of every file in cases/."""
    folder = Path(__file__).parents[1] / "kernels" / "cases"
    cases = []
    for file in sorted(folder.glob("*.py")):
        cases += runpy.run_path(str(file))["CASES"]
    return cases


def family(op: str) -> str:
    """The folder that an operation lives in, from the module its function was defined in."""
    return getattr(kernels, op).__module__.split(".")[2]


def reference(op: str, suffix: str = "") -> Callable:
    return getattr(import_module(f"handloom.kernels.{family(op)}.reference"), op + suffix)


def arrays(case: Case, dtype: str) -> dict:
    """The case's arguments: the same numbers in every dtype, up to rounding."""
    drawn = case.make(np.random.default_rng(7), np.dtype(dtype))
    return {name: None if array is None else np.ascontiguousarray(array) for name, array in drawn.items()}


def flat(outputs) -> list:
    """The arrays of a (nested) tuple of outputs, in order."""
    if isinstance(outputs, tuple):
        return [array for output in outputs for array in flat(output)]
    return [outputs]


def as_float64(named: dict) -> dict:
    return {k: v.astype(np.float64) if v is not None and v.dtype.kind == "f" else v for k, v in named.items()}


def tolerance(dtype, length: int) -> float:
    """Allowed error relative to the largest magnitude: rounding grows with the root of the sum's length."""
    return float(np.finfo(dtype).eps) * (16 + 4 * length**0.5)


def assert_close(actual, expected, length: int, what: str) -> None:
    """Same shape, NaN and Inf in the same places, everything else within the tolerance."""
    actual = np.asarray(actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if actual.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        return
    finite = expected[np.isfinite(expected)]
    scale = np.abs(finite).max() if finite.size else 0.0
    rtol = tolerance(actual.dtype, length)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


def run_backward(case: Case, douts: list, saved, needs=None):
    """The operation's gradients from the gradients of its outputs."""
    function = getattr(kernels, f"{case.op}_backward")
    if case.backward is not None:
        return case.backward(function, douts, saved, needs)
    return function(douts[0], saved, needs)


def scattered(array):
    """The same numbers in memory with gaps, and the axes stored in reverse order."""
    if array is None or array.ndim == 0:
        return array
    wide = np.zeros(tuple(2 * n + 1 for n in array.shape[::-1]), array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)].transpose()
    view[...] = array
    return view


class Elsewhere:
    """Stands for a CuPy array where there is no GPU: what one may ask it, and nothing to compute with."""

    def __init__(self, array):
        self.dtype, self.shape, self.ndim, self.size = array.dtype, array.shape, array.ndim, array.size


Elsewhere.__module__ = "cupy"


def extra_memory(call, *known) -> int:
    """Bytes that call() takes at its peak, without those of the arrays that it returns and that are not in `known`.

    It runs in a fresh thread, which has no scratch memory yet; what is compiled or kept for all threads is there.
    """
    call()

    def measured():
        tracemalloc.start()
        try:
            results = [x for x in flat(call()) if isinstance(x, np.ndarray)]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        old = {_place(x) for x in flat(known) if x is not None}
        return peak - sum({_place(x): x.nbytes for x in results if _place(x) not in old}.values())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(measured).result()


def _place(array):
    return array.__array_interface__["data"][0]
