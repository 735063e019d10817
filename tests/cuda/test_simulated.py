"""The CUDA kernels against the references, in Numba's simulator: few tiny cases, every operation x variant x dtype.

The simulator is chosen when a process starts, so these are tests of a run of their own: `make test-cuda`.
"""

import numpy as np
import pytest
from harness import DTYPES, arrays, as_float64, assert_close, flat, load_cases, reference, run_backward
from numba.core import config

from handloom import kernels
from handloom.kernels import arrays as device_arrays

pytestmark = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator: make test-cuda runs these")

SIMULATED = [case for case in load_cases() if case.simulate]
POINTS = [
    pytest.param(case, variant, dtype, id=f"{case}-{variant}-{dtype}")
    for case in SIMULATED
    for variant in (kernels.VARIANTS[case.op]["cuda"] if case.op in kernels.VARIANTS else (None,))
    for dtype in DTYPES
]


@pytest.fixture(autouse=True)
def nan_filled_memory(monkeypatch):
    """Fresh arrays start as NaN, so that an output a kernel forgot to write is seen."""
    empty = device_arrays._Simulated.empty

    def poisoned(shape, dtype):
        array = empty(shape, dtype)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(device_arrays._Simulated, "empty", staticmethod(poisoned))


def on_device(array):
    return None if array is None else device_arrays.simulated(array)


def options(case, variant):
    return case.options if variant is None else {**case.options, "variant": variant}


def assert_on_device(results):
    assert all(isinstance(result, device_arrays.SimulatedArray) for result in results if result is not None)


@pytest.mark.parametrize("case, variant, dtype", POINTS)
def test_kernels_follow_the_reference(case, variant, dtype):
    """Forward and, where there is one, backward; inputs stay as they were."""
    given = {name: on_device(array) for name, array in arrays(case, dtype).items()}
    before = {name: None if array is None else array.copy() for name, array in given.items()}
    on_host = {name: None if array is None else np.asarray(array) for name, array in before.items()}
    expected = flat(reference(case.op)(*as_float64(on_host).values(), **case.options))
    try:
        outputs = getattr(kernels, case.op)(*given.values(), **options(case, variant))
    except ValueError as error:
        assert variant in case.unsuited, error
        assert f"variant is '{variant}'" in str(error)
        return
    assert variant not in case.unsuited
    found = flat(outputs) if not case.inplace else [given[name] for name in case.inplace]
    assert_on_device(found)
    for number, (got, want) in enumerate(zip(found, expected, strict=True)):
        assert_close(np.asarray(got), want, case.length, f"{case} output {number}")
    if case.wrt:
        outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
        rng = np.random.default_rng(11)
        douts = [on_device(np.asarray(rng.uniform(-1, 1, output.shape), dtype)) for output in flat(outputs)]
        wide = [np.asarray(dout, np.float64) for dout in douts]
        expected = reference(case.op, "_backward")(*wide, *as_float64(on_host).values(), **case.options)
        gradients = run_backward(case, douts, saved)
        assert_on_device(gradients)
        for name, got, want in zip(case.wrt, gradients, expected, strict=True):
            if given[name] is not None:
                assert_close(np.asarray(got), want, case.length, f"{case} gradient of {name}")
    for name, array in before.items():
        if name not in case.inplace:
            np.testing.assert_array_equal(given[name], array, err_msg=f"{case} changed its input {name}")
