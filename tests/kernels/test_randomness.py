"""The random draws beyond the generated contract: published vectors, distributions, keys, error texts."""

import re
from statistics import NormalDist

import numba
import numpy as np
import pytest

from handloom import kernels
from handloom.kernels import simd
from handloom.kernels.randomness import cpu, reference
from handloom.kernels.recording import Recording

# Counter, key and result of Philox4x32-10 from the file kat_vectors of Random123, the authors' own library.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@numba.njit
def call_philox(*args):
    cpu.philox(*args)


DRAWS = ("uniform", "normal", "truncated_normal")


@pytest.mark.parametrize("counter, key, expected", KNOWN_ANSWERS)
def test_philox_gives_the_published_vectors(counter, key, expected):
    low, high, step, stream = counter
    seed = key[0] | key[1] << 32
    np.testing.assert_array_equal(reference.philox([low | high << 32], seed=seed, stream=stream, step=step), [expected])
    drawn = np.zeros(simd.VECTOR_BYTES // 4, np.int64)
    block = int(np.uint64(low | high << 32).astype(np.int64))
    call_philox(drawn, block, 1, step, stream, *key)
    assert tuple(drawn[:2].view(np.uint32).tolist()) == expected


@pytest.mark.parametrize("op", DRAWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_element_depends_on_its_number_alone(op, dtype):
    draw = getattr(kernels, op)
    long = draw(5000, seed=5, stream=2, dtype=dtype)
    for n in (1, 6, 2047, 2049):
        np.testing.assert_array_equal(draw(n, seed=5, stream=2, dtype=dtype), long[:n])
    np.testing.assert_array_equal(draw((50, 100), seed=5, stream=2, dtype=dtype).ravel(), long)


@pytest.mark.parametrize("op", DRAWS)
def test_seed_stream_and_step_each_change_the_numbers(op):
    keys = [{"seed": 1}, {"seed": 2}, {"seed": 1 + 2**32}, {"seed": 1, "stream": 1}, {"seed": 1, "step": 1}]
    drawn = np.stack([getattr(kernels, op)(100, **key) for key in keys])
    assert np.unique(drawn).size == drawn.size


DISTRIBUTIONS = {
    "uniform": lambda x: x,
    "normal": NormalDist().cdf,
    "truncated_normal": lambda x: (NormalDist().cdf(x) - NormalDist().cdf(-2)) / (1 - 2 * NormalDist().cdf(-2)),
}


@pytest.mark.parametrize("op", DRAWS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_follow_their_distribution(op, dtype):
    """Kolmogorov and Smirnov: the empirical distribution strays by less than 1.95 / sqrt(n) in 999 of 1000 samples."""
    n = 20_000
    drawn = np.sort(getattr(kernels, op)(n, seed=11, dtype=dtype))
    chances = np.array([DISTRIBUTIONS[op](x) for x in drawn.tolist()])
    assert np.abs(chances - (np.arange(n) + 0.5) / n).max() < 1.95 / n**0.5
    # Neighbours are not correlated: they come from the same block, and for `normal` from the same radius.
    drawn = getattr(kernels, op)(n, seed=11, dtype=dtype).astype(np.float64)
    for lag in (1, 2, 3, 4):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < 4 / n**0.5


def test_normal_draws_are_the_same_numbers_in_both_dtypes():
    for op in ("normal", "truncated_normal"):
        wide = getattr(kernels, op)(3000, seed=4, dtype="float64")
        np.testing.assert_array_equal(getattr(kernels, op)(3000, seed=4), wide.astype(np.float32))


def test_truncated_draws_stay_within_two_standard_deviations():
    drawn = kernels.truncated_normal(200_000, seed=3, dtype="float64")
    assert 1.999 < np.abs(drawn).max() <= 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform_never_reaches_its_upper_end(dtype):
    high = np.nextafter(np.dtype(dtype).type(1), 2)
    drawn = kernels.uniform(1000, seed=1, low=1.0, high=float(high), dtype=dtype)
    assert np.all(drawn == 1)
    assert np.all(kernels.uniform(10, seed=1, low=2.5, high=2.5, dtype=dtype) == 2.5)


def test_a_permutation_holds_every_number_once_and_starts_anywhere():
    order = kernels.permutation(10_000, seed=9)
    np.testing.assert_array_equal(np.sort(order), np.arange(10_000))
    firsts = [int(kernels.permutation(10, seed=9, step=step)[0]) for step in range(1000)]
    assert np.bincount(firsts, minlength=10).min() > 60


def test_dropout_masks_do_not_depend_on_the_dtype():
    narrow = kernels.dropout(np.ones((70, 70), np.float32), 0.3, seed=2, step=8)
    wide = kernels.dropout(np.ones((70, 70)), 0.3, seed=2, step=8)
    np.testing.assert_array_equal(narrow == 0, wide == 0)
    assert 0.27 < np.mean(wide == 0) < 0.33
    np.testing.assert_array_equal(narrow == 0, kernels.uniform((70, 70), seed=2, step=8) < 0.3)


def test_dropout_leaves_no_trace_of_what_it_drops():
    x = np.full((40, 40), np.inf, np.float32)
    x[::2] = np.nan
    kept = kernels.uniform(x.shape, seed=1) >= 0.5
    y = kernels.dropout(x, 0.5, seed=1)
    assert np.all(y[~kept] == 0)
    np.testing.assert_array_equal(y[kept], x[kept])


def test_without_a_rate_dropout_gives_back_its_input():
    x, dy = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    y, saved = kernels.dropout_forward(x, 0, seed=1)
    assert y is x
    assert kernels.dropout_backward(dy, saved)[0] is dy
    assert kernels.dropout_backward(dy, saved, (False,)) == (None,)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: kernels.uniform(3, seed=-1), ValueError, "uniform: seed must lie between 0 and 2**64 - 1, got -1"),
        (lambda: kernels.normal(3, seed=2**64), ValueError, f"2**64 - 1, got {1 << 64}"),
        (lambda: kernels.uniform(3, seed=1, stream=2**32), ValueError, "stream must lie between 0 and 2**32 - 1"),
        (lambda: kernels.uniform(3, seed=1, step=2**32), ValueError, "step must lie between 0 and 2**32 - 1"),
        (lambda: kernels.uniform(3, seed=1.5), TypeError, "uniform: seed must be an integer, got 1.5"),
        (lambda: kernels.uniform((3, 2.0), seed=1), TypeError, "uniform: shape must be an integer, got 2.0"),
        (lambda: kernels.uniform((3, -2), seed=1), ValueError, "uniform: shape must not be negative, got -2"),
        (lambda: kernels.permutation(-1, seed=1), ValueError, "permutation: n must not be negative, got -1"),
        (lambda: kernels.uniform(3, seed=1, dtype=int), TypeError, "dtype is int64: must be float32 or float64"),
        (lambda: kernels.uniform(3, seed=1, low=2), ValueError, "low is 2.0 and high is 1.0: low must not be above"),
        (lambda: kernels.uniform(3, seed=1, high=np.inf), ValueError, "high must be finite in float32, got inf"),
        (lambda: kernels.normal(3, seed=1, mean=np.nan), ValueError, "normal: mean must be finite in float32, got nan"),
        (lambda: kernels.uniform(3, seed=1, high=1e39), ValueError, "high must be finite in float32, got 1e+39"),
        (lambda: kernels.normal(3, seed=1, mean=-1e39), ValueError, "mean must be finite in float32, got -1e+39"),
        (
            lambda: kernels.uniform(3, seed=1, low=-1e308, high=1e308, dtype=np.float64),
            ValueError,
            "uniform: high - low must be finite in float64, got inf",
        ),
        (lambda: kernels.uniform(3, seed=1, low="a"), TypeError, "uniform: low must be a number, got 'a'"),
        (lambda: kernels.truncated_normal(3, seed=1, stddev=-1), ValueError, "stddev must not be negative, got -1.0"),
        (lambda: kernels.dropout(np.ones(3), 1, seed=1), ValueError, "rate must be at least 0 and below 1, got 1"),
        (lambda: kernels.dropout(np.ones(3), -0.1, seed=1), ValueError, "must be at least 0 and below 1, got -0.1"),
        (lambda: kernels.dropout(np.ones(3), np.nan, seed=1), ValueError, "at least 0 and below 1, got nan"),
        (lambda: kernels.dropout(np.ones(3, int), 0.1, seed=1), TypeError, "dropout: x is int64: must be float32 or"),
        (lambda: kernels.dropout([1.0], 0.1, seed=1), TypeError, "dropout: x is a list: must be a NumPy or"),
    ],
)  # fmt: skip
def test_bad_input_says_what_came_and_what_to_do(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_a_gradient_of_the_wrong_shape_is_refused():
    _, saved = kernels.dropout_forward(np.ones((2, 3)), 0.5, seed=1)
    with pytest.raises(ValueError, match=re.escape("dy is (3, 2): must be (2, 3)")):
        kernels.dropout_backward(np.ones((3, 2)), saved)


def test_dropout_reads_its_step_from_an_array_when_it_runs():
    x, step = np.ones(5000, np.float32), np.array([3])
    plain = kernels.dropout(x, 0.4, seed=7, stream=2, step=3)
    np.testing.assert_array_equal(kernels.dropout(x, 0.4, seed=7, stream=2, step=step), plain)
    with Recording() as recording:
        y, saved = kernels.dropout_forward(x, 0.4, seed=7, stream=2, step=step)
        (dx,) = kernels.dropout_backward(x, saved)
    step[0] = 4
    recording.replay()
    expected = kernels.dropout(x, 0.4, seed=7, stream=2, step=4)
    assert (expected != plain).any()
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("step", [np.array([1, 2]), np.array([1.0]), np.array([-1])])
def test_dropout_refuses_other_arrays_as_step(step):
    with pytest.raises((TypeError, ValueError), match="dropout: step must"):
        kernels.dropout(np.ones(3), 0.5, seed=1, step=step)
