"""The initializers: distributions, keys, configurations, names."""

import json
import math
import re

import numpy as np
import pytest

from handloom.nn import initializers
from handloom.nn.utils import set_random_seed

RANDOM = [
    initializers.RandomUniform(),
    initializers.RandomNormal(),
    initializers.TruncatedNormal(),
    initializers.VarianceScaling(distribution="untruncated_normal"),
    initializers.GlorotUniform(),
    initializers.GlorotNormal(),
    initializers.HeUniform(),
    initializers.HeNormal(),
    initializers.LecunUniform(),
    initializers.LecunNormal(),
    initializers.Orthogonal(),
]
IDS = [type(initializer).__name__ for initializer in RANDOM]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("initializer", RANDOM, ids=IDS)
def test_a_key_fixes_the_values(initializer, dtype):
    first = initializer((5, 6), dtype, seed=3, stream=1)
    assert (first.shape, first.dtype) == ((5, 6), dtype)
    assert first.flags.c_contiguous and first.flags.writeable
    np.testing.assert_array_equal(initializer((5, 6), dtype, seed=3, stream=1), first)
    assert not np.array_equal(initializer((5, 6), dtype, seed=3, stream=2), first)
    assert not np.array_equal(initializer((5, 6), dtype, seed=4, stream=1), first)


@pytest.mark.parametrize("initializer", RANDOM, ids=IDS)
def test_a_seed_of_its_own_wins_over_the_key(initializer):
    seeded = type(initializer)(seed=9)
    np.testing.assert_array_equal(seeded((4, 3), seed=1, stream=1), seeded((4, 3), seed=2, stream=5))


def test_without_a_key_the_process_seed_and_fresh_streams_serve():
    set_random_seed(21)
    first, second = initializers.GlorotUniform()((4, 4)), initializers.GlorotUniform()((4, 4))
    assert not np.array_equal(first, second)
    set_random_seed(21)
    np.testing.assert_array_equal(initializers.GlorotUniform()((4, 4)), first)
    np.testing.assert_array_equal(initializers.GlorotUniform()((4, 4), seed=21, stream=1), second)


@pytest.mark.parametrize(
    ("initializer", "variance", "bound"),
    [
        (initializers.GlorotUniform(), 2 / 700, math.sqrt(6 / 700)),
        (initializers.GlorotNormal(), 2 / 700, None),
        (initializers.HeUniform(), 2 / 400, math.sqrt(6 / 400)),
        (initializers.HeNormal(), 2 / 400, 2 * math.sqrt(2 / 400) / 0.8796),
        (initializers.LecunUniform(), 1 / 400, math.sqrt(3 / 400)),
        (initializers.LecunNormal(), 1 / 400, 2 * math.sqrt(1 / 400) / 0.8796),
        (initializers.VarianceScaling(3.0, "fan_out", "uniform"), 3 / 300, math.sqrt(9 / 300)),
        (initializers.VarianceScaling(3.0, "fan_out", "untruncated_normal"), 3 / 300, None),
        (initializers.RandomUniform(-0.2, 0.2), 0.4**2 / 12, 0.2),
        (initializers.RandomNormal(stddev=0.3), 0.09, None),
        (initializers.TruncatedNormal(stddev=0.3), (0.3 * 0.87962566) ** 2, 0.6),
    ],
    ids=repr,
)
def test_mean_variance_and_bound_of_the_distribution(initializer, variance, bound):
    values = initializer((400, 300), np.float64, seed=5, stream=2)
    assert abs(values.mean()) < 4 * math.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=0.02)
    if bound is not None:
        assert bound * 0.99 < np.abs(values).max() <= bound * 1.0001


def test_the_fans_of_a_convolution_count_the_window():
    values = initializers.GlorotUniform()((3, 5, 4, 8), seed=1, stream=1)
    limit = math.sqrt(6 / (15 * 4 + 15 * 8))
    assert limit * 0.97 < np.abs(values).max() <= limit


@pytest.mark.parametrize("shape", [(), (7,)])
def test_scalars_and_vectors_can_be_drawn(shape):
    assert initializers.HeNormal()(shape, seed=1, stream=1).shape == shape


def test_means_shift_the_distribution():
    assert initializers.RandomNormal(mean=5.0)((100,), seed=1, stream=1).mean() == pytest.approx(5, abs=0.05)
    assert initializers.TruncatedNormal(mean=-5.0)((100,), seed=1, stream=1).mean() == pytest.approx(-5, abs=0.05)


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8), (3, 3, 4, 5), (1, 1), (64, 256)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    values = initializers.Orthogonal(gain=2.0)(shape, np.float64, seed=1, stream=4)
    matrix = values.reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, 4 * np.eye(min(matrix.shape)), atol=1e-13)


