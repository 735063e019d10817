"""Pooling beyond the generated contract: which cell wins, how offsets are kept, error texts."""

import re

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.pooling.cpu import backward, scatter

VARIANTS = list(kernels.VARIANTS["max_pool2d"]["cpu"])


def image(*rows):
    return np.array(rows, np.float32)[None, :, :, None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_of_equal_maxima_gets_the_gradient(variant):
    y, saved = kernels.max_pool2d_forward(np.ones((1, 4, 4, 20), np.float32), variant=variant)
    assert not saved.offsets.any()
    (dx,) = kernels.max_pool2d_backward(np.ones_like(y), saved)
    np.testing.assert_array_equal(dx[0, :, :, 7], np.tile([[1, 0], [0, 0]], (2, 2)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "rows, offset",
    [
        (([1, np.nan], [np.nan, 5]), 1),
        (([np.nan, 7], [8, 9]), 0),
        (([np.inf, 1], [1, np.nan]), 3),
        (([-np.inf, -np.inf], [-np.inf, -np.inf]), 0),
        (([-np.inf, -np.inf], [np.inf, np.inf]), 2),
        (([-0.0, 0.0], [0.0, -0.0]), 0),
    ],
)
def test_the_first_nan_wins(variant, rows, offset):
    x = image(*rows)
    y, saved = kernels.max_pool2d_forward(x, variant=variant)
    assert saved.offsets.item() == offset
    np.testing.assert_array_equal(y.item(), x.flat[offset])
    (dx,) = kernels.max_pool2d_backward(np.full_like(y, 3), saved)
    np.testing.assert_array_equal(np.flatnonzero(dx), [offset])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_window_takes_no_maximum_from_the_padding(variant):
    y = kernels.max_pool2d(np.full((1, 3, 3, 5), -2, np.float32), 2, padding="same", variant=variant)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 5), -2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_mean_does_not_count_the_padding(variant):
    y, saved = kernels.avg_pool2d_forward(np.full((1, 3, 3, 5), 6.0), 2, padding="same", variant=variant)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 5), 6))
    (dx,) = kernels.avg_pool2d_backward(np.ones_like(y), saved)
    np.testing.assert_array_equal(dx[0, :, :, 0], [[0.25, 0.25, 0.5], [0.25, 0.25, 0.5], [0.5, 0.5, 1]])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("pool_size, dtype", [((16, 16), np.uint8), ((1, 257), np.uint16), ((257, 256), np.uint32)])
def test_offsets_are_as_small_as_the_window_allows(variant, pool_size, dtype):
    x = np.zeros((1, *pool_size, 1), np.float32)
    x[0, -1, -1] = 1
    y, saved = kernels.max_pool2d_forward(x, pool_size, variant=variant)
    assert saved.offsets.dtype == dtype
    assert saved.offsets.item() == x.size - 1
    (dx,) = kernels.max_pool2d_backward(np.ones_like(y), saved)
    np.testing.assert_array_equal(dx, x)


def test_saved_is_small_and_can_be_printed():
    x = np.ones((2, 4, 4, 3), np.float32)
    _, saved = kernels.max_pool2d_forward(x)
    assert saved.offsets.shape == (2, 2, 2, 3) and "KH=2" in repr(saved)
    _, saved = kernels.avg_pool2d_forward(x)
    assert not any(isinstance(entry, np.ndarray) for entry in saved)


def test_inference_leaves_offsets_of_training_alone():
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    _, saved = kernels.max_pool2d_forward(x)
    kernels.max_pool2d(-x)
    np.testing.assert_array_equal(saved.offsets, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 5, 8, 17])
@pytest.mark.parametrize("window, strides", [(2, 2), (3, 2), (3, 1), ((2, 5), (1, 3)), (2, 4)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_vectors_choose_what_the_definition_does(dtype, channels, window, strides, padding):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (2, 5, 11, channels)).astype(dtype)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.3] = -np.inf
    options = {"pool_size": window, "strides": strides, "padding": padding}
    (y, saved), (by_definition, saved_there) = (
        kernels.max_pool2d_forward(x, **options, variant=variant) for variant in ("simd", "naive")
    )
    np.testing.assert_array_equal(y, by_definition)
    np.testing.assert_array_equal(saved.offsets, saved_there.offsets)
    dy = rng.standard_normal(y.shape).astype(dtype)
    np.testing.assert_array_equal(*(kernels.max_pool2d_backward(dy, s)[0] for s in (saved, saved_there)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 9, 11, 1), (3, 12, 7, 3), (2, 8, 10, 16), (2, 7, 7, 33)])
