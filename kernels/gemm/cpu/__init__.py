"""Matrix products on a CPU, C[M, N] = A[M, K] B[K, N], from the textbook to the register file.

    naive     three loops                                                                                   naive.py
    blocked   the loops cut into blocks that stay in the caches, the innermost one running along rows       naive.py
    packed    the blocks copied into panels first, in exactly the order in which they will be read          naive.py
    simd      a register tile of vectors on packed panels: 16 loads for 28 multiply-adds (AVX2: 8 for 12)  product.py
    threaded  the same over several threads                                                                 product.py
              and small or thin products and stacks of them without packing                                 direct.py
              and products with few rows or columns                                                 rows.py, dots.py
              and long sums for few numbers, and few rows times a B that only memory holds                  sums.py
              and small ones by the shortest way                                                            once.py
              which of them when:                                                                           ways.py

Every launcher is called as gemm_x(a, b, c, bias=None, activation=None): `a` and `b` 2-D with any strides, `c` 2-D and
C-contiguous. In the kernels, element (i, k) of A is a[i * a_row + k * a_col] of a flat array, so that a transposed
operand is the same array with its strides swapped. The order of the terms of each sum depends on the sizes, the dtype,
which operands lie transposed and whether a bias or an activation follows; never on threads or timings.
"""

from .direct import STEEP
from .epilogue import NO_BIAS, add_bias_and_activate, add_rows, dense_epilogue_backward
from .naive import gemm_blocked, gemm_naive, gemm_packed
from .once import dense_backward_at_once, product_at_once
from .product import gemm_simd, gemm_threaded
from .tile import (
    CODES,
    LOOKS_AHEAD,
    NARROW,
    NONE,
    RELU,
    ROWS,
    STRIP,
    activate,
    copy_panels,
    pack_panel,
    pack_panels,
    tall_padded,
    tall_tile,
)

__all__ = [
    "CODES",
    "LOOKS_AHEAD",
    "NARROW",
    "NONE",
    "NO_BIAS",
    "RELU",
    "ROWS",
    "STEEP",
    "STRIP",
    "activate",
    "add_bias_and_activate",
    "add_rows",
    "copy_panels",
    "dense_backward_at_once",
    "dense_epilogue_backward",
    "gemm_blocked",
    "gemm_naive",
    "gemm_packed",
    "gemm_simd",
    "gemm_threaded",
    "pack_panel",
    "pack_panels",
    "product_at_once",
    "tall_padded",
    "tall_tile",
]
