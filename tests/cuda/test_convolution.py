"""Convolutions on a GPU beyond the generated contract: fewer multiplications, and tensor cores, in TF32.

TF32 rounds both factors to eleven bits, the first one not kept: each is off by 2^-11 of itself at most, and a product
by little more than 2^-10 of itself. So a sum is off by at most 2^-10 of the sum of the products' absolute values, and
by what sums in float32 are off. That is the bound here, number by number. A gradient through a ReLU starts from the y
that was found, and so does the reference.
"""

import compiled
import numpy as np
import pytest
from harness import assert_close, tolerance

from handloom import kernels
from handloom.kernels import arrays as device_arrays
from handloom.kernels.arrays import simulated
from handloom.kernels.convolution import reference
from handloom.kernels.dispatch import backend

compiled.required()
pytestmark = pytest.mark.usefixtures("kernels_run", "nan_filled_memory")
tensor_cores = backend("handloom.kernels.convolution", "cuda").tensor_cores
winograd = backend("handloom.kernels.convolution", "cuda").winograd
product = backend("handloom.kernels.gemm", "cuda").product

# (shape of x, of w, options, results): few tiles, since in the simulator each takes seconds.
CASES = {
    "copied-groups-in-phases": (
        (1, 2, 4, 6), (2, 2, 3, 4), {"groups": 2, "strides": (1, 2), "padding": ((1, 0), (0, 2)), "activation": "relu"},
        ("y", "dx", "dw", "db"),
    ),
    "more-tiles-than-places-and-parts": (
        (2, 8, 12, 4), (3, 5, 4, 4), {"dilation": (2, 1), "padding": ((2, 1), (0, 0))}, ("y", "dw"),
    ),
    "sums-in-parts": ((1, 2, 2, 8), (3, 3, 8, 12), {"padding": "same", "activation": "relu"}, ("y", "dx")),
    "blocks-of-pixels-and-filters": ((1, 1, 131, 4), (1, 1, 4, 132), {}, ("y",)),
    "blocks-of-channels-and-filters": ((1, 1, 2, 132), (1, 1, 132, 132), {}, ("dw",)),
}  # fmt: skip


def wide(array):
    return None if array is None else np.asarray(array).astype(np.float64)


def assert_within(found, expected, sums, length):
    """As exact as the text above says; `sums`: of the products' absolute values."""
    assert isinstance(found, device_arrays.SimulatedArray)
    assert found.dtype == np.float32 and found.shape == expected.shape
    error = np.abs(wide(found) - expected)
    bound = (2.0**-10 + 2.0**-22 + tolerance(np.float32, length)) * sums
    assert (error <= bound).all(), f"{(error - bound).max()} beyond the bound"


@pytest.mark.parametrize("case", CASES)
def test_tensor_cores_follow_the_reference(case, monkeypatch):
    monkeypatch.setattr(tensor_cores, "FEWEST", 40)  # so that few pixels are several parts
    x_shape, w_shape, options, results = CASES[case]
    rng = np.random.default_rng(3)
    given = [simulated(rng.uniform(-1, 1, shape).astype(np.float32)) for shape in (x_shape, w_shape, w_shape[3:])]
    before = [array.copy() for array in given]
    linear, relu = {**options, "activation": None}, "activation" in options
    x, w, b = map(wide, given)
    y, saved = kernels.conv2d_forward(*given, **options, variant="tensor" if "y" in results else "direct")
    z, sums = reference.conv2d(x, w, b, **linear), reference.conv2d(abs(x), abs(w), abs(b), **linear)
    length = max(w.size // w.shape[3], w.size // w.shape[2], y.size // y.shape[3])
    assert_within(y, np.maximum(z, 0) if relu else z, sums, length)
    dy = rng.uniform(-1, 1, y.shape).astype(np.float32)
    dz = wide(np.where(y == 0, 0, dy) if relu else dy)
    needs = tuple(name in results for name in ("dx", "dw", "db"))
    if any(needs):
        gradients = kernels.conv2d_backward(simulated(dy), saved._replace(variant="tensor"), needs)
        expected = reference.conv2d_backward(dz, x, w, b, **linear)
        sums = reference.conv2d_backward(abs(dz), abs(x), abs(w), abs(b), **linear)
        for found, want, bound, needed in zip(gradients, expected, sums, needs, strict=True):
            if needed:
                assert_within(found, want, bound, length)
    for array, was in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, was)


