"""Pooling by the CUDA kernels, in Numba's simulator, against the CPU's kernels, bit by bit."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import simulated

pytestmark = pytest.mark.usefixtures("kernels_run")


def images(shape, dtype=np.float32):
    """Few levels, so that maxima are equal; NaN, and windows of nothing but -Inf."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, shape).astype(dtype)
    x[rng.uniform(size=shape) < 0.05] = np.nan
    x[:, : shape[1] // 2, : shape[2] // 2] = -np.inf
    x[0, 0, 0, 0] = np.nan
    return x


def assert_like_the_cpu(op, x, **options):
    """Outputs, offsets and gradients; `x` is a simulated array. (Gradients of means are multiplied by the reciprocal of
    what the CPU divides by.)"""
    on_host = np.array(x)
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    expected, expected_saved = forward(on_host, **options)
    y, saved = forward(x, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(getattr(kernels, op)(x, **options), expected)
    if hasattr(saved, "offsets"):
        assert saved.offsets.dtype == expected_saved.offsets.dtype
        np.testing.assert_array_equal(saved.offsets, expected_saved.offsets)
    dy = np.random.default_rng(4).uniform(-1, 1, y.shape).astype(x.dtype)
    dy.flat[-1] = np.nan
    error = 0 if hasattr(saved, "offsets") else 4 * np.finfo(x.dtype).eps
    np.testing.assert_allclose(backward(simulated(dy), saved)[0], backward(dy, expected_saved)[0], rtol=0, atol=error)


@pytest.mark.parametrize(
    "shape, options",
    [
        ((1, 6, 7, 4), {"pool_size": 3, "strides": 2, "padding": "same"}),
        ((2, 5, 4, 3), {"pool_size": 2}),
        ((1, 7, 7, 4), {"pool_size": 6, "strides": 1}),
    ],
    ids=["vectors", "channels", "shared"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_first_maximum_wins_and_nan_before_all(shape, options, dtype):
    assert_like_the_cpu("max_pool2d", simulated(images(shape, dtype)), **options)


def test_a_global_maximum_stands_where_the_cpu_finds_it():
    assert_like_the_cpu("global_max_pool2d", simulated(images((2, 9, 8, 2))))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_strides_may_be_larger_than_any_image(op):
    x = simulated(np.random.default_rng(5).uniform(-1, 1, (1, 5, 4, 4)).astype(np.float32))
    for padding in ("valid", "same"):
        assert_like_the_cpu(op, x, pool_size=2, strides=2**40, padding=padding)


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_images_may_start_anywhere(op):
    memory = simulated(np.random.default_rng(5).uniform(-1, 1, 65).astype(np.float32))
    assert_like_the_cpu(op, memory[1:].reshape(1, 4, 4, 4))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("pool_size", [2, 6])
def test_more_images_than_a_launch_takes(op, pool_size, monkeypatch):
    """Five images, two at a time."""
    from handloom.kernels.pooling.cuda import windows

    monkeypatch.setattr(windows, "MOST", 2 * 7 * 6)
    assert_like_the_cpu(op, simulated(images((5, 7, 6, 4))), pool_size=pool_size, strides=2)
    monkeypatch.setattr(windows, "MOST", 41)
    with pytest.raises(ValueError, match="pooling: an image has 42 times 4 numbers: must be 41 times at most"):
        kernels.max_pool2d(simulated(images((5, 7, 6, 4))))


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_windows_may_be_larger_than_images(op):
    """Ten million cells, of which the window has twenty."""
    x = simulated(np.random.default_rng(5).integers(-9, 9, (1, 5, 4, 4)).astype(np.float32))
    assert_like_the_cpu(op, x, pool_size=(1000, 10000), strides=50, padding="same")
