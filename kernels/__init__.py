"""Compute kernels: plain functions over plain arrays.

Every operation is here under its own name, with `_forward` and `_backward` beside it where it can be differentiated:

    from handloom import kernels
    y = kernels.conv2d(x, w, b, strides=2, padding="same")
    y, saved = kernels.conv2d_forward(x, w, b)
    dx, dw, db = kernels.conv2d_backward(dy, saved)

`VARIANTS` lists each operation's ladder. Importing this compiles nothing.
"""

from .gemm import (
    FUSED_ACTIVATIONS,
    dense,
    dense_backward,
    dense_forward,
    matmul,
    matmul_backward,
    matmul_forward,
)
from .gemm import VARIANTS as _gemm

VARIANTS = {**_gemm}

__all__ = [
    "FUSED_ACTIVATIONS",
    "VARIANTS",
    "dense",
    "dense_backward",
    "dense_forward",
    "matmul",
    "matmul_backward",
    "matmul_forward",
]