@pytest.mark.parametrize(
    "shape, filters, padding, activation, dtype",
    [
        ((2, 5, 6, 3), 5, "same", "relu", np.float32),
        ((1, 3, 9, 4), 8, ((5, 0), (1, 7)), "tanh", np.float64),
        ((3, 4, 8, 2), 1, ((2, 2), (2, 2)), None, np.float32),
    ],
    ids=["an-image-at-a-time", "zeros-wider-than-the-window", "few-filters"],
)
def test_fewer_multiplications_follow_the_reference(shape, filters, padding, activation, dtype, monkeypatch):
    """Images below, at and above a tile."""
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    if activation == "relu":
        monkeypatch.setattr(winograd, "GROUP_BYTES", 1)
    rng = np.random.default_rng(2)
    given = [rng.uniform(-1, 1, s).astype(dtype) for s in (shape, (3, 3, shape[3], filters), filters)]
    options = {"padding": padding, "activation": activation}
    y, saved = kernels.conv2d_forward(*map(simulated, given), **options, variant="winograd")
    dy = rng.uniform(-1, 1, y.shape).astype(dtype)
    dx, _, _ = kernels.conv2d_backward(simulated(dy), saved, (True, False, False))
    given = [wide(array) for array in given]
    expected = reference.conv2d(*given, **options), reference.conv2d_backward(wide(dy), *given, **options)[0]
    for got, want in zip((y, dx), expected, strict=True):
        assert isinstance(got, device_arrays.SimulatedArray)
        assert_close(np.asarray(got), want, 9 * max(shape[3], filters), "winograd")


def test_fewer_multiplications_round_as_the_contract_states(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    rng = np.random.default_rng(8)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 8, 8, 8), (3, 3, 8, 9)))
    y = np.asarray(kernels.conv2d(simulated(x), simulated(w), padding="same", variant="winograd"))
    exact, sums = (reference.conv2d(f(wide(x)), f(wide(w)), padding="same") for f in (np.positive, np.abs))
    tiles = sums.reshape(1, 2, 4, 2, 4, 9)
    largest = np.broadcast_to(tiles.max(axis=(2, 4), keepdims=True), tiles.shape).reshape(y.shape)
    eps = np.finfo(np.float32).eps
    assert (abs(y - exact) <= 32 * eps * largest).all()
    assert abs(y - exact).max() > 2 * eps * sums.min(), "is this still the way with fewer multiplications?"


def test_what_has_no_such_tiles_goes_another_way(monkeypatch):
    taken = []
    monkeypatch.setattr(winograd, "_convolve", lambda *args: taken.append(args))
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    x = simulated(np.ones((1, 5, 5, 2), np.float32))
    for w_shape, options in (
        ((3, 2, 2, 2), {}), ((3, 3, 2, 2), {"strides": 2}), ((3, 3, 2, 2), {"dilation": (1, 2)}),
        ((3, 3, 1, 2), {"groups": 2}),
    ):  # fmt: skip
        kernels.conv2d(x, simulated(np.ones(w_shape, np.float32)), **options, variant="winograd")
    assert not taken
    kernels.conv2d(x, simulated(np.ones((3, 3, 2, 2), np.float32)), variant="winograd")
    assert len(taken) == 1


@pytest.mark.parametrize(
    "sizes, pays",
    [
        ((32, 56, 56, 64, 64), True),
        ((32, 28, 28, 128, 128), True),
        ((32, 14, 14, 256, 256), True),
        ((32, 7, 7, 512, 512), True),
        ((2, 27, 30, 96, 100), True),  # the contract's case points-wide, and its dx
        ((2, 27, 30, 100, 96), True),
        ((1, 7, 7, 512, 512), False),  # the weights' own 36 numbers
        ((32, 56, 56, 32, 32), False),  # the trips to the cache
    ],
)
def test_where_fewer_multiplications_should_pay(sizes, pays):
    assert winograd.pays(*sizes) == pays


@pytest.mark.parametrize(
    "dtype, options",
    [(np.float64, {"activation": "tanh"}), (np.float32, {"strides": 2})],
    ids=["", "phases"],
)
def test_sums_that_are_cut_into_parts(dtype, options, monkeypatch):
    """Three of 32 terms forward, the last in part; in the gradient of the data's phases, of which some have fewer terms
    than there are parts, two."""
    monkeypatch.setattr(product, "FEWEST", 24)
    rng = np.random.default_rng(5)
    shapes = (1, 3, 4, 8), (3, 3, 8, 18), (18,)
    given = [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]
    options = {"padding": "same", **options}
    y, saved = kernels.conv2d_forward(*map(simulated, given), **options, variant="implicit")
    dy = rng.uniform(-1, 1, y.shape).astype(dtype)
    found = y, *kernels.conv2d_backward(simulated(dy), saved)
    given = [wide(array) for array in given]
    expected = reference.conv2d(*given, **options), *reference.conv2d_backward(wide(dy), *given, **options)
    for got, want in zip(found, expected, strict=True):
        error = np.abs(wide(got) - want).max()
        assert got.dtype == dtype and error <= tolerance(dtype, 162) * np.abs(want).max()


def test_how_sums_are_cut():
    """As many parts as there is room for, of 128 terms at least."""
    shares = backend("handloom.kernels.gemm", "cuda").shares
    assert shares(4608, 4) == (36, 128)
    assert shares(4608, 16) == (16, 288)
    assert shares(1000, 100) == (2, 512)
    assert shares(255, 1) == (1, 255)
    assert shares(0, 0) == (1, 0)


def test_double_precision_is_refused():
    x, w = simulated(np.ones((1, 4, 4, 4))), simulated(np.ones((2, 2, 4, 4)))
    text = "takes float32, as TF32; 'direct' and 'implicit' take float64"
    with pytest.raises(ValueError, match=f"^conv2d: variant is 'tensor' and the arrays are float64: {text}$"):
        kernels.conv2d(x, w, variant="tensor")