def test_orthogonal_is_the_same_in_both_precisions_and_of_either_sign():
    single = initializers.Orthogonal()((20, 20), np.float32, seed=1, stream=4)
    double = initializers.Orthogonal()((20, 20), np.float64, seed=1, stream=4)
    np.testing.assert_array_equal(single, double.astype(np.float32))
    signs = {np.sign(initializers.Orthogonal(seed=seed)((1, 1))).item() for seed in range(20)}
    assert signs == {-1.0, 1.0}


def test_constants():
    assert initializers.Zeros()((2, 3)).tolist() == [[0, 0, 0]] * 2
    assert initializers.Ones()((2,), np.float64).dtype == np.float64
    np.testing.assert_array_equal(initializers.Constant(0.5)((2, 2)), np.full((2, 2), 0.5, np.float32))
    np.testing.assert_array_equal(initializers.Constant([1, 2])((3, 2)), [[1, 2]] * 3)


@pytest.mark.parametrize("name", sorted(initializers._BY_NAME))
def test_every_name_survives_a_round_trip_through_json(name):
    initializer = initializers.get(name)
    assert initializer.__class__.__name__ in initializers.__all__
    config = json.loads(json.dumps(initializers.serialize(initializer)))
    again = initializers.get(config)
    assert type(again) is type(initializer)
    assert again.get_config() == initializer.get_config()
    assert type(initializers.get(type(initializer).__name__)) is type(initializer)


def test_arguments_survive_a_round_trip_through_json():
    for initializer in (
        initializers.Constant(np.array([1.5, 2.0])),
        initializers.RandomUniform(-1.0, 2.0, seed=np.int64(3)),
        initializers.VarianceScaling(0.5, "fan_out", "uniform", seed=4),
        initializers.Orthogonal(gain=1.5, seed=2**63),
        initializers.HeNormal(seed=1),
    ):
        again = initializers.get(json.loads(json.dumps(initializers.serialize(initializer))))
        np.testing.assert_array_equal(again((3, 2), seed=1, stream=1), initializer((3, 2), seed=1, stream=1))


def test_get_takes_instances_classes_and_functions():
    initializer = initializers.Ones()
    assert initializers.get(initializer) is initializer
    assert isinstance(initializers.get(initializers.HeNormal), initializers.HeNormal)
    ramp = initializers.get(lambda shape, dtype: np.arange(math.prod(shape), dtype=dtype).reshape(shape))
    np.testing.assert_array_equal(ramp((2, 2), np.float32, seed=1, stream=1), [[0, 1], [2, 3]])
    assert ramp((2, 2), np.float64).dtype == np.float64


def wide(shape, dtype):
    return np.zeros(9, dtype)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: initializers.get("glorot_unifrom"), ValueError, "initializer: unknown name 'glorot_unifrom': it must"),
        (lambda: initializers.get("glorot_unifrom"), ValueError, "did you mean 'glorot_uniform'?"),
        (lambda: initializers.get(None), ValueError, "initializer: unknown name None: it must be one of constant,"),
        (lambda: initializers.HeNormal(seed=1.5), TypeError, "HeNormal: seed must be an integer or None, got 1.5"),
        (lambda: initializers.HeNormal(seed=-1), ValueError, "HeNormal: seed must lie between 0 and 2**64 - 1, got -1"),
        (lambda: initializers.RandomNormal(stddev=-1), ValueError, "RandomNormal: stddev must not be negative, got -1"),
        (lambda: initializers.VarianceScaling(0.0), ValueError, "VarianceScaling: scale must be positive, got 0.0"),
        (lambda: initializers.VarianceScaling(mode="fan"), ValueError, "VarianceScaling mode: unknown name 'fan'"),
        (
            lambda: initializers.VarianceScaling(distribution="normal"),
            ValueError,
            "VarianceScaling distribution: unknown name 'normal': it must be one of truncated_normal, uniform,",
        ),
        (lambda: initializers.Orthogonal()((4,)), ValueError, "Orthogonal: shape must have at least two axes, got"),
        (lambda: initializers.get(wide)((2, 2)), ValueError, "initializer wide: returned shape (9,), must be (2, 2)"),
        (
            lambda: initializers.serialize(initializers.get(wide)),
            ValueError,
            "initializer wide: cannot be saved: only handloom's own initializers can",
        ),
        (lambda: initializers.Initializer()((1,)), NotImplementedError, "must define __call__(shape, dtype)"),
        (lambda: initializers.RandomInitializer()((1,)), NotImplementedError, "a random initializer must define draw"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
