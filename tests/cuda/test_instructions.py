"""The instructions of kernels/ptx: their twins in the simulator, and they themselves in compiled code. Both against
NumPy; test_code.py looks for the GPU's own instructions."""

import compiled
import numpy as np
import pytest

compiled.required()
import warps  # noqa: E402
from ml_dtypes import bfloat16  # noqa: E402

pytestmark = pytest.mark.usefixtures("kernels_run")


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_an_asynchronous_copy_ends_in_zeros(rng):
    x, y = rng.uniform(-1, 1, 128).astype(np.float32), np.full(128, np.nan, np.float32)
    warps.copy((1,), x, y, 8)
    np.testing.assert_array_equal(y[:126], x[:126])
    assert (y[126:] == 0).all()


def test_tf32_and_bfloat16_are_float32_rounded(rng):
    """TF32 keeps ten bits of mantissa, and of two numbers that are as near takes the larger; bfloat16 keeps seven, and
    takes the even one."""
    odd = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23]
    ties = [1 + 2**-11, -1 - 3 * 2**-11, 1 + 2**-11 - 2**-23]
    nans = np.array([0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    x = np.concatenate([odd, ties, rng.normal(0, 1, 32 * 4 - 17)]).astype(np.float32)
    x = np.concatenate([x, nans])
    tf32, narrow = np.empty_like(x), np.empty_like(x)
    warps.round((4,), x, tf32, narrow)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(narrow, x.astype(bfloat16).astype(np.float32))
        mantissa, exponent = np.frexp(np.abs(x.astype(np.float64)))
        rounded = np.copysign(np.ldexp(np.floor(mantissa * 2**11 + 0.5), exponent - 11), x).astype(np.float32)
    ordinary = ~(np.abs(x) == np.float32(1e-40))  # what is left of numbers without a leading bit is the GPU's affair
    np.testing.assert_array_equal(tf32[ordinary], rounded[ordinary])


def test_the_larger_of_a_number_and_nan_is_the_number():
    odd = np.array([0, 1, -2, np.inf, -np.inf, np.nan, 1e-40, 3e38], np.float32)
    x, y = (part.reshape(-1).copy() for part in np.meshgrid(odd, odd))
    z = np.zeros_like(x)
    warps.take_larger((x.size // 32,), x, y, z)
    np.testing.assert_array_equal(z, np.fmax(x, y))


def test_a_product_in_tf32(rng):
    a, b, c = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    found = c.copy()
    warps.multiply_tf32((1,), a.reshape(-1), b.reshape(-1), found.reshape(-1))
    np.testing.assert_allclose(found, c + a.astype(float) @ b, rtol=2e-3, atol=2e-3)
    assert not np.allclose(found, c + a.astype(float) @ b, rtol=1e-6, atol=1e-6), "TF32 keeps ten bits"


def test_a_product_in_bfloat16(rng):
    a, b = (rng.uniform(-1, 1, shape).astype(bfloat16) for shape in ((16, 16), (16, 8)))
    found = np.full((16, 8), np.nan, np.float32)
    warps.multiply_bf16((1,), *(part.view(np.uint16).reshape(-1) for part in (a, b)), found.reshape(-1))
    np.testing.assert_allclose(found, a.astype(float) @ b.astype(float), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("a_along, b_along", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_products_of_warpgroups(rng, a_along, b_along):
    """Rows of A and columns of B, or terms of both, along the lines of 128 bytes."""
    a, b = (rng.uniform(-1, 1, shape).astype(bfloat16) for shape in ((128, 64), (64, 256)))
    found = np.full((128, 256), np.nan, np.float32)
    bits = (part.view(np.uint16).reshape(-1) for part in (a, b))
    warps.multiply_warpgroups(a_along, b_along)((1,), *bits, found.reshape(-1))
    np.testing.assert_allclose(found, a.astype(float) @ b.astype(float), rtol=1e-5, atol=1e-5)


def test_quotients_are_multiplications(rng):
    """Around multiples of the divisor, where the last unit counts, and at the ends."""
    from handloom.kernels.quotients import LIMIT, reciprocal

    divisors = np.r_[1:34, 2 ** np.arange(6, 31), 2 ** np.arange(6, 31) + 1, LIMIT - 1, rng.integers(34, LIMIT, 100)]
    multiples = rng.integers(0, LIMIT // divisors[:, None] + 1, (len(divisors), 20)) * divisors[:, None]
    n = np.concatenate([multiples - 1, multiples, multiples + 1, np.full((len(divisors), 1), LIMIT - 1)], 1)
    n = np.clip(n, 0, LIMIT - 1)
    n, d = n.reshape(-1), np.repeat(divisors, n.shape[1])
    factors, shifts = (np.array(part, np.uint32) for part in zip(*(reciprocal(int(one)) for one in d)))
    found = np.full(len(n), -1, np.int32)
    warps.divide((-(-len(n) // 256),), n.astype(np.int32), factors, shifts, found, len(n))
    np.testing.assert_array_equal(found, n // d)
