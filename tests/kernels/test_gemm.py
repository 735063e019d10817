"""matmul and dense beyond the generated contract: error texts and `out`."""

import re

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.gemm.cpu import LOOKS_AHEAD
from handloom.kernels.gemm.cpu.ways import way_of


def ones(*shape, dtype="float32"):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: kernels.matmul(ones(3, 4), ones(5, 6)), ValueError, "b is (5, 6): a.shape[-1] must equal b.shape[-2]"),
        (lambda: kernels.matmul(ones(3), ones(3, 2)), ValueError, "must have at least 2 dimensions"),
        (lambda: kernels.matmul(ones(2, 3, 4), ones(3, 4, 5)), ValueError, "dimensions (2,) and (3,) must broadcast"),
        (lambda: kernels.matmul(ones(2, 2), ones(2, 2, dtype="float64")), TypeError, "dtypes must be the same"),
        (lambda: kernels.matmul(ones(2, 2, dtype="int32"), ones(2, 2)), TypeError, "a is int32: must be float32"),
        (lambda: kernels.matmul([[1.0]], ones(1, 1)), TypeError, "a is a list: must be a NumPy or a CuPy array"),
        (lambda: kernels.matmul(ones(2, 2), ones(2, 2), out=ones(3, 2)), ValueError, "out is (3, 2)"),
        (lambda: kernels.matmul(ones(2, 2), ones(2, 2), variant="fast"), ValueError, "variant is 'fast': must be"),
        (lambda: kernels.dense(ones(2, 3), ones(4, 5)), ValueError, "x must be (..., 4)"),
        (lambda: kernels.dense(ones(2, 3), ones(3, 5), ones(4)), ValueError, "b must be (5,)"),
        (lambda: kernels.dense(ones(2, 3), ones(3, 5), activation="gelu"), ValueError, "activation is 'gelu': must be"),
    ],
)  # fmt: skip
def test_bad_input_says_what_came_and_what_to_do(call, error, text):
    with pytest.raises(error, match=re.escape(text)):
        call()


def test_bfloat16_is_for_gpus():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    text = "a is bfloat16: must be float32 or float64, on a GPU also bfloat16, for example a.astype('float32')"
    with pytest.raises(TypeError, match=f"^matmul: {re.escape(text)}$"):
        kernels.matmul(ones(2, 2, dtype=bfloat16), ones(2, 2, dtype=bfloat16))


def test_out_is_written_and_returned():
    a, b, out = ones(3, 4), ones(4, 5), np.full((3, 5), np.nan, np.float32)
    assert kernels.matmul(a, b, out=out) is out
    np.testing.assert_array_equal(out, 4)


INPUTS = {"matmul": {"a": (4, 4), "b": (4, 4)}, "dense": {"x": (4, 4), "w": (4, 4), "b": (4,)}}


@pytest.mark.parametrize("op", INPUTS)
def test_out_that_is_read_only_is_refused(op):
    out = ones(4, 4)
    out.flags.writeable = False
    text = f"^{op}: out is read-only: the result is written to it, pass an array that is writeable$"
    with pytest.raises(ValueError, match=text):
        getattr(kernels, op)(*(ones(*shape) for shape in INPUTS[op].values()), out=out)
    np.testing.assert_array_equal(out, 1)


@pytest.mark.parametrize("op", INPUTS)
def test_out_that_overlaps_an_input_is_refused(op):
    for name in INPUTS[op]:
        inputs = {name: ones(*shape) for name, shape in INPUTS[op].items()}
        memory = ones(20)
        inputs[name] = memory[4:].reshape(4, 4) if inputs[name].ndim == 2 else memory[:4]
        text = f"^{op}: out may share memory with {name}: pass an array of its own, or None for a new one$"
        with pytest.raises(ValueError, match=text):
            getattr(kernels, op)(*inputs.values(), out=memory[:16].reshape(4, 4))


def test_gradient_of_the_wrong_shape_is_refused():
    _, saved = kernels.dense_forward(ones(2, 3), ones(3, 5))
    with pytest.raises(ValueError, match=re.escape("dy is (2, 4): must be (2, 5)")):
        kernels.dense_backward(ones(2, 4), saved)


