"""Matrix products on a GPU beyond the generated contract: tensor cores, in TF32 and bfloat16, and broadcast batches.

Those of warpgroups run on one architecture alone; here they run in the simulator, and as PTX, as everywhere.

bfloat16 is compared with float64 products of the same bfloat16 numbers. A sum in float32 that is rounded once is off by
2^-8 of itself at most (half a unit in the last of eight bits) and by what float32 sums are off. A gradient through an
activation starts from a rounded y and a rounded dz: it gets 2^-6 of the largest. TF32 rounds both factors to eleven
bits, which is 2^-10 of each product, and sums grow slower than that.
"""

import compiled
import numpy as np
import pytest
from harness import as_float64, tolerance
from numba import float32, float64

from handloom import kernels
from handloom.kernels import arrays as device_arrays
from handloom.kernels.arrays import simulated
from handloom.kernels.dispatch import backend
from handloom.kernels.gemm import reference
from handloom.kernels.launch import Kernel

compiled.required()
ml_dtypes = pytest.importorskip("ml_dtypes")
product = backend("handloom.kernels.gemm", "cuda").product
BF16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32)
pytestmark = pytest.mark.usefixtures("kernels_run", "nan_filled_memory")
NARROW = pytest.mark.parametrize("variant, dtype", [("tensor", BF16), ("tensor", F32), ("warpgroup", BF16)], ids=str)


def drawn(dtype, *shapes):
    rng = np.random.default_rng(3)
    return [simulated(rng.uniform(-1, 1, shape).astype(dtype)) for shape in shapes]


def wide(*arrays):
    return [np.asarray(array).astype(np.float64) for array in arrays]


def assert_near(found, expected, length, *, through=False):
    """As exact as the text above says; `through`: through the gradient of an activation."""
    assert isinstance(found, device_arrays.SimulatedArray) and found.shape == expected.shape
    scale = np.abs(expected[np.isfinite(expected)]).max()
    if found.dtype == BF16:
        rtol, atol = 2.0**-8, 2.0**-6 if through else tolerance(np.float32, length)
    else:
        rtol, atol = 0, 2.0**-9
    np.testing.assert_allclose(*wide(found, expected), rtol=rtol, atol=atol * scale)


@NARROW
def test_products_of_ragged_shapes_and_their_gradients(variant, dtype):
    """13 x 31 x 5, none of it whole vectors. NaN and Inf go where they belong: the products of one row of A."""
    a, b, dc = drawn(dtype, (13, 5), (5, 31), (13, 31))
    a[3, 1], a[5, 2] = np.nan, np.inf
    c, saved = kernels.matmul_forward(a, b, variant=variant)
    with np.errstate(invalid="ignore"):  # Inf times the zeros that some BLAS fill their tiles up with
        expected = reference.matmul(*wide(a, b))
    assert_near(c, expected, 5)
    assert np.isnan(wide(c)[0]).any(axis=1).tolist() == [row == 3 for row in range(13)]
    a, b = drawn(dtype, (13, 5), (5, 31))
    for found, expected in zip(
        kernels.matmul_backward(dc, saved._replace(a=a)), reference.matmul_backward(*wide(dc, a, b)), strict=True
    ):
        assert found.dtype == dtype
        assert_near(found, expected, 31)


@NARROW
def test_transposed_operands(variant, dtype):
    """Whole vectors, read where they lie; two blocks."""
    a, b = drawn(dtype, (24, 136), (8, 24))
    c = kernels.matmul(a, b, transpose_a=True, transpose_b=True, variant=variant)
    assert_near(c, reference.matmul(*wide(a, b), transpose_a=True, transpose_b=True), 24)


@pytest.mark.parametrize("turned", [(False, False), (True, True)], ids=str)
def test_both_warpgroups_and_several_blocks(turned):
    """2 x 2 blocks, of which the first is full; two tiles of terms."""
    a, b = drawn(BF16, (72, 136) if turned[0] else (136, 72), (264, 72) if turned[1] else (72, 264))
    c = kernels.matmul(a, b, transpose_a=turned[0], transpose_b=turned[1], variant="warpgroup")
    assert_near(c, reference.matmul(*wide(a, b), transpose_a=turned[0], transpose_b=turned[1]), 72)


@pytest.mark.parametrize(
    "variant, dtype, n, k", [("tensor", BF16, 9, 130), ("tensor", F32, 8, 68), ("warpgroup", BF16, 9, 330)], ids=str
)
def test_more_tiles_than_there_is_room_for(variant, dtype, n, k):
    """Five tiles of terms through three places (six through four), the last one in part."""
    a, b = drawn(dtype, (6, k), (k, n))
    assert_near(kernels.matmul(a, b, variant=variant), reference.matmul(*wide(a, b)), k)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh"])
