"""Activations beyond the generated contract: last places, limits, softmax's stability, error texts."""

import math

import numpy as np
import pytest
from ulp import spread, ulps

from handloom import kernels
from handloom.kernels import simd
from handloom.kernels.recording import Recording
from handloom.kernels.workspace import CACHES

WIDE = np.longdouble
erfc = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def times_sigmoid(x, z):
    """x sigmoid(z), zero at -Inf."""
    return np.where(np.isneginf(x), 0, x * sigmoid(z))


def gelu_tanh(x):
    return times_sigmoid(x, np.sqrt(8 / WIDE("3.14159265358979323846")) * (x + WIDE("0.044715") * x**3))


EXACT = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x < 0, x * WIDE(0.25), x),
    "elu": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "silu": lambda x: times_sigmoid(x, x),
    "gelu_tanh": gelu_tanh,
}
CALLS = {
    **{name: getattr(kernels, name) for name in EXACT if name != "gelu_tanh"},
    "leaky_relu": lambda x: kernels.leaky_relu(x, 0.25),
    "gelu_tanh": lambda x: kernels.gelu(x, approximate=True),
}

exact_tail = pytest.mark.skipif(not simd.HAS_FMA, reason="gelu's far tail needs fused multiply-add")


@pytest.mark.skipif(np.finfo(WIDE).eps == np.finfo(np.float64).eps, reason="longdouble is no wider than float64 here")
@pytest.mark.parametrize("dtype, limit", [(np.float32, 110), (np.float64, 760)])
@pytest.mark.parametrize("op", [*list(EXACT)[:-1], pytest.param("gelu_tanh", marks=exact_tail)])
def test_within_four_ulp(op, dtype, limit):
    x = spread(dtype, *((-limit / 9, limit / 9) if op == "gelu_tanh" else (-limit, limit)))
    with np.errstate(all="ignore"):
        exact = EXACT[op](x.astype(WIDE))
    distance = ulps(CALLS[op](x), exact)
    worst = distance.argmax()
    assert distance[worst] < 4, f"{op}({x[worst]!r}) is {CALLS[op](x[worst : worst + 1])}, not {exact[worst]}"


@exact_tail
def test_gelu_within_four_ulp():
    x = spread(np.float32, -15, 15)
    x = x[np.isfinite(x)]
    exact = x.astype(float) * erfc(-x.astype(float) / math.sqrt(2)) / 2
    assert ulps(kernels.gelu(x), exact).max() < 4


@exact_tail
def test_gelu_in_float64():
    """Far from zero the library's erfc is the worse one: rounding its argument costs it about x^2 units."""
    x = np.linspace(-37, 37, 10_001)
    exact = x * erfc(-x / math.sqrt(2)) / 2
    np.testing.assert_array_less(ulps(kernels.gelu(x), exact), 8 + 2 * x**2)


LIMITS = {
    # op: values at -Inf and Inf, slopes there
    "relu": (0, np.inf, 0, 1),
    "leaky_relu": (-np.inf, np.inf, 0.2, 1),
    "elu": (-1, np.inf, 0, 1),
    "sigmoid": (0, 1, 0, 0),
    "tanh": (-1, 1, 0, 0),
    "softplus": (0, np.inf, 0, 1),
    "silu": (-0.0, np.inf, 0, 1),
    "gelu": (-0.0, np.inf, 0, 1),
    "gelu_tanh": (-0.0, np.inf, 0, 1),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", LIMITS)
def test_limits_and_nan(op, dtype):
    options = {"approximate": True} if op == "gelu_tanh" else {}
    forward, backward = (getattr(kernels, op.removesuffix("_tanh") + part) for part in ("_forward", "_backward"))
    low, high, slope_low, slope_high = LIMITS[op]
    y, saved = forward(np.array([-np.inf, np.inf, np.nan], dtype), **options)
    np.testing.assert_array_equal(y, np.array([low, high, np.nan], dtype))
    assert np.signbit(y[0]) == np.signbit(low)
    (dx,) = backward(np.ones(3, dtype), saved)
    np.testing.assert_array_equal(dx[:2], np.array([slope_low, slope_high], dtype))
    y, saved = forward(np.array([-1e4, 1e4], dtype), **options)
    assert np.isfinite(y).all() and np.isfinite(backward(np.ones(2, dtype), saved)[0]).all()


SOFTMAX = list(kernels.VARIANTS["softmax"]["cpu"])


@pytest.mark.parametrize("variant", SOFTMAX)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_of_extreme_rows(dtype, variant):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [-np.inf, 0, -np.inf], [-np.inf] * 3, [np.inf, 0, 0]], dtype)
    y = kernels.softmax(x, variant=variant)
    np.testing.assert_array_equal(y[0], [1, 0, 0])
    np.testing.assert_array_equal(y[2], [0, 1, 0])
    np.testing.assert_allclose(y[1], 1 / 3, rtol=1e-6)
    assert np.isnan(y[3:]).all()
    y = kernels.log_softmax(x, variant=variant)
    np.testing.assert_array_equal(y[0], [0, -2e4, -1e4])
    np.testing.assert_allclose(y[1], -math.log(3), rtol=1e-6)
    np.testing.assert_array_equal(y[2], [-np.inf, 0, -np.inf])
    y = kernels.log_softmax(np.array([[1e6, 1e6]], dtype), variant=variant)
    np.testing.assert_allclose(y, -math.log(2), rtol=1e-6)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_serial_and_threaded_softmax_give_the_same_bits(op, monkeypatch):
    monkeypatch.setattr("handloom.kernels.threads.THREADS_PAY", 0)
    x = np.random.default_rng(0).normal(size=(300, 101)).astype(np.float32)
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    results = []
    for variant in ("simd", None):
        y, saved = forward(x, variant=variant)
        results.append((y, *backward(x, saved)))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("variant", SOFTMAX)
