"""Every operation x variant x dtype x case goes through the same checks against its NumPy reference."""

import inspect

import numba
import numpy as np
import pytest
from harness import (
    DTYPES,
    arrays,
    as_float64,
    assert_close,
    flat,
    load_cases,
    reference,
    run_backward,
    scattered,
)

from handloom import kernels

CASES = load_cases()


def variants_of(case):
    """Names of the variants that a case runs through; operations without a ladder have one unnamed variant."""
    if case.op not in kernels.VARIANTS:
        return (None,)
    names = tuple(kernels.VARIANTS[case.op]["cpu"])
    return names if case.variants is None else tuple(name for name in names if name in case.variants)


def options(case, variant):
    return case.options if variant is None else {**case.options, "variant": variant}


POINTS = [
    pytest.param(case, variant, dtype, id=f"{case}-{variant}-{dtype}")
    for case in CASES
    for variant in variants_of(case)
    for dtype in DTYPES
]
TRIPLES = [point for point in POINTS if point.values[0].wrt]


@pytest.fixture(autouse=True)
def nan_filled_memory(monkeypatch):
    """Fresh arrays start as NaN, so that an output a kernel forgot to write is seen."""

    def poisoned(make):
        def fresh(*args, **kwargs):
            array = make(*args, **kwargs)
            if array.dtype.kind == "f":
                array.fill(np.nan)
            return array

        return fresh

    monkeypatch.setattr(np, "empty", poisoned(np.empty))
    monkeypatch.setattr(np, "empty_like", poisoned(np.empty_like))


def expected_outputs(case, given):
    return flat(reference(case.op)(*as_float64(given).values(), **case.options))


def douts_for(outputs, dtype):
    rng = np.random.default_rng(11)
    return [np.asarray(rng.uniform(-1, 1, np.shape(output)), dtype) for output in outputs]


@pytest.mark.parametrize("case, variant, dtype", POINTS)
def test_forward_follows_the_reference(case, variant, dtype):
    given = arrays(case, dtype)
    expected = expected_outputs(case, given)
    before = {name: None if a is None else a.copy() for name, a in given.items()}
    outputs = getattr(kernels, case.op)(*given.values(), **options(case, variant))
    if case.inplace:
        assert outputs is None
        outputs = tuple(given[name] for name in case.inplace)
    actual = flat(outputs)
    assert len(actual) == len(expected)
    for number, (got, want) in enumerate(zip(actual, expected)):
        if np.asarray(got).dtype.kind == "f" and "dtype" not in case.options:
            assert np.asarray(got).dtype == dtype
        assert_close(got, want, case.length, f"{case} output {number}")
    for name, array in before.items():
        if name not in case.inplace:
            np.testing.assert_array_equal(given[name], array, err_msg=f"{case} changed its input {name}")


@pytest.mark.parametrize("case, variant, dtype", TRIPLES)
def test_gradients_follow_the_reference(case, variant, dtype):
    given = arrays(case, dtype)
    before = {name: None if a is None else a.copy() for name, a in given.items()}
    outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
    plain = getattr(kernels, case.op)(*given.values(), **options(case, variant))
    for got, want in zip(flat(outputs), flat(plain)):
        np.testing.assert_array_equal(got, want, err_msg=f"{case}: forward for training differs from inference")
    douts = douts_for(flat(outputs), dtype)
    wide = [dout.astype(np.float64) for dout in douts]
    expected = reference(case.op, "_backward")(*wide, *as_float64(given).values(), **case.options)
    gradients = run_backward(case, douts, saved)
    assert type(gradients) is tuple and len(gradients) == len(case.wrt)
    for name, got, want in zip(case.wrt, gradients, expected, strict=True):
        if given[name] is None:
            assert got is None, f"{case}: a gradient for the missing {name}"
            continue
        assert got.dtype == dtype
        assert_close(got, want, case.length, f"{case} gradient of {name}")
    for position, name in enumerate(case.wrt):
        needs = tuple(i == position for i in range(len(case.wrt)))
        only = run_backward(case, douts, saved, needs)
        assert all(g is None for i, g in enumerate(only) if i != position), f"{case}: a gradient nobody asked for"
        if given[name] is not None:
            np.testing.assert_array_equal(only[position], gradients[position], err_msg=f"{case}: d{name} alone")
    for name, array in before.items():
        np.testing.assert_array_equal(given[name], array, err_msg=f"{case} changed its input {name}")


