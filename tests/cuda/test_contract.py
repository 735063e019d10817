"""The CUDA kernels against the references, every operation x variant x dtype: few tiny cases.

In Numba's simulator (`make test-cuda`), and compiled (`make test-ptx`).
"""

import compiled
import numpy as np
import pytest
from harness import DTYPES, arrays, as_float64, assert_close, family, flat, load_cases, reference, run_backward

from handloom import kernels
from handloom.kernels import arrays as device_arrays

pytestmark = pytest.mark.usefixtures("kernels_run", "nan_filled_memory")

SIMULATED = [case for case in load_cases() if case.simulate]
# Rungs whose sums are less exact than their dtype have tests of their own: test_gemm.py, test_convolution.py.
ELSEWHERE = {(op, variant) for op in ("matmul", "dense") for variant in ("tensor", "warpgroup")}
ELSEWHERE |= {("conv2d", "tensor"), ("conv2d", "winograd")}


# The simulator is slow, and runs the same Python for both.
SOME_DTYPES = DTYPES if compiled.COMPILED else ("float32",)


def suits(case, variant):
    """A thread that walks a long row alone is hundreds of thousands of steps, for compiled code each one of NumPy's."""
    long = compiled.COMPILED and case.id == "long-row" and variant in ("three-pass", "online")
    return (case.op, variant) not in ELSEWHERE and not long


def together(case, dtype):
    """Where tests run side by side, one process compiles what the cases of a family need."""
    return pytest.mark.xdist_group(f"{family(case.op)}-{dtype}")


POINTS = [
    pytest.param(case, variant, dtype, id=f"{case}-{variant}-{dtype}", marks=together(case, dtype))
    for case in SIMULATED
    for variant in (kernels.VARIANTS[case.op]["cuda"] if case.op in kernels.VARIANTS else (None,))
    if suits(case, variant)
    for dtype in SOME_DTYPES
]


def on_device(array):
    return None if array is None else device_arrays.simulated(array)


def options(case, variant):
    return case.options if variant is None else {**case.options, "variant": variant}


def assert_on_device(results):
    assert all(isinstance(result, device_arrays.SimulatedArray) for result in results if result is not None)


@pytest.mark.parametrize("case, variant, dtype", POINTS)
def test_kernels_follow_the_reference(case, variant, dtype):
    """Forward and, where there is one, backward; inputs stay as they were.

    Where there is a backward, the operation is called without `_forward` in float32 alone: the simulator is slow.
    """
    alone = dtype == "float32" or not case.wrt
    given = {name: on_device(array) for name, array in arrays(case, dtype).items()}
    before = {name: None if array is None else array.copy() for name, array in given.items()}
    on_host = {name: None if array is None else np.asarray(array) for name, array in before.items()}
    expected = flat(reference(case.op)(*as_float64(on_host).values(), **case.options))
    run = getattr(kernels, case.op if alone else f"{case.op}_forward")
    try:
        outputs = run(*given.values(), **options(case, variant))
    except ValueError as error:
        assert variant in case.unsuited, error
        assert f"variant is '{variant}'" in str(error)
        return
    assert variant not in case.unsuited
    if not alone:
        outputs, saved = outputs
    found = flat(outputs) if not case.inplace else [given[name] for name in case.inplace]
    assert_on_device(found)
    for number, (got, want) in enumerate(zip(found, expected, strict=True)):
        assert_close(np.asarray(got), want, case.length, f"{case} output {number}")
    if case.wrt:
        if alone:
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
