"""conv2d beyond the generated contract: error texts, "same" and phases by hand."""

import re

import numba
import numpy as np
import pytest
from harness import assert_close, extra_memory, load_cases

from handloom import kernels
from handloom.kernels import threads
from handloom.kernels.convolution.cpu import far, grouped, winograd
from handloom.kernels.convolution.cpu.tables import cut
from handloom.kernels.convolution.reference import conv2d, conv2d_backward
from handloom.kernels.workspace import CACHES


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


IMAGE, WINDOW = ones(2, 5, 6, 4), ones(3, 3, 4, 8)


@pytest.mark.parametrize(
    "arrays, options, text",
    [
        ((ones(5, 6, 4), WINDOW), {}, "x is (5, 6, 4): must have 4 dimensions (N, H, W, C)"),
        ((IMAGE, ones(3, 4, 8)), {}, "w is (3, 4, 8): must have 4 dimensions (KH, KW, C / groups, F)"),
        ((ones(0, 5, 6, 4), WINDOW), {}, "x is (0, 5, 6, 4): must not be empty"),
        ((IMAGE, ones(3, 3, 4, 0)), {}, "w is (3, 3, 4, 0): must not be empty"),
        ((IMAGE, ones(3, 3, 3, 8)), {}, "x.shape[3] must equal w.shape[2] * groups (4 != 3 * 1)"),
        ((IMAGE, WINDOW), {"groups": 2}, "x.shape[3] must equal w.shape[2] * groups (4 != 4 * 2)"),
        ((IMAGE, ones(3, 3, 2, 7)), {"groups": 2}, "groups is 2: w.shape[3] must be a multiple of groups"),
        ((IMAGE, WINDOW, ones(4)), {}, "b is (4,) and w is (3, 3, 4, 8): b must be (8,)"),
        ((ones(1, 2, 9, 4), WINDOW), {}, "the window covers 3 cells, the padded image has 2; use padding='same'"),
        ((IMAGE, WINDOW), {"dilation": 3}, "the window covers 7 cells, the padded image has 5"),
        ((IMAGE, WINDOW), {"strides": 0}, "strides must be a positive integer, got 0"),
        ((IMAGE, WINDOW), {"strides": True}, "strides must be a positive integer, got True"),
        ((IMAGE, WINDOW), {"strides": (1, -1)}, "strides must be a positive integer, got -1"),
        ((IMAGE, WINDOW), {"strides": (1, 2, 3)}, "strides must be a positive integer or two of them, got (1, 2, 3)"),
        ((IMAGE, WINDOW), {"dilation": 1.0}, "dilation must be a positive integer, got 1.0"),
        ((IMAGE, WINDOW), {"groups": 0}, "groups must be a positive integer, got 0"),
        ((IMAGE, WINDOW), {"groups": [1]}, "groups must be a positive integer, got [1]"),
        ((IMAGE, WINDOW), {"padding": "full"}, "padding is 'full': must be one of 'valid', 'same'"),
        ((IMAGE, WINDOW), {"padding": 1}, "padding is 1: must be 'valid', 'same' or ((top, bottom), (left, right))"),
        ((IMAGE, WINDOW), {"padding": (1, 1)}, "padding is (1, 1): must be 'valid', 'same' or ((top, bottom), "),
        ((IMAGE, WINDOW), {"padding": ((0, -1), (0, 0))}, "with integers of at least 0"),
        ((IMAGE, WINDOW), {"activation": "gelu"}, "activation is 'gelu': must be one of None, 'relu'"),
        ((IMAGE, WINDOW), {"variant": "fft"}, "variant is 'fft': must be one of 'naive', 'im2col'"),
    ],
)  # fmt: skip
def test_bad_values_say_what_came_and_what_to_do(arrays, options, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        kernels.conv2d(*arrays, **options)


@pytest.mark.parametrize(
    "x, w, text",
    [
        (IMAGE, ones(3, 3, 4, 8, dtype="float64"), "x is float32 and w is float64: dtypes must be the same"),
        (ones(1, 5, 5, 4, dtype="uint8"), WINDOW, "x is uint8: must be float32 or float64"),
        ([[1.0]], WINDOW, "x is a list: must be a NumPy or a CuPy array"),
    ],
)
def test_bad_types_say_what_came_and_what_to_do(x, w, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        kernels.conv2d(x, w)


def test_gradients_that_do_not_fit_are_refused():
    y, saved = kernels.conv2d_forward(IMAGE, WINDOW)
    with pytest.raises(ValueError, match=re.escape("dy is (2, 3, 3, 8): must be (2, 3, 4, 8)")):
        kernels.conv2d_backward(y[:, :, :3], saved)
    with pytest.raises(TypeError, match="x is float32 and dy is float64"):
        kernels.conv2d_backward(y.astype("float64"), saved)
    with pytest.raises(ValueError, match="needs has 2 entries: must have one bool for each of x, w, b"):
        kernels.conv2d_backward(y, saved, (True, True))


def test_lists_are_taken_where_tuples_are():
    expected = kernels.conv2d(IMAGE, WINDOW, strides=(2, 1), padding=((1, 0), (2, 1)), dilation=(1, 2))
    actual = kernels.conv2d(IMAGE, WINDOW, strides=[2, 1], padding=[[1, 0], [2, 1]], dilation=[1, 2])
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "size, window, stride, dilation, before, after",
    # Worked out by hand from TensorFlow's rule: outputs = size / stride rounded up; an odd zero comes last.
    [(5, 3, 1, 1, 1, 1), (5, 2, 1, 1, 0, 1), (6, 3, 2, 1, 0, 1), (7, 3, 2, 1, 1, 1), (7, 3, 1, 2, 2, 2)],
)
def test_same_padding_puts_the_odd_zero_at_the_end(size, window, stride, dilation, before, after):
    rng = np.random.default_rng(5)
    x, w = rng.uniform(-1, 1, (1, size, size, 2)), rng.uniform(-1, 1, (window, window, 2, 3))
    options = {"strides": stride, "dilation": dilation}
    same = kernels.conv2d(x, w, padding="same", **options)
    assert same.shape[1:3] == (-(-size // stride),) * 2
    np.testing.assert_array_equal(same, kernels.conv2d(x, w, padding=((before, after), (before, after)), **options))


def test_an_output_is_never_the_input_of_another_call():
    """Workspaces are kept between calls; results must not lie in them."""
    x, w = ones(2, 20, 20, 8), ones(3, 3, 8, 40)
    y, saved = kernels.conv2d_forward(x, w, padding="same")
    gradients = kernels.conv2d_backward(y, saved)
    kept = [array.copy() for array in (y, *gradients[:2])]
    _, other = kernels.conv2d_forward(2 * x, 3 * w, padding="same")
    kernels.conv2d_backward(5 * y, other)
    for array, copy in zip((y, *gradients[:2]), kept):
        np.testing.assert_array_equal(array, copy)


def test_im2col_in_pieces_is_im2col(monkeypatch):
    rng = np.random.default_rng(9)
    x, w, b = rng.uniform(-1, 1, (5, 7, 8, 4)), rng.uniform(-1, 1, (3, 2, 2, 6)), rng.uniform(-1, 1, 6)
    results = []
    for numbers in (1 << 19, 3000, 1):  # all images in one matrix; four at a time; one at a time
        monkeypatch.setattr("handloom.kernels.convolution.cpu.im2col.PATCHES", numbers)
        y, saved = kernels.conv2d_forward(x, w, b, groups=2, padding="same", activation="tanh", variant="im2col")
        results.append((y, *kernels.conv2d_backward(y, saved)))
    for result in results[1:]:
        for got, want in zip(result, results[0], strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_im2col_takes_no_second_gradient_where_there_is_no_padding():
    x, w = ones(1, 40, 40, 32), ones(1, 1, 32, 4)
    y, saved = kernels.conv2d_forward(x, w, variant="im2col")
    taken = extra_memory(lambda: kernels.conv2d_backward(y, saved, (True, False, False)), y)
    assert x.nbytes <= taken < 1.5 * x.nbytes  # the matrix is as large as x


@pytest.mark.parametrize(
    "images, pixels, x_size, panels, w_size, blocks, together",
    [
        (8, 56 * 56, 58 * 58 * 64, 4, 9 * 64 * 64, 4, 4),  # x is large: by pixels
        (1, 7 * 7, 9 * 9 * 512, 32, 9 * 512 * 512, 1, 1),  # w is large: by panels
        (8, 35 * 35, 39 * 39 * 64, 3, 25 * 64 * 48, 4, 3),  # two shares of three panels would be 2 and 1
    ],
)
def test_work_is_cut_so_that_it_reads_least(images, pixels, x_size, panels, w_size, blocks, together):
    grid, found = cut(images, pixels, 8 * x_size, panels, x_size, w_size)
    assert (grid.sheets, grid.blocks, found) == (images, blocks, together)


def test_depthwise_past_the_caches_is_depthwise():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 96, 98, 64), np.float32), rng.standard_normal((3, 3, 1, 64), np.float32)
    y, saved = kernels.conv2d_forward(x, w, groups=64, padding="same", activation="relu")
    dy = rng.standard_normal(y.shape, np.float32)
    dx = kernels.conv2d_backward(dy, saved)[0]
    assert x[0].nbytes + y[0].nbytes < CACHES < x.nbytes + y.nbytes
    for image in range(len(x)):
        own = slice(image, image + 1)
        alone, saved = kernels.conv2d_forward(x[own], w, groups=64, padding="same", activation="relu")
        np.testing.assert_array_equal(y[own], alone)
        np.testing.assert_array_equal(dx[own], kernels.conv2d_backward(dy[own], saved)[0])


@pytest.mark.parametrize("spoilt", [np.nan, -np.inf])
@pytest.mark.parametrize("groups", [1, 24])
def test_a_weight_that_is_not_finite_makes_nan_of_the_zeros_around_the_image(groups, spoilt):
    x, w = np.ones((1, 6, 40, 24), np.float32), np.ones((3, 3, 24 // groups, 24), np.float32)
    w[0, 0, 0, 17] = spoilt
    y = kernels.conv2d(x, w, groups=groups, padding="same", variant="threaded")
    expected = np.full(y.shape[1:3], np.isnan(spoilt))
    expected[0] = expected[:, 0] = True
    np.testing.assert_array_equal(np.isnan(y[0, :, :, 17]), expected)
    assert np.isfinite(np.delete(y, 17, axis=-1)).all()


FAR = [c for c in load_cases() if c.op == "conv2d" and c.options.get("groups", 1) < 4]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", FAR, ids=lambda case: case.id)
def test_few_pixels_that_meet_many_weights_follow_the_definition(case, dtype, monkeypatch):
    """Where weights are taken to be many, whatever their number, each of them is read once: in blocks of 3 channels."""
    monkeypatch.setattr(far, "FAR_BYTES", 0)
    monkeypatch.setattr(far, "depth_of", lambda *_: 3)
    monkeypatch.setattr(threads, "THREADS_PAY", 0)
    taken = []
    multiply = far.multiply
    monkeypatch.setattr(far, "multiply", lambda *args: (taken.append(args), multiply(*args)))
    given = case.make(np.random.default_rng(7), np.dtype(dtype))
    dy = None
    results = []
    for count in (1, numba.config.NUMBA_NUM_THREADS):
        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            y, saved = kernels.conv2d_forward(*given.values(), **case.options, variant="threaded")
            dy = np.random.default_rng(8).uniform(-1, 1, y.shape).astype(dtype) if dy is None else dy
            results.append((y, kernels.conv2d_backward(dy, saved, (True, False, False))[0]))
        finally:
            numba.set_num_threads(before)
    wide = [None if array is None else array.astype(np.float64) for array in given.values()]
    expected = conv2d(*wide, **case.options)
    dx, *_ = conv2d_backward(dy.astype(np.float64), *wide, **case.options)
    assert_close(results[0][0], expected, case.length, "y")
    assert_close(results[0][1], dx, case.length, "dx")
    for one, other in zip(*results):
        np.testing.assert_array_equal(one, other)
    few_pixels = y.size // y.shape[-1] <= far.PIXELS
    assert taken or not few_pixels or grouped.suits(saved.geometry, y.itemsize)


def test_weights_that_are_many_are_not_copied():
    rng = np.random.default_rng(1)
    x, w = rng.uniform(-1, 1, (1, 8, 8, 170)).astype("float32"), rng.uniform(-1, 1, (3, 3, 170, 190)).astype("float32")
    assert w.nbytes > far.FAR_BYTES

    def forward():
        return kernels.conv2d(x, w, padding="same", variant="threaded")

    assert_close(forward(), conv2d(x.astype(np.float64), w.astype(np.float64), padding="same"), 9 * 170, "y")
    assert extra_memory(forward) < w.nbytes // 4


@pytest.mark.parametrize("spoilt", [np.inf, -np.inf, np.nan])
def test_of_many_weights_one_that_is_not_finite_makes_nan_of_the_zeros_around_the_image(spoilt, monkeypatch):
    monkeypatch.setattr(far, "FAR_BYTES", 0)
    x, w = np.ones((1, 6, 40, 24), np.float32), np.ones((3, 3, 24, 70), np.float32)
    w[0, 0, 20, 17] = spoilt
    y = kernels.conv2d(x, w, padding="same", variant="threaded")
    expected = np.full(y.shape[1:3], np.isnan(spoilt))
    expected[0] = expected[:, 0] = True
    np.testing.assert_array_equal(np.isnan(y[0, :, :, 17]), expected)
    assert np.isfinite(np.delete(y, 17, axis=-1)).all()


def test_many_chunks_give_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr("handloom.kernels.threads.THREADS_PAY", 0)
    rng = np.random.default_rng(3)
    x, w, b = (rng.uniform(-1, 1, shape).astype("float32") for shape in ((5, 23, 19, 33), (3, 3, 33, 70), (70,)))
    results = []
    before = numba.get_num_threads()
    for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
        numba.set_num_threads(count)
        try:
            y, saved = kernels.conv2d_forward(x, w, b, padding="same", strides=(1, 2), activation="sigmoid")
            results.append([array.tobytes() for array in (y, *kernels.conv2d_backward(y, saved))])
        finally:
            numba.set_num_threads(before)
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    "shape, filters, padding, dilation",
    [
        ((1, 1, 1, 1), 1, "same", 1),
        ((1, 3, 3, 8), 16, "valid", 1),
        ((2, 4, 4, 9), 15, "same", 1),
        ((1, 5, 8, 16), 17, "same", 1),
        ((3, 6, 13, 7), 33, "valid", 1),
        ((1, 2, 5, 8), 5, ((5, 4), (0, 6)), 1),
        ((2, 9, 7, 40), 3, ((0, 1), (3, 0)), 1),
        ((5, 17, 18, 31), 48, "same", 1),
        ((1, 1, 1, 1), 1, "same", 3),
        ((2, 5, 12, 9), 5, "valid", 2),
        ((1, 13, 9, 8), 17, "same", (1, 4)),
        ((1, 10, 11, 16), 15, ((5, 0), (1, 7)), (3, 2)),
        ((2, 21, 18, 20), 33, "same", 2),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_winograd_follows_the_definition_at_every_border(
    shape, filters, padding, dilation, activation, dtype, monkeypatch
):
    """Images below, at and above a tile, channels and filters around vectors, zeros wider than the window; tiles in one
    another, some of them without a pixel."""
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    rng = np.random.default_rng(2)
    x, w, b = (rng.uniform(-0.1, 1, s).astype(dtype) for s in (shape, (3, 3, shape[3], filters), filters))
    w /= 3 * shape[3]
    results = []
    for variant in ("naive", "winograd"):
        y, saved = kernels.conv2d_forward(
            x, w, b, padding=padding, dilation=dilation, activation=activation, variant=variant
        )
        dz = np.random.default_rng(3).uniform(-1, 1, y.shape).astype(dtype)
        results.append((y, *kernels.conv2d_backward(dz, saved)))
    for got, want in zip(results[1], results[0], strict=True):
        assert_close(got, want, 9 * max(shape[3], filters), "winograd")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("draw", ["uniform", "normal"])
@pytest.mark.parametrize("channels", [8, 40, 300])
def test_winograd_rounds_as_the_contract_states(draw, channels, dtype, monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    rng = np.random.default_rng(channels)
    numbers = rng.standard_normal if draw == "normal" else lambda size: rng.uniform(-1, 1, size)
    x, w = numbers((2, 16, 20, channels)).astype(dtype), numbers((3, 3, channels, 9)).astype(dtype)
    y = kernels.conv2d(x, w, padding="same", variant="winograd")
    wide = np.longdouble if dtype == "float64" else np.float64
    exact, sums = (conv2d(f(x.astype(wide)), f(w.astype(wide)), padding="same") for f in (np.positive, np.abs))
    tiles = sums.reshape(2, 4, 4, 5, 4, 9)
    largest = np.broadcast_to(tiles.max(axis=(2, 4), keepdims=True), tiles.shape).reshape(y.shape)
    eps = np.finfo(dtype).eps
    assert (abs(y - exact) <= 32 * eps * largest).all()
    assert abs(y - exact).max() > 2 * eps * sums.min(), "is this still the way with fewer multiplications?"


@pytest.mark.parametrize("size", [1, 30])
def test_winograd_at_worst_rounds_as_the_contract_states(size, monkeypatch):
    """Numbers of very different magnitude: one tall peak among small ones."""
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, (1, 12, 12, size)).astype("float32")
    x[0, 3, 3] = 1e6
    w = rng.uniform(-1, 1, (3, 3, size, 16)).astype("float32")
    y = kernels.conv2d(x, w, variant="winograd")
    error = abs(y - conv2d(x.astype("float64"), w.astype("float64"))).max()
    assert error <= 2304 * (size + 20) * np.finfo("float32").eps * abs(x).max() * abs(w).max()


def test_one_nan_reaches_its_tiles_and_no_further(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    for spoilt in (np.nan, np.inf):
        x, w = ones(1, 16, 16, 8), ones(3, 3, 8, 8)
        x[0, 5, 9, 3] = spoilt
        reached = np.isnan(kernels.conv2d(x, w, padding="same", variant="winograd")).any(axis=(0, 3))
        assert reached[4:8, 8:12].all()
        assert (
            not reached[:4].any() and not reached[8:].any() and not reached[:, 12:].any() and not reached[:, :8].any()
        )


def test_one_nan_reaches_its_tiles_with_dilation_too(monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    x, expected = ones(1, 16, 16, 8), np.zeros((16, 16), bool)
    x[0, 3, 11, 3] = np.nan
    expected[1:8:2, 9:16:2] = True
    y = kernels.conv2d(x, ones(3, 3, 8, 8), padding="same", dilation=2, variant="winograd")
    np.testing.assert_array_equal(np.isnan(y).any(axis=(0, 3)), expected)


@pytest.mark.parametrize("case", [case for case in load_cases() if case.id.startswith("points")], ids=str)
def test_the_cases_named_points_are_computed_by_points(case, monkeypatch):
    taken = []
    monkeypatch.setattr(winograd, "_convolve", lambda *args: taken.append(args))
    given = case.make(np.random.default_rng(0), np.dtype("float32"))
    y, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **case.options, variant="winograd")
    getattr(kernels, f"{case.op}_backward")(y, saved, (True, False, False))
    assert len(taken) == 2


@pytest.mark.parametrize("case", [c for c in load_cases() if c.op == "conv2d_max_pool2d"], ids=lambda case: case.id)
@pytest.mark.parametrize("variant, of_conv2d", [("separate", None), ("direct", "threaded"), ("winograd", None)])
def test_the_maximum_behind_a_convolution_has_the_bits_of_both_in_turn(case, variant, of_conv2d):
    """Also which of several equal pixels the gradient goes to: where relu made many of them zero."""
    given = case.make(np.random.default_rng(5), np.dtype("float32"))
    y, saved = kernels.conv2d_max_pool2d_forward(*given.values(), **case.options, variant=variant)
    z, _ = kernels.conv2d_forward(*given.values(), **case.options, variant=of_conv2d)
    expected, pooled = kernels.max_pool2d_forward(z)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(saved.offsets, pooled.offsets)


@pytest.mark.parametrize(
    "dtype, shape, filters, options",
    [
        ("float32", (3, 31, 36, 1), 33, {}),
        ("float32", (20, 9, 8, 3), 16, {"padding": "same"}),
        ("float32", (2, 40, 23, 4), 7, {"strides": (2, 1), "dilation": (1, 2), "padding": ((1, 2), (0, 3))}),
        ("float64", (2, 25, 26, 2), 19, {"padding": "same"}),
    ],
)
def test_the_gradient_of_few_weights_is_made_of_that_of_the_maxima(dtype, shape, filters, options):
    """That of z, four times as large, is then nowhere. Several images a sheet, blocks of windows, what no window holds;
    an infinity in x is NaN where a window's other pixels multiply it by zero."""
    rng = np.random.default_rng(len(options))
    x, w = rng.standard_normal(shape).astype(dtype), rng.standard_normal((3, 3, shape[-1], filters)).astype(dtype)
    y, saved = kernels.conv2d_max_pool2d_forward(x, w, **options, variant="direct")
    dy = rng.standard_normal(y.shape).astype(dtype)

    def gradient(saved):
        return kernels.conv2d_max_pool2d_backward(dy, saved, (False, True, False))

    g, separate = saved.geometry, saved._replace(variant="separate")
    assert_close(gradient(saved)[1], gradient(separate)[1].astype(np.float64), g.N * g.OH * g.OW, "dw")
    padded = g.N * (g.H + sum(g.padding[0])) * (g.W + sum(g.padding[1])) * g.C * x.itemsize
    assert extra_memory(lambda: gradient(saved), dy) < padded + 16 * w.nbytes + 8192
    x[0, 5, 6, 0] = np.inf
    np.testing.assert_array_equal(np.isnan(gradient(saved)[1]), np.isnan(gradient(separate)[1]))


def test_the_maximum_behind_a_convolution_needs_two_rows_and_columns():
    for height, width in ((3, 6), (6, 3)):
        text = f"conv2d_max_pool2d: x is (1, {height}, {width}, 4) and w is (3, 3, 4, 8): the convolution has "
        with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
            kernels.conv2d_max_pool2d(ones(1, height, width, 4), WINDOW)
    with pytest.raises(ValueError, match="^conv2d_max_pool2d: w is .*: must be a multiple of groups|w.shape"):
        kernels.conv2d_max_pool2d(IMAGE, ones(3, 3, 2, 7), groups=2)


# Of ResNet-50, VGG and the examples: what has many pixels for its channels, and what has few.
@pytest.mark.parametrize(
    "images, size, channels, filters, expected",
    [
        (32, 28, 32, 64, True),
        (8, 56, 64, 64, True),
        (1, 56, 64, 64, True),
        (8, 28, 128, 128, True),
        (1, 28, 128, 128, True),
        (1, 14, 256, 256, False),
        (1, 7, 512, 512, False),
        (8, 224, 3, 64, False),
        (32, 26, 1, 32, False),
    ],
)
def test_winograd_is_taken_where_it_was_measured_to_pay(images, size, channels, filters, expected):
    assert winograd.pays(images, size, size, channels, filters) == expected


def test_dilation_counts_the_tiles_that_hold_few_pixels():
    assert winograd.pays(8, 56, 56, 64, 64, (2, 2)) and winograd.pays(8, 56, 56, 64, 64, (1, 7))
    assert not winograd.pays(8, 56, 56, 64, 64, (28, 28))