def test_layers_of_bfloat16(activation):
    """The default for bfloat16; without activation or with ReLU nothing is rounded twice."""
    x, w, b, dy = drawn(BF16, (10, 16), (16, 24), (24,), (10, 24))
    y, saved = kernels.dense_forward(x, w, b, activation=activation)
    through = activation in ("sigmoid", "tanh")
    assert y.dtype == BF16
    assert_near(y, reference.dense(*wide(x, w, b), activation=activation), 16)
    if activation in (None, "sigmoid"):
        expected = reference.dense_backward(*wide(dy, x, w, b), activation=activation)
        for found, want in zip(kernels.dense_backward(dy, saved), expected, strict=True):
            assert found.dtype == BF16
            assert_near(found, want, 24, through=through)


@pytest.mark.parametrize("outputs", [24, 21])
def test_a_layer_of_warpgroups(outputs):
    """Its results in whole chunks of 16 bytes, and one by one."""
    x, w, b = drawn(BF16, (10, 16), (16, outputs), (outputs,))
    y = kernels.dense(x, w, b, activation="tanh", variant="warpgroup")
    assert_near(y, reference.dense(*wide(x, w, b), activation="tanh"), 16)


def test_a_layer_in_tf32():
    x, w, b = drawn(F32, (10, 16), (16, 21), (21,))
    y = kernels.dense(x, w, b, activation="tanh", variant="tensor")
    assert_near(y, reference.dense(*wide(x, w, b), activation="tanh"), 16)


PLAIN_AND_TENSOR = pytest.mark.parametrize(
    "variant, dtype",
    [("registers", F32), ("registers", np.dtype(np.float64)), ("vectors", F32), ("vectors", np.dtype(np.float64)),
     ("tensor", BF16), ("tensor", F32), ("warpgroup", BF16)],
    ids=str,
)  # fmt: skip


@PLAIN_AND_TENSOR
def test_sums_that_are_cut_into_parts(variant, dtype, monkeypatch):
    """Three of 32 terms and one of four; bias and activation come once, after the last."""
    activation = "relu" if variant in ("tensor", "warpgroup") else "tanh"
    monkeypatch.setattr(product, "FEWEST", 25)
    x, w, b = drawn(dtype, (9, 100), (100, 12), (12,))
    y = kernels.dense(x, w, b, activation=activation, variant=variant)
    assert_near(y, reference.dense(*wide(x, w, b), activation=activation), 100)


@pytest.mark.parametrize(
    "variant, dtype", [("registers", F32), ("vectors", F32), ("tensor", BF16), ("warpgroup", BF16)], ids=str
)
@pytest.mark.parametrize(
    "a_shape, b_shape",
    [((3, 5, 8), (3, 8, 12)), ((3, 5, 8), (8, 12)), ((5, 8), (2, 2, 8, 12)), ((2, 1, 5, 8), (3, 8, 12))],
    ids=["batch", "one-b", "one-a", "both-broadcast"],
)
def test_a_batch_is_one_launch(variant, dtype, a_shape, b_shape, monkeypatch):
    """But for one in which neither operand has all matrices of it."""
    launches, launch = [], Kernel.__call__

    def counted(self, *args, **options):
        launches.append(self)
        launch(self, *args, **options)

    monkeypatch.setattr(Kernel, "__call__", counted)
    a, b = drawn(dtype, a_shape, b_shape)
    c = kernels.matmul(a, b, variant=variant)
    assert_near(c, wide(a)[0] @ wide(b)[0], 8)
    assert len(launches) == (6 if a_shape == (2, 1, 5, 8) else 1)


@pytest.mark.parametrize("variant", ["registers", "vectors"])
def test_large_blocks_and_small_ones_give_the_same(variant, monkeypatch):
    """Of 72 x 132 numbers, in blocks of 128 x 128 (128 x 64 of float64) and of a quarter."""
    for dtype in (F32, np.dtype(np.float64)):
        a, b = drawn(dtype, (72, 12), (12, 132))
        small = kernels.matmul(a, b, variant=variant)
        with monkeypatch.context() as context:
            context.setattr(product, "BLOCKS", 1)
            np.testing.assert_array_equal(kernels.matmul(a, b, variant=variant), small)


@pytest.mark.parametrize("a_shape, b_shape", [((0, 2, 3), (0, 3, 4)), ((2, 0, 3), (2, 3, 4)), ((2, 3, 0), (0, 4))])
def test_a_batch_of_nothing(a_shape, b_shape):
    a, b = drawn(F32, a_shape, b_shape)
    np.testing.assert_array_equal(np.asarray(kernels.matmul(a, b)), np.asarray(a) @ np.asarray(b))


