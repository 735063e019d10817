"""lstm and lstm_cell beyond the generated contract: error texts, missing gradients, extremes, threads."""

import re

import numpy as np
import pytest
from harness import assert_close
from processes import run

from handloom import kernels
from handloom.kernels import simd
from handloom.kernels.recurrent import reference
from handloom.kernels.recurrent.cpu import wide
from handloom.kernels.recurrent.cpu.products import panels_of, tile_for
from handloom.kernels.store import cache_folder

VARIANTS = ("steps", "fused")
N, T, I, H = 9, 4, 3, 5


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


def given(seed=0, dtype="float64"):
    """x, w, u, b, h0, c0"""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-1, 1, s).astype(dtype) for s in ((N, T, I), (I, 4 * H), (H, 4 * H), (4 * H,), (N, H), (N, H))]


def forward_with(**changes):
    named = {"x": ones(2, 3, 4), "w": ones(4, 20), "u": ones(5, 20), "b": ones(20), **changes}
    return lambda: kernels.lstm(**named)


def cell_with(**changes):
    named = {"x": ones(2, 4), "w": ones(4, 20), "u": ones(5, 20), "b": None, "h": None, "c": None, **changes}
    return lambda: kernels.lstm_cell(**named)


def backward_with(*args, **gradients):
    return lambda: kernels.lstm_backward(*args, kernels.lstm_forward(*given())[1], **gradients)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (forward_with(x=ones(2, 4)), ValueError, "lstm: x is (2, 4): must have 3 dimensions (N, T, I)"),
        (forward_with(w=ones(20)), ValueError, "lstm: w is (20,): must have 2 dimensions (I, 4H)"),
        (forward_with(u=ones(20)), ValueError, "lstm: u is (20,): must have 2 dimensions (H, 4H)"),
        (forward_with(x=ones(0, 3, 4)), ValueError, "lstm: x is (0, 3, 4): must not be empty"),
        (forward_with(x=ones(2, 0, 4)), ValueError, "lstm: x is (2, 0, 4): must not be empty"),
        (forward_with(u=ones(0, 0)), ValueError, "lstm: u is (0, 0): must not be empty"),
        (forward_with(u=ones(5, 19)), ValueError, "lstm: u is (5, 19): must be (H, 4H), for example (5, 20)"),
        (forward_with(w=ones(3, 20)), ValueError, "lstm: w is (3, 20): must be (4, 20) for x (2, 3, 4) and u (5, 20)"),
        (forward_with(b=ones(5)), ValueError, "lstm: b is (5,): must be (20,)"),
        (forward_with(h0=ones(3, 5)), ValueError, "lstm: h0 is (3, 5): must be (2, 5)"),
        (forward_with(c0=ones(5)), ValueError, "lstm: c0 is (5,): must be (2, 5)"),
        (forward_with(x=ones(2, 3, 4, dtype="float64")), TypeError, "x is float64 and w is float32: dtypes must be"),
        (forward_with(u=ones(5, 20, dtype="int64")), TypeError, "lstm: u is int64: must be float32 or float64"),
        (forward_with(x=[[[1.0]]]), TypeError, "lstm: x is a list: must be a NumPy or a CuPy array"),
        (forward_with(variant="cudnn"), ValueError, "lstm: variant is 'cudnn': must be one of 'steps', 'fused'"),
        (cell_with(x=ones(2, 3, 4)), ValueError, "lstm_cell: x is (2, 3, 4): must have 2 dimensions (N, I)"),
        (cell_with(h=ones(3, 5)), ValueError, "lstm_cell: h is (3, 5): must be (2, 5)"),
        (cell_with(c=ones(2, 4)), ValueError, "lstm_cell: c is (2, 4): must be (2, 5)"),
        (backward_with(None), ValueError, "lstm_backward: dy, dh, dc are all None: at least one must be given"),
        (backward_with(np.ones((N, T))), ValueError, "lstm_backward: dy is (9, 4): must be (9, 4, 5)"),
        (backward_with(None, dh=np.ones(H)), ValueError, "lstm_backward: dh is (5,): must be (9, 5)"),
        (backward_with(None, dc=ones(N, H)), TypeError, "u is float64 and dc is float32: dtypes must be the same"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_needs_of_the_wrong_length_are_refused():
    _, saved = kernels.lstm_cell_forward(ones(2, 4), ones(4, 20), ones(5, 20), None, None, None)
    with pytest.raises(ValueError, match=re.escape("one bool for each of x, w, u, b, h, c")):
        kernels.lstm_cell_backward(ones(2, 5), saved, (True,))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("come", [("dy",), ("dh",), ("dc",), ("dh", "dc"), ("dy", "dc")])
def test_gradients_that_do_not_come_count_as_zero(variant, come):
    inputs = given()
    _, saved = kernels.lstm_forward(*inputs, variant=variant)
    rng = np.random.default_rng(5)
    full = {"dy": rng.uniform(-1, 1, (N, T, H)), "dh": rng.uniform(-1, 1, (N, H)), "dc": rng.uniform(-1, 1, (N, H))}
    some = {name: full[name] if name in come else None for name in full}
    before = {name: array.copy() for name, array in full.items()}
    actual = kernels.lstm_backward(some["dy"], saved, dh=some["dh"], dc=some["dc"])
    wanted = {name: full[name] if name in come else np.zeros_like(full[name]) for name in full}
    expected = reference.lstm_backward(*wanted.values(), *inputs)
    for name, got, want in zip(("x", "w", "u", "b", "h0", "c0"), actual, expected, strict=True):
        assert_close(got, want, N * T + 4 * H, f"d{name}")
    for name, array in before.items():
        np.testing.assert_array_equal(full[name], array, err_msg=f"{name} was changed")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cell_is_a_sequence_of_one_step(variant):
    x, *others = given()
    y, (h, c) = kernels.lstm(x, *others, variant=variant)
    w, u, b, h_t, c_t = others
    for t in range(T):
        h_t, c_t = kernels.lstm_cell(x[:, t], w, u, b, h_t, c_t, variant=variant)
        assert_close(h_t, y[:, t], H, f"h after step {t}")
    assert_close(h_t, h, H, "last h")
    assert_close(c_t, c, H, "last c")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_state_is_an_array_of_its_own(variant):
    y, (h, c) = kernels.lstm(*given(), variant=variant)
    kept = h.copy(), c.copy()
    y[:] = np.nan
    kernels.lstm(*given(seed=1), variant=variant)
    np.testing.assert_array_equal(h, kept[0])
    np.testing.assert_array_equal(c, kept[1])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saturated_gates_stay_finite(variant, dtype):
    x, *others = given(dtype=dtype)
    y, saved = kernels.lstm_forward(x * 1e4, *others, variant=variant)
    assert np.isfinite(y[0]).all()
    for gradient in kernels.lstm_backward(np.ones_like(y[0]), saved):
        assert np.isfinite(gradient).all()


def test_a_long_sequence_follows_the_reference():
    rng = np.random.default_rng(2)
    x, w, u = (rng.uniform(-1, 1, shape) for shape in ((1, 3000, 2), (2, 12), (3, 12)))
    (y, _), saved = kernels.lstm_forward(x, w, u)
    assert_close(y, reference.lstm(x, w, u)[0], 3000, "y")
    dy = rng.uniform(-1, 1, y.shape)
    zeros = np.zeros((1, 3))
    expected = reference.lstm_backward(dy, zeros, zeros, x, w, u)
    for name, got, want in zip("xwu", kernels.lstm_backward(dy, saved), expected):
        assert_close(got, want, 3000, f"d{name}")


def test_any_number_of_threads_gives_the_same_bits(tmp_path):
    code = """
import hashlib
import numba, numpy as np
from handloom import kernels
rng = np.random.default_rng(0)
inputs = [rng.uniform(-1, 1, s).astype("float32") for s in ((61, 13, 10), (10, 148), (37, 148), (148,))]
dy = rng.uniform(-1, 1, (61, 13, 37)).astype("float32")
for threads in (1, 2, 3, 7):
    numba.set_num_threads(threads)
    (y, (h, c)), saved = kernels.lstm_forward(*inputs)
    gradients = kernels.lstm_backward(dy, saved, dc=c)
    print(hashlib.sha256(b"".join(a.tobytes() for a in (y, h, c, *gradients[:4]))).hexdigest())
"""
    out, _ = run(code, tmp_path, NUMBA_NUM_THREADS="8", HANDLOOM_CACHE_DIR=str(cache_folder()))
    assert len(out.split()) == 4
    assert len(set(out.split())) == 1


@pytest.mark.parametrize("n", [1, 3, 4, 5, 6, 7, 8, 9, 13, 32])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shared_out_by_units_it_is_the_same_lstm(n, dtype, monkeypatch):
    """Batches around the heights of the tile, with a first state and gradients of the last one."""
    monkeypatch.setattr(wide, "large", lambda: 0)
    hidden = 2 * tile_for(n)[1] * simd.VECTOR_BYTES // np.dtype(dtype).itemsize
    rng = np.random.default_rng(n)
    shapes = (n, 3, 4), (4, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (n, hidden), (n, hidden)
    arrays = [rng.uniform(-0.5, 0.5, shape).astype(dtype) for shape in shapes]
    dy, dh, dc = (rng.uniform(-1, 1, s).astype(dtype) for s in ((n, 3, hidden), (n, hidden), (n, hidden)))
    results, taken = [], []
    monkeypatch.setattr(wide, "panels_of", lambda *args: taken.append(args) or panels_of(*args))
    for variant in VARIANTS:
        (y, last), saved = kernels.lstm_forward(*arrays, variant=variant)
        results.append((y, *last, *kernels.lstm_backward(dy, saved, dh=dh, dc=dc)))
    assert len(taken) == 2  # forward and backward, of one variant
    for got, want in zip(*reversed(results), strict=True):
        assert_close(got, want, 3 * n + 4 * hidden, "by units")
