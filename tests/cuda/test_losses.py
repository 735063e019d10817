"""Losses by the CUDA kernels, in Numba's simulator, beyond the generated cases: labels, counts, dloss, NaN and Inf."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import simulated

pytestmark = [
    pytest.mark.usefixtures("kernels_run"),
    # Inf - Inf and the like: NumPy says so, a GPU does not.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

ROWS = {
    "categorical_cross_entropy": "sparse_categorical_cross_entropy",
    "softmax_cross_entropy": "sparse_softmax_cross_entropy",
}


def drawn(shape, dtype=np.float32):
    rng = np.random.default_rng(3)
    return rng.uniform(0.01, 0.99, shape).astype(dtype), rng.uniform(0, 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_count_correct(dtype):
    p = simulated(np.array([[1, 1, 0], [np.nan, 9, 1], [0, -1, -2], [0, 1, 2], [-np.inf] * 3], dtype))
    assert kernels.count_correct(p, simulated(np.array([0, 0, 0, 2, 0]))) == 5
    assert kernels.count_correct(p, simulated(np.array([1, 1, 3, -1, 1], np.int8))) == 0
    assert kernels.count_correct(p, simulated(np.eye(3, dtype=dtype)[[0, 0, 0, 0, 2]])) == 3
    count = kernels.count_correct(p[:4].reshape(2, 2, 3), simulated(np.array([[0, 1], [1, 2]])))
    assert count == 2 and count.shape == () and count.dtype == np.int64


def test_count_correct_of_several_blocks_and_wide_rows():
    p, t = drawn((20, 70))
    t[::3] = p[::3]
    assert kernels.count_correct(simulated(p), simulated(t)) == kernels.count_correct(p, t) >= 7


@pytest.mark.parametrize(
    "labels, text",
    [
        (np.array([0, 2, 3]), r"labels\[1\] is 2: must be from 0 to 1, as there are 2 classes"),
        (np.array([0, -1, 0], np.int8), r"labels\[1\] is -1: must be"),
        (np.array([0, 0, 2**64 - 1], np.uint64), r"labels\[2\] is 18446744073709551615: must be"),
    ],
)
def test_labels_that_are_no_classes(labels, text):
    with pytest.raises(ValueError, match=f"^sparse_softmax_cross_entropy: {text}"):
        kernels.sparse_softmax_cross_entropy(simulated(np.ones((3, 2))), simulated(labels))


@pytest.mark.parametrize("wrong", [[], [5], [2999], [1030, 1500, 2100]])
def test_the_first_of_many_labels_that_is_no_class(wrong):
    from handloom.kernels.losses.cuda import first_outside

    labels = np.zeros(3000, np.int64)
    labels[wrong] = 7
    assert first_outside(simulated(labels), 7) == (wrong[0] if wrong else 3000)


@pytest.mark.parametrize("dense, sparse", ROWS.items())
@pytest.mark.parametrize("width", [3, 48])
def test_labels_give_the_bits_of_one_hot_rows(dense, sparse, width):
    p, _ = drawn((2, 9, width))
    labels = np.random.default_rng(5).integers(0, width, (2, 9)).astype(np.int32)
    one_hot = (labels[..., None] == np.arange(width)).astype(np.float32)
    p = simulated(p)
    given, saved_given = getattr(kernels, f"{dense}_forward")(p, simulated(one_hot))
    label, saved_label = getattr(kernels, f"{sparse}_forward")(p, simulated(labels))
    assert given == label
    dloss = simulated(np.array(0.5, np.float32))
    (dp,) = getattr(kernels, f"{dense}_backward")(dloss, saved_given)
    np.testing.assert_array_equal(dp, getattr(kernels, f"{sparse}_backward")(dloss, saved_label)[0])


@pytest.mark.parametrize("op", ["mean_squared_error", *ROWS])
def test_dloss_may_be_a_number_or_an_array_here_or_there(op):
    p, t = drawn((5, 20))
    _, saved = getattr(kernels, f"{op}_forward")(p, t)
    _, there = getattr(kernels, f"{op}_forward")(simulated(p), simulated(t))
    backward = getattr(kernels, f"{op}_backward")
    (dy,) = backward(-3.0, saved)
    for dloss in (-3, np.array(-3.0), simulated(np.array(-3, np.float32)), simulated(np.array(-3.0))):
        np.testing.assert_allclose(backward(dloss, there)[0], dy, rtol=1e-5, atol=1e-7)
    assert backward(1.0, there, (False,)) == (None,)


def test_dloss_on_the_device_is_not_read_by_the_host(monkeypatch):
    _, saved = kernels.mean_squared_error_forward(*map(simulated, drawn((5, 20))))
    monkeypatch.setattr("handloom.kernels.losses._number", None)
    kernels.mean_squared_error_backward(simulated(np.array(1, np.float32)), saved)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["mean_squared_error", "sigmoid_cross_entropy", "binary_cross_entropy", *ROWS])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_nan_and_inf_go_where_they_go_on_the_cpu(op, dtype, bad, where):
    given = drawn((3, 36), dtype)
    given[where][1, 33] = bad
    there = getattr(kernels, op)(*map(simulated, given))
    np.testing.assert_allclose(there, getattr(kernels, op)(*given), rtol=1e-5)


def test_an_excluded_class_costs_nothing():
    x, t = np.array([[0, -np.inf, 0]], np.float32), np.array([[1, 0, 0]], np.float32)
    loss, saved = kernels.softmax_cross_entropy_forward(simulated(x), simulated(t))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_array_equal(kernels.softmax_cross_entropy_backward(1.0, saved)[0], [[-0.5, 0, 0.5]])


def test_arrays_that_start_between_16_bytes():
    y, t = drawn(37)
    there = kernels.mean_squared_error(simulated(y)[1:], simulated(t)[1:])
    np.testing.assert_allclose(there, kernels.mean_squared_error(y[1:], t[1:]), rtol=1e-6)
