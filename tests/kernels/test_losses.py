"""Losses beyond the generated contract: accuracy of large means, certainty, labels, error texts."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.workspace import CACHES

ROWS = {
    "categorical_cross_entropy": "sparse_categorical_cross_entropy",
    "softmax_cross_entropy": "sparse_softmax_cross_entropy",
}


def drawn(shape, dtype=np.float32):
    rng = np.random.default_rng(3)
    return rng.uniform(0.01, 0.99, shape).astype(dtype), rng.uniform(0, 1, shape).astype(dtype)


@pytest.mark.parametrize("op", ["mean_squared_error", "mean_absolute_error"])
@pytest.mark.parametrize("y", [np.full(1_000_003, 0.1, np.float32), drawn(1_000_003)[0]], ids=["constant", "random"])
def test_a_float32_mean_of_a_million_is_accurate(op, y):
    exact = getattr(kernels, op)(y.astype(np.float64), np.zeros(y.size))
    np.testing.assert_allclose(getattr(kernels, op)(y, np.zeros_like(y)), exact, rtol=1e-6)


def test_a_float32_mean_of_many_rows_is_accurate():
    rng = np.random.default_rng(4)
    x, labels = rng.normal(0, 2, (100_000, 10)).astype(np.float32), rng.integers(0, 10, 100_000)
    exact = kernels.sparse_softmax_cross_entropy(x.astype(np.float64), labels)
    np.testing.assert_allclose(kernels.sparse_softmax_cross_entropy(x, labels), exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["mean_squared_error", *ROWS])
def test_the_result_is_an_array_without_dimensions(op, dtype):
    p, t = drawn((3, 4), dtype)
    loss = getattr(kernels, op)(p, t)
    assert isinstance(loss, np.ndarray) and loss.shape == () and loss.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_certain_probabilities(dtype):
    """Right costs 1e-7, wrong costs log(1e7), and both are too far out to have a gradient."""
    p, t = np.array([1, 0, 1, 0], dtype), np.array([1, 0, 0, 1], dtype)
    for i, cost in enumerate([1e-7, 1e-7, np.log(1e7), np.log(1e7)]):
        loss, saved = kernels.binary_cross_entropy_forward(p[i : i + 1], t[i : i + 1])
        np.testing.assert_allclose(loss, cost, rtol=1e-6)
        assert kernels.binary_cross_entropy_backward(1.0, saved)[0] == 0
    for row, cost in (([1, 0], 1e-7), ([0, 1], np.log(1e7))):
        loss, saved = kernels.categorical_cross_entropy_forward(np.array([[1, 0]], dtype), np.array([row], dtype))
        np.testing.assert_allclose(loss, cost, rtol=1e-6)
        np.testing.assert_array_equal(kernels.categorical_cross_entropy_backward(1.0, saved)[0], [[0, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_ten_thousand(dtype):
    x, t = np.array([[1e4, -1e4], [1e4, -1e4]], dtype), np.array([[1, 0], [0, 1]], dtype)
    for op, cost in (("softmax_cross_entropy", 1e4), ("sigmoid_cross_entropy", 5e3)):
        loss, saved = getattr(kernels, f"{op}_forward")(x, t)
        assert loss == cost
        (dx,) = getattr(kernels, f"{op}_backward")(1.0, saved)
        np.testing.assert_array_equal(dx[0], [0, 0])
        np.testing.assert_array_equal(np.sign(dx[1]), [1, -1])


def test_an_excluded_class_costs_nothing():
    x, t = np.array([[0, -np.inf, 0]], np.float32), np.array([[1, 0, 0]], np.float32)
    loss, saved = kernels.softmax_cross_entropy_forward(x, t)
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(kernels.softmax_cross_entropy_backward(1.0, saved)[0], [[-0.5, 0, 0.5]])


@pytest.mark.parametrize("dense, sparse", ROWS.items())
@pytest.mark.parametrize("width", [3, 50])
def test_labels_give_the_bits_of_one_hot_rows(dense, sparse, width):
    p, _ = drawn((4, 70, width))
    labels = np.random.default_rng(5).integers(0, width, (4, 70)).astype(np.int32)
    one_hot = (labels[..., None] == np.arange(width)).astype(np.float32)
    given, saved_given = getattr(kernels, f"{dense}_forward")(p, one_hot)
    label, saved_label = getattr(kernels, f"{sparse}_forward")(p, labels)
    assert given == label
    (dp,) = getattr(kernels, f"{dense}_backward")(0.5, saved_given)
    np.testing.assert_array_equal(dp, getattr(kernels, f"{sparse}_backward")(np.array(0.5), saved_label)[0])


@pytest.mark.parametrize("op", ["mean_squared_error", "sigmoid_cross_entropy", *ROWS])
def test_the_gradient_of_the_loss_scales_it(op):
    p, t = drawn((5, 20))
    _, saved = getattr(kernels, f"{op}_forward")(p, t)
    backward = getattr(kernels, f"{op}_backward")
    (dy,) = backward(1.0, saved)
    np.testing.assert_allclose(backward(np.array(-3, np.float32), saved)[0], -3 * dy, rtol=1e-6)
    np.testing.assert_allclose(backward(2, saved)[0], 2 * dy, rtol=1e-6)
    assert backward(1.0, saved, (False,)) == (None,)


@pytest.mark.parametrize("op", ["mean_squared_error", "sigmoid_cross_entropy"])
def test_a_gradient_that_goes_past_the_caches_has_the_same_bits(op):
    y, t = np.random.default_rng(0).random((2, 1_000_003), np.float32)
    assert 3 * y.nbytes > CACHES
    (dy,) = getattr(kernels, f"{op}_backward")(len(y), getattr(kernels, f"{op}_forward")(y, t)[1])
    for start in range(0, len(y), 400_000):
        part = slice(start, start + 400_000)
        saved = getattr(kernels, f"{op}_forward")(y[part], t[part])[1]
        own = getattr(kernels, f"{op}_backward")(len(y[part]), saved)[0]
        np.testing.assert_array_equal(dy[part], own)


def test_count_correct():
    p = np.array([[1, 1, 0], [np.nan, 9, 1], [0, -1, -2], [0, 1, 2]], np.float32)
    assert kernels.count_correct(p, np.array([0, 0, 0, 2])) == 4
    assert kernels.count_correct(p, np.array([1, 1, 3, -1], np.int8)) == 0
    assert kernels.count_correct(p, np.eye(3, dtype=np.float32)[[0, 0, 0, 0]]) == 3
    count = kernels.count_correct(p.reshape(2, 2, 3), np.array([[0, 1], [1, 2]]))
    assert count == 2 and count.shape == () and count.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_count_correct_binary(dtype):
    nan = np.nan
    p = np.array([0.5, 0.5, np.nextafter(dtype(0.5), dtype(1)), 1, 0, nan, nan, np.inf, -np.inf, 1], dtype)
    t = np.array([0, 1, 1, 0, 0, 0, 1, 1, -0.0, nan], dtype)
    count = kernels.count_correct_binary(p, t)
    assert count == 6 and count.shape == () and count.dtype == np.int64
    assert kernels.count_correct_binary(p, t, np.float64(-1)) == 5, "those of two 0.5, Inf, a NaN and -Inf"
    assert kernels.count_correct_binary(np.stack([p, p])[:, ::-1], np.stack([t, t])[:, ::-1]) == 12
    assert kernels.count_correct_binary(np.zeros(20_000, dtype), np.zeros(20_000, dtype)) == 20_000


X, T = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
LABELS = np.array([0, 1])
BAD = [
    (lambda: kernels.mean_squared_error(X, T.astype(float)), TypeError, "y is float32 and t is float64"),
    (lambda: kernels.mean_squared_error(X, T[0]), ValueError, r"mean_squared_error: t is \(3,\): must be \(2, 3\)"),
    (lambda: kernels.mean_squared_error(X, 1.0), TypeError, "mean_squared_error: t is a float: must be a NumPy"),
    (lambda: kernels.mean_squared_error(X[:0], T[:0]), ValueError, r"y is \(0, 3\): must not be empty"),
    (lambda: kernels.binary_cross_entropy(LABELS, LABELS), TypeError, "binary_cross_entropy: p is int64: must be"),
    (
        lambda: kernels.softmax_cross_entropy(np.ones(()), np.ones(())),
        ValueError,
        r"softmax_cross_entropy: logits is \(\): must have at least 1 dimension",
    ),
    (lambda: kernels.softmax_cross_entropy(X, LABELS), TypeError, "softmax_cross_entropy: t is int64: must be float32"),
    (
        lambda: kernels.sparse_softmax_cross_entropy(X, T),
        TypeError,
        r"sparse_softmax_cross_entropy: labels are float32: must be integers, for example labels.astype\('int64'\)",
    ),
    (
        lambda: kernels.sparse_softmax_cross_entropy(X, LABELS[:1]),
        ValueError,
        r"sparse_softmax_cross_entropy: labels is \(1,\): must be \(2,\)",
    ),
    (
        lambda: kernels.sparse_softmax_cross_entropy(X, np.array([2, 3])),
        ValueError,
        r"sparse_softmax_cross_entropy: labels\[1\] is 3: must be from 0 to 2, as there are 3 classes",
    ),
    (
        lambda: kernels.sparse_categorical_cross_entropy(np.ones((2, 2, 3)), np.array([[0, 1], [-1, 9]])),
        ValueError,
        r"sparse_categorical_cross_entropy: labels\[1, 0\] is -1: must be from 0 to 2",
    ),
    (
        lambda: kernels.sparse_categorical_cross_entropy(X, np.array([0, 2**64 - 1], np.uint64)),
        ValueError,
        r"sparse_categorical_cross_entropy: labels\[1\] is 18446744073709551615: must be from 0 to 2",
    ),
    (
        lambda: kernels.mean_squared_error_backward(np.ones(2), kernels.mean_squared_error_forward(X, T)[1]),
        ValueError,
        r"mean_squared_error_backward: dloss is \(2,\): must be a number, or an array without dimensions \(\)",
    ),
    (
        lambda: kernels.softmax_cross_entropy_backward(1.0, kernels.softmax_cross_entropy_forward(X, T)[1], ()),
        ValueError,
        "softmax_cross_entropy_backward: needs has 0 entries: must have one bool for each of y",
    ),
    (lambda: kernels.count_correct(X, LABELS[:1]), ValueError, r"count_correct: t is \(1,\): must be \(2,\)"),
    (lambda: kernels.count_correct(X, T[:1]), ValueError, r"count_correct: t is \(1, 3\): must be \(2, 3\)"),
    (lambda: kernels.count_correct_binary(X, T[0]), ValueError, r"_binary: t is \(3,\): must be \(2, 3\)"),
    (lambda: kernels.count_correct_binary(X, LABELS), TypeError, "_binary: t is int64: must be float32 or"),
    (lambda: kernels.count_correct_binary(X, T, "half"), TypeError, "threshold must be a number, got 'half'"),
    (lambda: kernels.count_correct(X[:0], LABELS[:0]), ValueError, r"count_correct: p is \(0, 3\): must not be empty"),
]


@pytest.mark.parametrize("call, error, text", BAD, ids=[text[:40] for _, _, text in BAD])
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
