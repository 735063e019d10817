"""The optimizer updates beyond the generated contract: long runs, error texts, what stays untouched."""

import re

import numpy as np
import pytest
from harness import Elsewhere

from handloom import kernels
from handloom.kernels import simd, threads
from handloom.kernels.optimizers import cpu, reference
from handloom.kernels.recording import Recording

ADAM = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
RMSPROP = {"learning_rate": 0.01, "rho": 0.9, "momentum": 0.0, "epsilon": 1e-7}


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def adam(w=None, g=None, m=None, v=None, **options):
    w, g, m, v = (ones(2, 3) if array is None else array for array in (w, g, m, v))
    kernels.adam_update(w, g, m, v, **{"step": 1, **ADAM, **options})


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: adam(g=ones(3, 2)), ValueError, "adam_update: g is (3, 2): must be (2, 3)"),
        (lambda: adam(v=ones(6)), ValueError, "adam_update: v is (6,): must be (2, 3)"),
        (lambda: adam(m=ones(2, 3, dtype="float64")), TypeError, "w is float32 and m is float64: dtypes must be the"),
        (lambda: adam(w=ones(2, 3, dtype="int32")), TypeError, "adam_update: w is int32: must be float32 or float64"),
        (lambda: adam(g=ones(2, 3, dtype="float16")), TypeError, "adam_update: g is float16: must be float32 or"),
        (lambda: adam(w=[1.0]), TypeError, "adam_update: w is a list: must be a NumPy or a CuPy array"),
        (lambda: adam(g=[1.0]), TypeError, "adam_update: g is a list: must be a NumPy or a CuPy array"),
        (
            lambda: adam(g=Elsewhere(ones(2, 3))),
            TypeError,
            "adam_update: w is a NumPy array and g a CuPy array: move one",
        ),
        (lambda: adam(w=ones(3, 2).T), ValueError, "w has strides (4, 8): it is changed in place and must be C-contig"),
        (lambda: adam(v=ones(2, 6)[:, ::2]), ValueError, "v has strides (24, 8): it is changed in place and must be"),
        (lambda: adam(m=read_only(ones(2, 3))), ValueError, "adam_update: m is read-only: it is changed in place"),
        (lambda: adam(step=0), ValueError, "adam_update: step is 0: steps count from 1"),
        (lambda: adam(beta_1=1.0), ValueError, "beta_1 is 1.0 and beta_2 0.999: both must be at least 0 and below 1"),
        (lambda: adam(beta_2=-0.1), ValueError, "beta_1 is 0.9 and beta_2 -0.1: both must be at least 0 and below 1"),
        (
            lambda: kernels.adamw_update(*[ones(2)] * 4, step=0, weight_decay=0.1, **ADAM),
            ValueError,
            "adamw_update: step is 0: steps count from 1",
        ),
        (
            lambda: kernels.sgd_update(ones(2), ones(2), learning_rate=0.1, momentum=0.9),
            ValueError,
            "sgd_update: momentum is 0.9 and velocity None: momentum needs a velocity like w",
        ),
        (
            lambda: kernels.rmsprop_update(ones(2), ones(2), ones(2), **{**RMSPROP, "momentum": 0.9}),
            ValueError,
            "rmsprop_update: momentum is 0.9 and velocity None: momentum needs a velocity like w",
        ),
        (
            lambda: kernels.rmsprop_update(ones(2), ones(2), ones(2), None, ones(3), **RMSPROP),
            ValueError,
            "rmsprop_update: mean is (3,): must be (2,)",
        ),
    ],
)  # fmt: skip
def test_bad_input_says_what_came_and_what_to_do(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_nothing_is_changed_by_a_call_that_fails():
    w, m = ones(2, 3), ones(2, 3)
    for wrong in ({"v": ones(3, 2)}, {"v": read_only(ones(2, 3))}, {"step": 0}):
        with pytest.raises(ValueError):
            adam(w=w, m=m, **wrong)
    np.testing.assert_array_equal([w, m], 1)


@pytest.mark.parametrize("op", ["sgd_update", "rmsprop_update", "adam_update", "adamw_update"])
def test_a_hundred_steps_follow_the_reference(op):
    rng = np.random.default_rng(5)
    options = {
        "sgd_update": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        "rmsprop_update": {**RMSPROP, "momentum": 0.5},
        "adam_update": ADAM,
        "adamw_update": {**ADAM, "weight_decay": 0.004},
    }[op]
    arrays = [rng.uniform(-1, 1, 50), *np.zeros((1 if op == "sgd_update" else 2, 50))]
    expected = [array.copy() for array in arrays]
    for step in range(1, 101):
        g = rng.normal(size=50)
        counted = {"step": step, **options} if op.startswith("adam") else options
        getattr(kernels, op)(arrays[0], g, *arrays[1:], **counted)
        expected = getattr(reference, op)(expected[0], g, *expected[1:], **counted)
    for got, want in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def test_the_first_adam_step_is_the_learning_rate_against_the_gradient():
    w, g = np.zeros(100), np.random.default_rng(1).normal(size=100)
    adam(w=w, g=g, m=np.zeros(100), v=np.zeros(100), epsilon=0.0)
    np.testing.assert_allclose(w, -ADAM["learning_rate"] * np.sign(g), rtol=1e-12)


def test_a_gradient_with_gaps_is_as_good_as_one_without():
    rng = np.random.default_rng(2)
    for g in (rng.normal(size=(3, 2)).T, rng.normal(size=(2, 6))[:, ::2], np.broadcast_to(rng.normal(size=3), (2, 3))):
        results = []
        for gradient in (g, np.ascontiguousarray(g)):
            w = np.ones((2, 3))
            kernels.sgd_update(w, gradient, learning_rate=0.1)
            results.append(w)
        np.testing.assert_array_equal(*results)


def test_subclasses_of_arrays_are_updated():
    class Labelled(np.ndarray):
        pass

    w = ones(2, 3).view(Labelled)
    kernels.sgd_update(w, ones(2, 3), learning_rate=0.5)
    np.testing.assert_array_equal(w, 0.5)


def test_nan_and_infinity_pass_through():
    w, g = ones(4), np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    kernels.sgd_update(w, g, learning_rate=0.5)
    np.testing.assert_array_equal(w, [np.nan, -np.inf, np.inf, 0.5])
    w = np.array([np.inf, np.nan, 1], np.float32)
    adam(w=w, g=ones(3), m=ones(3), v=ones(3))
    assert np.isinf(w[0]) and np.isnan(w[1]) and w[2] < 1


UPDATES = {
    "sgd_update": ({"learning_rate": 0.1}, 0),
    "momentum": ({"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}, 1),
    "rmsprop_update": ({**RMSPROP, "momentum": 0.5}, 3),
    "adam_update": ({**ADAM, "step": 3}, 2),
    "adamw_update": ({**ADAM, "step": 3, "weight_decay": 0.1}, 2),
}
ROWS, WIDTH = simd.TILE_ROWS, simd.TILE_COLUMNS * simd.VECTOR_BYTES // 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    "m, n, depth",
    [
        (40 * ROWS, 4 * WIDTH, 32),
        (2 * ROWS + 1, WIDTH + 3, 7),
        (3 * ROWS - 1, 2 * WIDTH - 1, 33),
        (ROWS, WIDTH, 256),
        (17 * ROWS + 2, 5 * WIDTH + 5, 12),
    ],
)
def test_a_gradient_that_is_a_product_need_not_be_written(m, n, depth, update, dtype, monkeypatch):
    """The update that follows it computes it, and has the bits of two calls: in chunks of all columns and of a few, on
    one thread and on several."""
    monkeypatch.setattr(cpu, "FAR_BYTES", 0)
    options, states = UPDATES[update]
    rng = np.random.default_rng(m + n)
    x, z = rng.standard_normal((depth, m)).astype(dtype), rng.standard_normal((depth, n)).astype(dtype)
    w, *state = (rng.uniform(0.1, 1, (m, n)).astype(dtype) for _ in range(1 + states))
    expected = [array.copy() for array in (w, *state)]
    call = getattr(kernels, {"momentum": "sgd_update"}.get(update, update))
    a_panel = simd.TILE_COLUMNS * simd.VECTOR_BYTES // w.itemsize
    for cut, pay in ((cpu.product_cut, 0), (lambda m, *_: (min(3, -(-m // ROWS)), a_panel), threads.THREADS_PAY)):
        monkeypatch.setattr(cpu, "product_cut", cut)
        monkeypatch.setattr(threads, "THREADS_PAY", pay)
        now = [array.copy() for array in (w, *state)]
        with Recording() as gradients:
            g = kernels.matmul(x, z, transpose_a=True)
        with Recording(after=gradients) as updates:
            call(now[0], g, *now[1:], **options)
        for array, start in zip(now, (w, *state)):  # what recording did is not what is looked at
            array[...] = start
        g.fill(np.nan)
        gradients.replay()
        assert np.isnan(g).all()
        updates.replay()
        call(expected[0], kernels.matmul(x, z, transpose_a=True), *expected[1:], **options)
        for got, want, old in zip(now, expected, (w, *state), strict=True):
            np.testing.assert_array_equal(got, want)
            assert (got != old).any()
        for array, start in zip(expected, (w, *state)):
            array[...] = start


def test_a_small_gradient_is_taken_as_it_is():
    x, z = ones(32, 64), ones(32, 48)
    with Recording() as gradients:
        g = kernels.matmul(x, z, transpose_a=True)
    with Recording(after=gradients):
        kernels.sgd_update(ones(64, 48), g, learning_rate=0.1)
    g.fill(7)
    gradients.replay()
    assert (g == 32).all()
