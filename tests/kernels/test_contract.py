"""Every operation x variant x dtype x case goes through the same checks against its NumPy reference."""

import functools
import inspect
from pathlib import Path

import numba
import numpy as np
import pytest
from harness import (
    DTYPES,
    Elsewhere,
    arrays,
    as_float64,
    assert_close,
    extra_memory,
    flat,
    load_cases,
    reference,
    run_backward,
    scattered,
)
from processes import finish, start

from handloom import kernels
from handloom.kernels import threads
from handloom.kernels.dispatch import Variants
from handloom.kernels.store import cache_folder

CASES = load_cases()
SUPPORT = str(Path(__file__).parents[1] / "support")


def variants_of(case):
    """Names of the variants that a case runs through; operations without a ladder have one unnamed variant."""
    if case.op not in kernels.VARIANTS:
        return (None,)
    names = tuple(kernels.VARIANTS[case.op]["cpu"])
    return names if case.variants is None else tuple(name for name in names if name in case.variants)


def options(case, variant):
    return case.options if variant is None else {**case.options, "variant": variant}


def together(case, dtype):
    """Where tests run side by side, those that need the same kernels run in one process: another one would wait until
    they are compiled."""
    return pytest.mark.xdist_group(f"{getattr(kernels, case.op).__module__}-{dtype}")


def points(case, variants):
    return [
        pytest.param(case, variant, dtype, id=f"{case}-{variant}-{dtype}", marks=together(case, dtype))
        for variant in variants
        for dtype in DTYPES
    ]


def has_gradients(point):
    return bool(point.values[0].wrt)


POINTS = [point for case in CASES for point in points(case, variants_of(case))]
TRIPLES = [point for point in POINTS if has_gradients(point)]
# The way that arrays take for which nobody chooses: it may be one beside all variants.
UNCHOSEN = [point for case in CASES if case.op in kernels.VARIANTS for point in points(case, (None,))]
OPS = sorted({case.op for case in CASES})


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


@pytest.mark.parametrize("case, variant, dtype", POINTS + UNCHOSEN)
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


@pytest.mark.parametrize("case, variant, dtype", TRIPLES + [*filter(has_gradients, UNCHOSEN)])
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
def test_strided_arrays_give_the_same(case, variant, dtype):
    """Those that come in, and those that backward gets: what the forward pass saved, and the outputs' gradients."""
    given = arrays(case, dtype)
    plain = flat(getattr(kernels, case.op)(*given.values(), **options(case, variant)))
    strided = [scattered(array) for array in given.values()]
    for got, want in zip(flat(getattr(kernels, case.op)(*strided, **options(case, variant))), plain):
        assert_close(got, want, case.length, f"{case} on strided inputs")
    if case.wrt:
        douts = douts_for(plain, dtype)
        results = []
        for inputs, gradients in ((given.values(), douts), (strided, map(scattered, douts))):
            _, saved = getattr(kernels, f"{case.op}_forward")(*inputs, **options(case, variant))
            results.append(run_backward(case, list(gradients), saved))
        for name, want, got in zip(case.wrt, *results, strict=True):
            if want is not None:
                assert_close(got, want, case.length, f"{case} gradient of {name} from strided arrays")


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
            if variant in case.spreads:
                assert np.isnan(got)[np.isnan(want)].all(), f"{case}: NaN in {name} is lost"
            else:
                np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=f"{case}: NaN in {name}")


@pytest.mark.parametrize("case, variant, dtype", [p for p in TRIPLES if p.values[0].nan])
def test_nan_in_a_gradient_reaches_all_that_this_gradient_goes_into(case, variant, dtype):
    """In the reference, that is: what is not zero for a gradient of one there and zero elsewhere.

    NaN stands at the largest output, where relu and dropout let it through.
    """
    given = arrays(case, dtype)
    outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
    for position, output in enumerate(flat(outputs)):
        if not output.size:
            continue
        douts = douts_for(flat(outputs), dtype)
        unit = [np.zeros(dout.shape) for dout in douts]
        douts[position].flat[output.argmax()], unit[position].flat[output.argmax()] = np.nan, 1
        reached = reference(case.op, "_backward")(*unit, *as_float64(given).values(), **case.options)
        for name, got, share in zip(case.wrt, run_backward(case, douts, saved), reached, strict=True):
            if got is not None:
                assert np.isnan(got[share != 0]).all(), (
                    f"{case}: NaN of output {position} is lost on its way to d{name}"
                )


def results_on(count, case, variant, dtype):
    """The bytes of all outputs and gradients, on this number of threads."""
    numba.set_num_threads(count)
    given = arrays(case, dtype)
    outputs = getattr(kernels, case.op)(*given.values(), **options(case, variant))
    found = flat(outputs) if not case.inplace else [given[name] for name in case.inplace]
    if case.wrt:
        outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
        found += run_backward(case, douts_for(flat(outputs), dtype), saved)
    return [None if array is None else np.asarray(array).tobytes() for array in found]


