"""Matrix products on an NVIDIA GPU, C[M, N] = A[M, K] B[K, N], from one thread an element to the tensor cores.

    naive      a thread computes one element of C                                                        simple.py
    shared     a block copies tiles into shared memory and computes 16 x 16 elements from there          simple.py
    registers  a thread computes 8 x 8 elements: from 16 numbers of shared memory, 64 multiply-adds      tiles.py
    vectors    the same with 16 bytes an access, and the next tiles on their way meanwhile               tiles.py
    tensor     a warp computes 64 x 64 elements with instructions for whole matrices                     tensor_cores.py
    warpgroup  four warps compute 64 x 256, with instructions that read shared memory themselves         warpgroups.py

product.py holds the launchers, epilogue.py what follows a product: bias and activation, and their gradients;
fragments.py how the tensor cores are fed, which convolutions share.

Every launcher is called as gemm_x(a, b, c, bias=None, activation=None): `a` and `b` 2-D with any strides, `c` 2-D and
C-contiguous. In the kernels, element (i, k) of A is a[i * a_row + k * a_col], so that a transposed operand is the same
memory with its strides swapped. Blocks are numbered along one axis, which has no small limit.
"""

from .epilogue import (
    CODES,
    NONE,
    RELU,
    SIGMOID,
    TANH,
    activate,
    add_parts,
    add_up,
    at_least,
    dense_epilogue_backward,
    epilogue_backward,
)
from .product import (
    BLOCKS,
    gemm_default,
    gemm_naive,
    gemm_registers,
    gemm_rule,
    gemm_shared,
    gemm_tensor,
    gemm_vectors,
    gemm_warpgroup,
    operand,
    share_of,
    shares,
)
from .simple import naive, shared
from .tensor_cores import tensor
from .tiles import LARGE, SMALL, registers, split, vectors
from .warpgroups import warpgroup

__all__ = [
    "BLOCKS",
    "CODES",
    "LARGE",
    "NONE",
    "RELU",
    "SIGMOID",
    "SMALL",
    "TANH",
    "activate",
    "add_parts",
    "add_up",
    "at_least",
    "dense_epilogue_backward",
    "epilogue_backward",
    "gemm_default",
    "gemm_naive",
    "gemm_registers",
    "gemm_rule",
    "gemm_shared",
    "gemm_tensor",
    "gemm_vectors",
    "gemm_warpgroup",
    "naive",
    "operand",
    "registers",
    "share_of",
    "shared",
    "shares",
    "split",
    "tensor",
    "vectors",
    "warpgroup",
]