@pytest.mark.parametrize(
    "m, n, k, operands, way",
    [
        (1, 4096, 4096, "nn", "rows"),
        (5, 9, 70, "nn", "rows"),
        (8, 1000, 1000, "nn", "rows"),
        (3, 64, 60, "nt", "direct"),
    ]
    + [(400, 1, 9, operands, way) for operands, way in (("nn", "dots"), ("nt", "dots"), ("tn", "columns"))]
    + [(4, 400, 200, operands, way) for operands, way in (("nn", "rows"), ("nt", "dots"), ("tt", "dots"))]
    + [(400, 4, 200, "nn", "dots"), (400, 4, 200, "tt", "columns"), (400, 4, 20, "nn", "direct")]
    + [(400, 10, 600, "nn", "dots"), (400, 10, 600, "tn", "columns"), (12, 400, 600, "nt", "dots")]
    + [(400, 10, 100, "nn", "direct"), (400, 13, 600, "nn", "direct")]
    + [(200, 200, 5408, "nn", "sums"), (164, 256, 1600, "tn", "sums")]
    + [(32, 4096, 1024, "nn", "sums"), (100, 5000, 1000, "tn", "sums"), (32, 1000, 1000, "nn", "direct")]
    + [(4096, 4096, 32, "tn", "packed"), (4096, 4096, 32, "nn", "read")]
    + [(size, size, size, "nn", "direct") for size in (20, 48, 100, 128, 256, 384)]
    + [(32, 128, 5408, "nn", "direct"), (100, 1000, 1000, "nn", "direct"), (5408, 128, 32, "tn", "direct")]
    + [(300, 300, 300, operands, "direct") for operands in ("tn", "nt", "tt")]
    + [
        (20000, 64, 500, "nn", "read or packed"),
        (6400, 100, 256, "nt", "read or packed"),
        (8000, 250, 400, "nt", "read or packed"),
        (20000, 64, 500, "tn", "packed"),
    ]
    + [(size, size, size, "nn", "read or packed") for size in (512, 700)]
    + [(1000, 128, 1000, "nn", "read or direct"), (100000, 32, 27, "nn", "read")]
    + [(1024, 512, 1024, "nn", "read or packed"), (512, 4096, 1000, "nt", "read or packed")]
    + [
        (1024, 500, 1024, "nn", "read or packed"),
        (1500, 500, 1000, "nt", "read or packed"),
        (512, 4096, 1024, "nt", "packed"),
        (2000, 4096, 1024, "nn", "packed"),
        (1600, 1024, 256, "nn", "read or packed"),
        (2000, 2000, 1025, "nn", "packed"),
    ]
    + [(32, 5408, 128, "nt", "turned"), (1024, 1024, 1024, "tn", "packed"), (2000, 2000, 2000, "tt", "packed")],
)
def test_every_product_takes_its_way(m, n, k, operands, way):
    """At least one shape for each way, and near its borders; of two ways, the second is that of AVX-512."""
    way = way.split(" or ")[-LOOKS_AHEAD]
    assert way_of(m, n, k, 4, operands[0] == "t", operands[1] == "t") == way


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9, 12])
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_few_columns_or_rows_of_every_orientation(count, activation, dtype):
    """Numbers of rows that straddle every tile, with bias and activation, W as it is and transposed."""
    rng, k = np.random.default_rng(count), 1043
    for m, n in ((97, count), (count, 97)):
        x, w, b = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((m, k), (k, n), (n,)))
        z = x.astype("float64") @ w + b
        exact = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0), None: lambda z: z}[activation](z)
        bound = k * np.finfo(dtype).eps * (abs(x) @ abs(w) + abs(b))
        for x_order in "CF":
            for w_order in "CF":
                y = kernels.dense(np.array(x, order=x_order), np.array(w, order=w_order), b, activation=activation)
                assert (abs(y - exact) <= bound).all(), (m, n, x_order, w_order)


@pytest.mark.parametrize("activation", [None, "tanh"])
@pytest.mark.parametrize("m, n, k", [(33, 2059, 2043), (17, 4099, 1030)])
def test_few_rows_times_a_large_b(m, n, k, activation):
    """Chunks of columns whose last strip and panel are not whole, with bias and activation."""
    assert way_of(m, n, k, 4) == "sums"
    rng = np.random.default_rng(0)
    x, w, b = (rng.uniform(-1, 1, shape).astype("float32") for shape in ((m, k), (k, n), (n,)))
    z = x.astype("float64") @ w + b
    error = abs(kernels.dense(x, w, b, activation=activation) - (np.tanh(z) if activation else z))
    assert (error < k * np.finfo("float32").eps * (abs(x) @ abs(w) + abs(b))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "m, n, k",
    [(1, 1, 1), (1, 10, 5408), (1, 64, 100), (3, 33, 77), (5, 17, 1023), (6, 16, 9), (31, 10, 64), (48, 48, 48)]
    + [(7, 200, 128), (8, 128, 200), (8, 16, 300), (64, 64, 64), (79, 79, 79), (16, 240, 128), (100, 20, 240)]
    + [(80, 80, 80), (97, 100, 128), (130, 33, 200), (60, 2000, 100), (700, 17, 90), (51, 130, 520)]
    + [
        (1, 1, 17),
        (1, 1, 1000),
        (200, 1, 200),
        (19, 1, 3),
        (3, 1, 300),
        (25, 4, 130),
        (31, 10, 600),
        (7, 12, 700),
        (1, 11, 513),
    ],
)
def test_products_have_the_same_bits_on_every_way(m, n, k, dtype):
    """A training step may go the short way, and its recording the other one."""
    rng = np.random.default_rng(m)
    a, b, bias = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((m, k), (k, n), n))
    out = np.full((m, n), np.nan, dtype)
    assert kernels.matmul(a, b, out=out) is out
    for got in (kernels.matmul(a, b), out):
        np.testing.assert_array_equal(got, kernels.matmul(a, b, variant="threaded"))
    for turned in ({"transpose_a": True}, {"transpose_b": True}, {"transpose_a": True, "transpose_b": True}):
        operands = a.T.copy() if "transpose_a" in turned else a, b.T.copy() if "transpose_b" in turned else b
        out.fill(np.nan)
        assert kernels.matmul(*operands, **turned, out=out) is out
        np.testing.assert_array_equal(out, kernels.matmul(*operands, **turned, variant="threaded"))
    for activation in (None, "relu", "tanh"):
        dense = kernels.dense(a, b, bias, activation=activation)
        np.testing.assert_array_equal(dense, kernels.dense(a, b, bias, activation=activation, variant="threaded"))