class Region:
    """In the place of the lock that whoever uses several threads holds: whether anybody has held it."""

    def __init__(self, lock):
        self.lock, self.release, self.entered = lock, lock.release, False

    def acquire(self, blocking):
        self.entered = True
        return self.lock.acquire(blocking)


def compare_numbers_of_threads():
    """Every operation x variant x dtype x case that threads share: those whose bits differ, and how many do not."""
    threads.THREADS_PAY, same = 0, 0
    threads._region = region = Region(threads._region)
    for point in POINTS:
        region.entered = False
        one = results_on(1, *point.values)
        if region.entered:
            if any(results_on(count, *point.values) != one for count in (2, 3, 7)):
                print(point.id)
            else:
                same += 1
    print(same)


def test_any_number_of_threads_gives_the_same_bits(tmp_path):
    """In a process that may have more threads than there are cores. The kernels come from the cache."""
    code = f"import runpy; runpy.run_path({__file__!r})['compare_numbers_of_threads']()"
    environment = {"NUMBA_NUM_THREADS": "8", "HANDLOOM_CACHE_DIR": str(cache_folder()), "PYTHONPATH": SUPPORT}
    out, _ = finish(start(code, tmp_path, **environment), timeout=1200)
    *differ, same = out.split()
    assert not differ, f"bits differ: {differ}"
    assert int(same) > 500


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


# Bytes of Python's own objects, and of what NumPy needs to broadcast.
SMALL = 8192


@pytest.mark.parametrize("op", OPS)
def test_no_operation_takes_more_memory_than_its_docstring_states(op):
    """Besides the arrays that it returns, in all cases that are large enough to tell."""

    def check(call, known, stated):
        taken = extra_memory(call, *known)
        assert taken <= stated + SMALL, (
            f"{case} {variant} {dtype}: {call.func.__name__} takes {taken} bytes, stated are {stated}"
        )

    measured = 0
    for case, variant, dtype in (point.values for point in POINTS if point.values[0].op == op):
        given = arrays(case, dtype)
        plain = functools.partial(getattr(kernels, op), *given.values(), **options(case, variant))
        seen = [array for array in (*given.values(), *flat(plain())) if array is not None]
        if sum(np.asarray(array).nbytes for array in seen) < 2 * SMALL:
            continue
        measured += 1
        forward, backward = case.workspace(variant, *given.values())
        check(plain, given.values(), forward)
        if case.wrt:
            training = functools.partial(getattr(kernels, f"{op}_forward"), *plain.args, **plain.keywords)
            check(training, given.values(), forward)
            outputs, saved = training()
            douts = douts_for(flat(outputs), dtype)
            for needs in (None, *np.eye(len(case.wrt), dtype=bool).tolist()):  # all gradients, and each alone
                check(functools.partial(run_backward, case, douts, saved, needs), douts, backward)
    assert measured, f"no case of {op} is large enough"


def first_case(op):
    """A case, and its arrays."""
    case = next(case for case in CASES if case.op == op)
    return case, arrays(case, "float32")


def calls_with(op, spoil):
    """Calls of an operation and its backward in which one array after another is spoilt: its name, and the call."""
    case, given = first_case(op)
    for name, array in given.items():
        if array is not None:
            spoilt = {**given, name: spoil(array)}
            yield name, functools.partial(getattr(kernels, op), *spoilt.values(), **case.options)
    if case.wrt:
        outputs, saved = getattr(kernels, f"{op}_forward")(*given.values(), **case.options)
        douts = douts_for(flat(outputs), "float32")
        for position, dout in enumerate(douts):
            spoilt = [*douts[:position], spoil(dout), *douts[position + 1 :]]
            yield r"d\w+", functools.partial(run_backward, case, spoilt, saved)


@pytest.mark.parametrize("op", OPS)
def test_lists_are_no_arrays(op):
    for name, call in calls_with(op, lambda array: [array]):
        with pytest.raises(TypeError, match=f"^{op}(_backward)?: {name} is a list: must be a "):
            call()


@pytest.mark.parametrize("op", OPS)
def test_no_operation_takes_arrays_of_another_device(op, monkeypatch):
    """Alone, for want of a kernel; beside others, because they lie apart; the gradient of a loss is but a number."""

    def of_cpu(ladder, device, variant):
        """As if there were kernels for the CPU alone, and others had not been found before."""
        return Variants(ladder._op, ladder._package, cpu=ladder["cpu"])._resolve(device, variant)

    monkeypatch.setattr(Variants, "launcher", of_cpu)
    for _, call in calls_with(op, Elsewhere):
        with pytest.raises(TypeError, match="no kernel for cuda arrays|: move one, for example|: must be a number"):
            call()
    case, given = first_case(op)
    if given:
        elsewhere = [None if array is None else Elsewhere(array) for array in given.values()]
        with pytest.raises(TypeError, match="no kernel for cuda arrays: there are kernels for cpu"):
            getattr(kernels, op)(*elsewhere, **case.options)


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