def test_more_matrices_than_a_launch_takes(monkeypatch):
    monkeypatch.setattr(product, "MOST", 2)
    a, b = drawn(F32, (5, 3, 4), (4, 4))
    assert_near(kernels.matmul(a, b, variant="vectors"), wide(a)[0] @ wide(b)[0], 4)


def test_how_products_are_cut():
    """Large blocks where there are two for each processor of a large GPU, none of them half empty; else small ones, and
    long sums in parts."""
    large, small = product.LARGE, product.SMALL
    for sizes, expected in {
        (4096, 4096, 4096): (large, 1, 4096),
        (2048, 2048, 64): (large, 1, 64),
        (1920, 2048, 2048): (small, 1, 2048),
        (1024, 1024, 1024): (small, 2, 512),
        (32, 128, 5408): (small, 34, 160),
        (32, 5408, 128): (small, 1, 128),
        (164, 256, 1600): (small, 10, 160),
        (0, 3, 4): (small, 1, 4),
        (3, 4, 0): (small, 1, 0),
    }.items():
        assert product.cut_of(*sizes, float32) == expected
    assert product.cut_of(1536, 1536, 1536, float64) == (large, 1, 1536)
    assert product.cut_of(65536, 64, 64, float32) == (small, 1, 64)
    assert product.cut_of(65536, 192, 64, float32) == (large, 1, 64)
    assert product.cut_of(128, 128, 4096, float32, 256) == (large, 1, 4096)
    assert product.cut_of(128, 64, 4096, float32, 2) == (small, 1, 4096)


@pytest.mark.parametrize("variant", ["tensor", "warpgroup"])
def test_an_empty_sum_is_the_bias(variant):
    x, w, b = drawn(BF16, (3, 0), (0, 4), (4,))
    np.testing.assert_array_equal(wide(kernels.dense(x, w, b, variant=variant))[0], np.tile(wide(b)[0], (3, 1)))


def test_gradients_of_broadcast_operands_are_one_sum():
    """Over the batches of a dimension that is 1, and of one that is missing."""
    a, b, dc = drawn(np.float64, (2, 1, 5, 7), (3, 7, 9), (2, 3, 5, 9))
    c, saved = kernels.matmul_forward(a, b, variant="naive")
    np.testing.assert_allclose(np.asarray(c), reference.matmul(*as_float64({"a": a, "b": b}).values()))
    expected = reference.matmul_backward(*wide(dc, a, b))
    for found, want in zip(kernels.matmul_backward(dc, saved), expected, strict=True):
        np.testing.assert_allclose(np.asarray(found), want, rtol=1e-12, atol=1e-12)


FOR_BF16 = "and the arrays are bfloat16: must be 'tensor' or 'warpgroup', those for bfloat16"


@pytest.mark.parametrize(
    "dtype, variant, text",
    [
        (BF16, "naive", f"variant is 'naive' {FOR_BF16}"),
        (BF16, "vectors", f"variant is 'vectors' {FOR_BF16}"),
        (
            np.float64,
            "tensor",
            "variant is 'tensor' and the arrays are float64: takes float32, as TF32, and bfloat16; "
            "'naive', 'shared', 'registers' and 'vectors' take float64",
        ),
        (
            np.float32,
            "warpgroup",
            "variant is 'warpgroup' and the arrays are float32: takes bfloat16; 'tensor' takes float32 too, as TF32, "
            "and the others float32 and float64",
        ),
    ],
)
def test_variants_that_do_not_suit_a_dtype_name_those_that_do(dtype, variant, text):
    with pytest.raises(ValueError, match=f"^matmul: {text}$"):
        kernels.matmul(*drawn(dtype, (8, 8), (8, 8)), variant=variant)


def test_warpgroups_are_for_one_architecture(monkeypatch):
    monkeypatch.setattr(product, "architecture_of", lambda array: "sm_80")
    text = "variant is 'warpgroup' and the GPU is sm_80: must be sm_90a, an H100 or H200; 'tensor' runs on all"
    with pytest.raises(ValueError, match=f"^matmul: {text}$"):
        kernels.matmul(*drawn(BF16, (8, 8), (8, 8)), variant="warpgroup")


def test_dtypes_are_not_mixed():
    a, b = *drawn(BF16, (8, 8)), *drawn(F32, (8, 8))
    with pytest.raises(TypeError, match="a is bfloat16 and b is float32: dtypes must be the same"):
        kernels.matmul(a, b)
    with pytest.raises(TypeError, match="^relu: x is bfloat16: must be float32 or float64, for example"):
        kernels.relu(a)