@pytest.mark.parametrize("m, n, k", [(300, 0, 5), (0, 300, 5), (300, 300, 0), (3, 0, 4), (0, 3, 4), (0, 0, 0)])
def test_products_of_nothing(m, n, k):
    a, b = np.ones((m, k), "float32"), np.ones((k, n), "float32")
    for options in ({}, {"variant": "threaded"}, {"variant": "simd"}):
        np.testing.assert_array_equal(kernels.matmul(a, b, **options), np.zeros((m, n), "float32"))
    c, saved = kernels.matmul_forward(a, b)
    for gradient, operand in zip(kernels.matmul_backward(np.ones_like(c), saved), (a, b)):
        np.testing.assert_array_equal(gradient, operand * (n if operand is a else m))


def test_an_output_that_is_an_operand_is_refused_on_the_short_way_too():
    a = np.ones((8, 8), "float32")
    for b, out in ((a, a), (a.copy(), a), (a[:4].repeat(2, 0), a[:, :])):
        with pytest.raises(ValueError, match="out may share memory with"):
            kernels.matmul(a, b, out=out)
    with pytest.raises(ValueError, match="out may share memory with b"):
        kernels.dense(np.ones((1, 8), "float32"), a, (out := np.ones((1, 8), "float32"))[0], out=out)


@pytest.mark.parametrize("turned", ["nn", "tn", "nt", "tt"])
@pytest.mark.parametrize(
    "m, n, k, batch",
    [(5, 3, 7, (4,)), (20, 33, 300, (3,)), (130, 40, 9, (2, 2)), (2, 600, 5, (2,))]
    + [(1, 70, 100, (5, 3)), (70, 1, 100, (5, 3)), (3, 70, 100, (4,)), (70, 4, 101, (4,)), (31, 9, 511, (2,))],
)
def test_stacks_are_products_matrix_by_matrix(m, n, k, batch, turned):
    rng = np.random.default_rng(k)
    shapes = (k, m) if turned[0] == "t" else (m, k), (n, k) if turned[1] == "t" else (k, n)
    a, b = rng.uniform(-1, 1, (*batch, *shapes[0])), rng.uniform(-1, 1, (*batch[:-1], 1, *shapes[1]))
    options = {"transpose_a": turned[0] == "t", "transpose_b": turned[1] == "t"}
    c = kernels.matmul(a, b, **options)
    wide = (x.swapaxes(-1, -2) if turn == "t" else x for x, turn in zip((a, b), turned))
    np.testing.assert_allclose(c, np.matmul(*wide), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", [None, *kernels.VARIANTS["dense"]["cpu"]])
@pytest.mark.parametrize("rows", [(0,), (3,), (2, 3), (2, 0)], ids=str)
@pytest.mark.parametrize("k, n", [(5, 4), (5, 0), (0, 4), (0, 0)])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_dense_without_rows_terms_or_columns(variant, rows, k, n, activation):
    rng = np.random.default_rng(0)
    x, w, b = rng.random((*rows, k)), rng.random((k, n)), rng.random(n)
    y, saved = kernels.dense_forward(x, w, b, activation=activation, variant=variant)
    expected = np.sum(x[..., None] * w, axis=-2) + b
    dz = np.ones_like(expected)
    if activation:
        expected = np.tanh(expected)
        dz -= expected**2
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    dx, dw, db = kernels.dense_backward(np.ones_like(y), saved)
    np.testing.assert_allclose(dx, np.sum(dz[..., None, :] * w, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(dw, np.sum(x[..., None] * dz[..., None, :], axis=tuple(range(len(rows)))), rtol=1e-12)
    np.testing.assert_allclose(db, dz.sum(axis=tuple(range(len(rows)))), rtol=1e-12)
