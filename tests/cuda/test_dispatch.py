"""Which variant a call on a GPU takes, and why: the words that `model.kernels()` shows."""

import os

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels import dispatch

if not os.environ.get("HANDLOOM_CUDA"):
    pytest.importorskip("numba_cuda", reason="Numba-CUDA is not installed: make test-cuda")


@pytest.mark.parametrize(
    "channels, filters, groups, name, why",
    [
        (8, 8, 1, "implicit", "at least 8 columns a group, here 8"),
        (1, 32, 1, "implicit", "at least 8 columns a group, here 32; for dx, which has 1, direct"),
        (16, 16, 16, "direct", "less than 8 columns a group, here 1"),
        (16, 4, 2, "direct", "less than 8 columns a group, here 2; for dx, which has 8, implicit"),
    ],
)
def test_convolutions_on_a_gpu(channels, filters, groups, name, why):
    x, w = np.ones((1, 3, 3, channels), np.float32), np.ones((2, 2, channels // groups, filters), np.float32)
    assert kernels.VARIANTS["conv2d"].chosen("cuda", None, x, w) == (name, f"the default for {why}")


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ((3, 8), (8, 4), "vectors"),
        ((2, 3, 8), (8, 4), "vectors"),
        ((3, 8), (8, 5), "registers"),
        ((3, 0), (0, 4), "vectors"),
    ],
)
def test_products_on_a_gpu(a, b, expected, monkeypatch):
    """The launcher takes what the rule says."""
    a, b, taken = np.ones(a, np.float32), np.ones(b, np.float32), []
    product = dispatch.backend("handloom.kernels.gemm", "cuda").product
    for way, name in (("_multiply", "vectors"), ("gemm", "registers"), ("gemm", "tensor")):
        monkeypatch.setattr(product, f"{way}_{name}", lambda *args, name=name: taken.append(name))
    variant, why = kernels.VARIANTS["dense"].chosen("cuda", None, a, b)
    product.gemm_default(a.reshape(-1, a.shape[-1]) if a.ndim > 2 else a, b, np.empty((3, b.shape[1]), np.float32))
    assert taken == [variant] == [expected]
    assert why.startswith("the default where the rows of ")


def test_bfloat16_on_a_gpu():
    x = np.ones((8, 8), pytest.importorskip("ml_dtypes").bfloat16)
    assert kernels.VARIANTS["dense"].chosen("cuda", None, x, x) == ("tensor", "the default for bfloat16")
