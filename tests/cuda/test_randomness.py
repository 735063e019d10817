"""Random draws by the CUDA kernels, in Numba's simulator: the CPU's numbers, on the device of another array."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import SimulatedArray, simulated

pytestmark = pytest.mark.usefixtures("kernels_run")

KEY = {"seed": 0x9E3779B97F4A7C15, "stream": 3, "step": 0xFFFFFFFF}
LIKE = simulated(np.zeros(1, np.float32))
# Ends of a block of Philox, whole and not, and of a block of threads (256 blocks of Philox).
SIZES = (0, 1, 3, 8, 1027)


def both(op, *args, **options):
    """The same draw on the CPU and in the simulator."""
    draw = getattr(kernels, op)
    found = draw(*args, **options, like=LIKE)
    assert type(found) is SimulatedArray
    expected = draw(*args, **options, like=np.zeros(1))
    assert type(expected) is np.ndarray and found.dtype == expected.dtype and found.shape == expected.shape
    return np.asarray(found), expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", SIZES)
def test_uniform_numbers_are_the_cpus_bits(n, dtype):
    np.testing.assert_array_equal(*both("uniform", n, dtype=dtype, **KEY))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_numbers_between_limits(dtype):
    """The CPU rounds low + width U once, as a GPU does; the simulator has no such instruction and rounds twice."""
    found, expected = both("uniform", (3, 11), dtype=dtype, low=-0.3, high=0.7, **KEY)
    np.testing.assert_allclose(found, expected, rtol=0, atol=float(np.finfo(dtype).eps))
    high = np.nextafter(np.dtype(dtype).type(1), 2)
    found, expected = both("uniform", 50, dtype=dtype, low=1.0, high=float(high), **KEY)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("op", ["normal", "truncated_normal"])
def test_normal_numbers_are_the_cpus_within_two_units_in_the_last_place(op):
    found, expected = both(op, 1027, dtype="float64", **KEY)
    np.testing.assert_array_max_ulp(found, expected, 2)
    narrow, expected = both(op, 1027, **KEY)
    np.testing.assert_array_equal(narrow, found.astype(np.float32))
    assert np.mean(narrow == expected) > 0.999


@pytest.mark.parametrize("op", ["normal", "truncated_normal"])
def test_normal_numbers_have_a_mean_and_a_deviation(op):
    for n in SIZES[:3]:
        found, expected = both(op, n, mean=-1.0, stddev=0.1, **KEY)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# From one tile of 512 numbers to two and four.
@pytest.mark.parametrize("n", [0, 1, 2, 100, 513, 1100])
def test_a_permutation_is_the_cpus(n):
    np.testing.assert_array_equal(*both("permutation", n, **KEY))


def test_equal_keys_keep_their_order():
    """As on the CPU; real keys have 63 bits and never meet, so here they are made to."""
    from handloom.kernels.randomness import cuda

    keys = simulated(np.random.default_rng(1).integers(0, 5, cuda.TILE))
    expected, order = np.argsort(keys, kind="stable"), simulated(np.arange(cuda.TILE))
    cuda.merge_near((1,), keys, order, 2, cuda.TILE)
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(keys, np.sort(keys))


def test_dropout_has_the_cpus_mask_in_both_dtypes_and_where_nothing_is_aligned():
    expected = kernels.dropout(np.ones(130), 0.3, **KEY)
    for dtype in (np.float32, np.float64):
        shifted = simulated(np.ones(131, dtype))[1:]
        for x in (simulated(np.ones(130, dtype)), shifted, simulated(np.ones((130, 2), dtype))[:, 1]):
            y, saved = kernels.dropout_forward(x, 0.3, **KEY)
            assert type(y) is SimulatedArray
            np.testing.assert_array_equal(y, expected.astype(dtype))
            np.testing.assert_array_equal(kernels.dropout_backward(x, saved)[0], y)


def test_dropout_reads_its_step_from_an_array_when_it_runs():
    x, step = simulated(np.ones(70, np.float32)), simulated(np.array([3]))
    y, saved = kernels.dropout_forward(x, 0.4, seed=7, step=step)
    np.testing.assert_array_equal(y, kernels.dropout(x, 0.4, seed=7, step=3))
    step[...] = 4
    np.testing.assert_array_equal(kernels.dropout_backward(x, saved)[0], kernels.dropout(x, 0.4, seed=7, step=4))
    with pytest.raises(TypeError, match="dropout: step is a NumPy array and x a CuPy array"):
        kernels.dropout(x, 0.4, seed=7, step=np.array([3]))


def test_dropout_leaves_no_trace_of_what_it_drops():
    x = np.full(40, np.inf, np.float32)
    x[::2] = np.nan
    y = kernels.dropout(simulated(x), 0.5, **KEY)
    np.testing.assert_array_equal(y, kernels.dropout(x, 0.5, **KEY))
    assert (np.asarray(y) == 0).any()


def test_without_a_rate_dropout_gives_back_its_input():
    assert kernels.dropout(LIKE, 0, **KEY) is LIKE


def test_what_a_draw_is_like_must_be_an_array():
    with pytest.raises(TypeError, match="uniform: like is a list: must be a NumPy or a CuPy array"):
        kernels.uniform(3, seed=1, like=[1.0])
