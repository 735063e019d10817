"""Activations by the CUDA kernels, in Numba's simulator, beyond the generated cases: limits and where arrays start."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import SimulatedArray, simulated

pytestmark = [
    pytest.mark.usefixtures("kernels_run"),
    # Inf - Inf and the like: NumPy says so, a GPU does not.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ELEMENTWISE = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu", "gelu_tanh")
LADDER = tuple(kernels.VARIANTS["softmax"]["cuda"])


def triple(op):
    options = {"approximate": True} if op == "gelu_tanh" else {}
    name = op.removesuffix("_tanh")
    return lambda x: getattr(kernels, f"{name}_forward")(x, **options), getattr(kernels, f"{name}_backward")


@DTYPES
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_limits_nan_and_the_tails_are_those_of_the_cpu(op, dtype):
    x = np.array([-np.inf, np.inf, np.nan, -1e4, 1e4, -700, 700, -90, 90, -10, -5, -1, -1e-6, -0.0, 0, 1e-6, 5], dtype)
    forward, backward = triple(op)
    (here, saved_here), (there, saved_there) = forward(x), forward(simulated(x))
    np.testing.assert_array_equal(there[:3], here[:3])
    few_ulp = 1e-3 if dtype is np.float32 and op.startswith("gelu") else 4e-6 if dtype is np.float32 else 1e-12
    smallest = np.finfo(dtype).smallest_normal
    np.testing.assert_allclose(there, here, rtol=few_ulp, atol=smallest)
    dy = np.ones_like(x)
    (dx,), (other,) = backward(dy, saved_here), backward(simulated(dy), saved_there)
    np.testing.assert_allclose(other[[0, 1, *range(3, x.size)]], dx[[0, 1, *range(3, x.size)]], rtol=few_ulp, atol=1e-6)


@DTYPES
@pytest.mark.parametrize("variant", LADDER)
def test_extreme_rows(variant, dtype):
    inf = np.inf
    x = np.zeros((7, 40), dtype)
    x[0, :2] = 1e4, -1e4
    x[1] = -1e4
    x[2], x[2, 33] = -inf, 0
    x[3], x[4, 20], x[5, 35] = -inf, inf, np.nan
    x[6, 1:3] = -inf
    for op in ("softmax", "log_softmax"):
        here, there = (
            getattr(kernels, op)(array, variant=name) for array, name in ((x, None), (simulated(x), variant))
        )
        assert isinstance(there, SimulatedArray)
        np.testing.assert_allclose(there, here, rtol=1e-6)
        assert np.isnan(there[3:6]).all() and not np.isnan(there[[0, 1, 2, 6]]).any()


@pytest.mark.parametrize("op", ["gelu", "softmax"])
def test_arrays_that_start_between_16_bytes(op):
    x = np.random.default_rng(2).normal(size=3 * 20 + 1).astype(np.float32)
    dy = simulated(np.ones(61, np.float32))[1:].reshape(3, 20)
    here, there = x[1:].reshape(3, 20), simulated(x)[1:].reshape(3, 20)
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    (y, saved), (other, saved_there) = forward(here), forward(there)
    np.testing.assert_allclose(other, y, rtol=2e-6)
    np.testing.assert_allclose(backward(dy, saved_there)[0], backward(np.asarray(dy), saved)[0], atol=1e-6)


def test_saved_carries_the_variant():
    x = simulated(np.ones((2, 3), np.float32))
    _, saved = kernels.softmax_forward(x, variant="online")
    assert saved.variant == "online" and kernels.softmax_backward(x, saved)[0].shape == (2, 3)
    with pytest.raises(ValueError, match="softmax: variant is 'simd': must be one of 'three-pass', 'online'"):
        kernels.softmax(x, variant="simd")


def test_a_long_row_adds_up_to_one():
    y = kernels.softmax(simulated(np.r_[0, np.full(50256, -1)].astype(np.float32)))
    np.testing.assert_allclose(np.asarray(y).sum(dtype=np.float64), 1, rtol=1e-6)