@pytest.mark.parametrize("case, variant, dtype", [p for p in POINTS if not p.values[0].inplace])
def test_strided_inputs_give_the_same(case, variant, dtype):
    given = arrays(case, dtype)
    plain = flat(getattr(kernels, case.op)(*given.values(), **options(case, variant)))
    strided = [scattered(array) for array in given.values()]
    for got, want in zip(flat(getattr(kernels, case.op)(*strided, **options(case, variant))), plain):
        assert_close(got, want, case.length, f"{case} on strided inputs")


@pytest.mark.parametrize("case, variant, dtype", [p for p in POINTS if p.values[0].nan and not p.values[0].inplace])
def test_nan_shows_where_the_reference_has_it(case, variant, dtype):
    given = arrays(case, dtype)
    for name, array in given.items():
        if array is None or array.dtype.kind != "f" or array.size == 0:
            continue
        spoiled = {**given, name: array.copy()}
        spoiled[name].flat[array.size // 2] = np.nan
        with np.errstate(invalid="ignore"):
            expected = expected_outputs(case, spoiled)
        for got, want in zip(flat(getattr(kernels, case.op)(*spoiled.values(), **options(case, variant))), expected):
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=f"{case}: NaN in {name}")


@pytest.mark.parametrize("case, variant, dtype", POINTS)
def test_one_and_two_threads_give_the_same_bits(case, variant, dtype, monkeypatch):
    monkeypatch.setattr("handloom.kernels.threads.THREADS_PAY", 0)
    results = []
    for threads in (1, 2):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            given = arrays(case, dtype)
            outputs = getattr(kernels, case.op)(*given.values(), **options(case, variant))
            found = flat(outputs) if not case.inplace else [given[name] for name in case.inplace]
            if case.wrt:
                outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
                found += run_backward(case, douts_for(flat(outputs), dtype), saved)
        finally:
            numba.set_num_threads(before)
        results.append(found)
    for one, two in zip(*results, strict=True):
        assert one is two is None or np.asarray(one).tobytes() == np.asarray(two).tobytes(), f"{case}: bits differ"


@pytest.mark.parametrize("case", [c for c in CASES if c.wrt and c.smooth], ids=str)
def test_reference_follows_finite_differences(case):
    """Along one random direction for each input, central differences in float64."""
    given = arrays(case, "float64")
    forward, backward = reference(case.op), reference(case.op, "_backward")
    douts = douts_for(flat(forward(*given.values(), **case.options)), "float64")
    gradients = backward(*douts, *given.values(), **case.options)
    step = 1e-6
    for name, gradient in zip(case.wrt, gradients, strict=True):
        if given[name] is None:
            continue
        direction = np.random.default_rng(13).uniform(-1, 1, given[name].shape)

        def value(shift, name=name, direction=direction):
            moved = {**given, name: given[name] + shift * direction}
            return sum(np.sum(o * d) for o, d in zip(flat(forward(*moved.values(), **case.options)), douts))

        numeric = (value(step) - value(-step)) / (2 * step)
        analytic = np.sum(gradient * direction)
        scale = np.sum(np.abs(gradient * direction)) + 1e-3
        assert abs(numeric - analytic) <= 1e-6 * scale, f"{case}: d{name} is {analytic}, differences say {numeric}"


@pytest.mark.parametrize("op", sorted({case.op for case in CASES if case.wrt}))
def test_the_three_functions_of_an_operation_agree_in_signature(op):
    plain, forward = (inspect.signature(getattr(kernels, name)).parameters for name in (op, f"{op}_forward"))
    assert [name for name in plain if name != "out"] == list(forward)
    assert list(inspect.signature(getattr(kernels, f"{op}_backward")).parameters)[1:3] == ["saved", "needs"]


def test_every_operation_has_cases():
    covered = {case.op for case in CASES}
    public = {name.removesuffix("_forward") for name in kernels.__all__ if name.endswith("_forward")}
    assert public <= covered, f"no cases for {sorted(public - covered)}"
    assert set(kernels.VARIANTS) <= covered