@pytest.mark.parametrize("window, strides", [(2, 2), (3, 3), (3, 2), (5, 1)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_collecting_gives_the_same_bits_as_adding_where_maxima_were(dtype, shape, window, strides, padding):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, shape).astype(dtype)
    y, (offsets, _, geometry, _) = kernels.max_pool2d_forward(x, window, strides=strides, padding=padding)
    dy = rng.standard_normal(y.size).astype(dtype)
    collected, added = np.full((2, x.size), np.nan, dtype)
    backward.max_gathered(dy, offsets.reshape(-1), collected, tuple(geometry))
    scatter.max_scatter(dy, offsets.reshape(-1), added, tuple(geometry))
    np.testing.assert_array_equal(collected, added)


def test_the_way_back_with_less_work_is_taken():
    def adds(shape, window, strides):
        _, saved = kernels.max_pool2d_forward(np.zeros(shape, np.float32), window, strides=strides)
        return scatter.pays(tuple(saved.geometry), 4)

    assert adds((8, 14, 14, 32), 3, 2) and adds((8, 28, 28, 1), 2, 2) and adds((8, 28, 28, 32), 5, 1)
    assert not adds((8, 112, 112, 64), 2, 2)  # one window over each cell, long rows
    assert not adds((1, 14, 14, 32), 3, 2)  # one image, one chunk
    assert not adds((2, 20, 20, 1), 17, 1)  # a table of so many cells would be kept


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("width, channels", [(2500, 1), (9000, 1), (9000, 3)])
def test_rows_that_fill_the_stack_and_such_that_are_too_long_for_it(kind, width, channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 6, width, channels)).astype(np.float32)
    forward, backward = (getattr(kernels, f"{kind}_pool2d_{way}") for way in ("forward", "backward"))
    y, saved = forward(x, 3, strides=2, padding="same")
    found, expected = (backward(y, saved._replace(variant=variant))[0] for variant in ("simd", "naive"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind, window, strides, shape",
    [
        ("max", 2, 2, (2, 257, 255, 32)),
        ("avg", 3, 2, (2, 257, 255, 32)),
        ("max", 3, 2, (2, 1025, 1032, 1)),
        ("avg", 3, 1, (2, 1025, 344, 3)),
        ("max", 3, 2, (2, 1025, 1033, 1)),  # rows are no whole vectors
    ],
)
def test_a_gradient_larger_than_the_caches(kind, window, strides, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    forward, backward = (getattr(kernels, f"{kind}_pool2d_{way}") for way in ("forward", "backward"))
    y, saved = forward(x, window, strides=strides)
    found, expected = (backward(y, saved._replace(variant=variant))[0] for variant in ("simd", "naive"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    "make, options, error, text",
    [
        (lambda: ones(4, 4, 3), {}, ValueError, "x is (4, 4, 3): must have 4 dimensions (N, H, W, C)"),
        (lambda: ones(1, 4, 4, 3, dtype="int32"), {}, TypeError, "x is int32: must be float32 or float64"),
        (lambda: [[[[1.0]]]], {}, TypeError, "x is a list: must be a NumPy or a CuPy array"),
        (lambda: ones(1, 0, 4, 3), {"padding": "same"}, ValueError, "x is (1, 0, 4, 3): images must not be empty"),
        (
            lambda: ones(1, 4, 5, 3),
            {"pool_size": (2, 6)},
            ValueError,
            "x is (1, 4, 5, 3) and pool_size (2, 6): the window must not be larger than the image, use padding='same'",
        ),
        (lambda: ones(1, 4, 4, 3), {"pool_size": 0}, ValueError, "pool_size must be a positive integer, got 0"),
        (lambda: ones(1, 4, 4, 3), {"pool_size": 2.0}, ValueError, "pool_size must be a positive integer, got 2.0"),
        (lambda: ones(1, 4, 4, 3), {"pool_size": (2, 2, 2)}, ValueError, "pool_size must be a positive integer or two"),
        (lambda: ones(1, 4, 4, 3), {"strides": (1, -1)}, ValueError, "strides must be a positive integer, got -1"),
        (lambda: ones(1, 4, 4, 3), {"strides": (1, True)}, ValueError, "strides must be a positive integer, got True"),
        (lambda: ones(1, 4, 4, 3), {"padding": "full"}, ValueError, "padding is 'full': must be one of 'valid'"),
        (lambda: ones(1, 4, 4, 3), {"variant": "fast"}, ValueError, "variant is 'fast': must be one of 'naive'"),
    ],
)  # fmt: skip
def test_bad_input_says_what_came_and_what_to_do(kind, make, options, error, text):
    with pytest.raises(error, match=re.escape(f"{kind}_pool2d: {text}")):
        getattr(kernels, f"{kind}_pool2d")(make(), **options)


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_bad_input_to_global_pooling(kind):
    op = f"global_{kind}_pool2d"
    with pytest.raises(ValueError, match=re.escape(f"{op}: x is (4, 3): must have 4 dimensions (N, H, W, C)")):
        getattr(kernels, op)(ones(4, 3))
    with pytest.raises(ValueError, match=re.escape(f"{op}: x is (1, 4, 0, 3): images must not be empty")):
        getattr(kernels, op)(ones(1, 4, 0, 3))
    huge = np.broadcast_to(np.float32(1), (1, 2**16, 2**15, 1))
    with pytest.raises(ValueError, match=re.escape(f"{op}: the window has 65536 x 32768 cells: must be below 2**31")):
        getattr(kernels, op)(huge)


@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d", "global_max_pool2d", "global_avg_pool2d"])
def test_a_gradient_that_does_not_fit_is_refused(op):
    y, saved = getattr(kernels, f"{op}_forward")(ones(2, 4, 4, 3))
    backward = getattr(kernels, f"{op}_backward")
    with pytest.raises(ValueError, match=re.escape(f"{op}_backward: dy is (2, 5): must be {y.shape}")):
        backward(ones(2, 5), saved)
    with pytest.raises(TypeError, match=re.escape(f"{op}_backward: dy is float64 and x was float32")):
        backward(y.astype("float64"), saved)
    assert backward(y, saved, (False,)) == (None,)