def test_every_rung_of_softmax_can_be_recorded(variant):
    x = np.random.default_rng(0).normal(size=(4, 30)).astype(np.float32)
    with Recording() as recording:
        y, saved = kernels.softmax_forward(x, variant=variant)
        (dx,) = kernels.softmax_backward(x, saved)
    x[:] = x[::-1].copy()
    recording.replay()
    np.testing.assert_array_equal(y, kernels.softmax(x, variant=variant))
    np.testing.assert_array_equal(dx, kernels.softmax_backward(x, saved)[0])


def test_a_long_row_adds_up_to_one():
    y = kernels.softmax(np.r_[0, np.full(50256, -1)].astype(np.float32))
    np.testing.assert_allclose(y.sum(dtype=np.float64), 1, rtol=1e-6)


def test_softmax_along_another_axis_is_contiguous():
    x = np.random.default_rng(0).normal(size=(4, 50, 3)).astype(np.float32)
    y, saved = kernels.softmax_forward(x, axis=1)
    np.testing.assert_array_equal(y, kernels.softmax(x.swapaxes(1, 2)).swapaxes(1, 2))
    (dx,) = kernels.softmax_backward(np.ones_like(x), saved)
    assert y.flags.c_contiguous and dx.flags.c_contiguous


def test_saved_keeps_references():
    x = np.ones(3, np.float32)
    assert kernels.gelu_forward(x)[1].kept is x
    y, saved = kernels.tanh_forward(x)
    assert saved.kept is y and "kept=" in repr(saved)
    assert kernels.relu_backward(np.ones(3, np.float32), kernels.relu_forward(x)[1], (False,)) == (None,)
    assert kernels.softmax_backward(np.ones(3, np.float32), kernels.softmax_forward(x)[1], (False,)) == (None,)


BAD = [
    (lambda: kernels.relu([1.0]), TypeError, "relu: x is a list: must be a NumPy or a CuPy array"),
    (lambda: kernels.tanh(np.ones(3, int)), TypeError, "tanh: x is int64: must be float32 or float64"),
    (lambda: kernels.softmax(np.ones(3, np.float16)), TypeError, "softmax: x is float16: must be float32 or float64"),
    (lambda: kernels.softmax(np.ones((3, 2)), 2), ValueError, r"softmax: axis is 2 and x is \(3, 2\): x must have"),
    (
        lambda: kernels.softmax(np.ones(3), variant="online"),
        ValueError,
        "softmax: variant is 'online': must be one of 'naive', 'simd', 'threaded'",
    ),
    (lambda: kernels.log_softmax(np.ones(())), ValueError, r"log_softmax: axis is -1 and x is \(\)"),
    (
        lambda: kernels.silu_backward(np.ones(4), kernels.silu_forward(np.ones(3))[1]),
        ValueError,
        r"silu_backward: dy is \(4,\): must be \(3,\)",
    ),
    (
        lambda: kernels.relu_backward(np.ones(3, np.float32), kernels.relu_forward(np.ones(3))[1]),
        TypeError,
        "relu_backward: x is float64 and dy is float32: dtypes must be the same",
    ),
    (
        lambda: kernels.softmax_backward(np.ones((3, 1)), kernels.softmax_forward(np.ones((3, 2)))[1]),
        ValueError,
        r"softmax_backward: dy is \(3, 1\): must be \(3, 2\)",
    ),
    (
        lambda: kernels.elu_backward(np.ones(3), kernels.elu_forward(np.ones(3))[1], (True, True)),
        ValueError,
        "elu_backward: needs has 2 entries: must have one bool for each of x",
    ),
    (
        lambda: kernels.elu_backward(np.ones(3), kernels.elu_forward(np.ones(3))[1], True),
        TypeError,
        "elu_backward: needs must be a tuple of bools, one for each of x, got True",
    ),
    (lambda: kernels.softmax(np.ones((3, 2)), 0.0), TypeError, "softmax: axis must be an integer, got 0.0"),
    (lambda: kernels.softmax(np.ones((3, 2)), None, variant="simd"), TypeError, "axis must be an integer, got None"),
    (lambda: kernels.gelu(np.ones(3), "none"), TypeError, "gelu: approximate must be True or False, got 'none'"),
    (lambda: kernels.relu(np.ma.masked_array([1.0], [True])), TypeError, "relu: x is a masked array: kernels know no"),
]


@pytest.mark.parametrize("call, error, text", BAD, ids=[text[:30] for _, _, text in BAD])
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("op", ["relu", "silu", "tanh", "gelu", "softmax", "log_softmax"])
def test_what_goes_past_the_caches_has_the_same_bits(op):
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    x, dy = np.random.default_rng(0).standard_normal((2, 1021, 1031), np.float32)  # rows start anywhere in a line
    y, saved = forward(x)
    (dx,) = backward(dy, saved)
    assert 2 * x.nbytes > CACHES > 3 * x[:500].nbytes
    for start in range(0, len(x), 500):
        part = slice(start, start + 500)
        own, saved = forward(x[part])
        np.testing.assert_array_equal(y[part], own)
        np.testing.assert_array_equal(dx[part], backward(dy[part], saved)[0])
