"""Instructions that Numba-CUDA has no name for: 128-bit loads, asynchronous copies, tensor cores.

    load, store              one number, at a pointer or in shared memory, without Python's wrap-around test
    load4, store4            16 bytes at once (four float32): a quarter of the instructions, and whole cache lines
    store2                   8 bytes at once (two float32)
    copy_async ...           global to shared memory without passing through registers, while the block computes
    multiply_high, shift_right     of uint32, in 32 bits
    larger                   of two numbers; of a number and NaN the number
    ldmatrix_x4, mma_...     fragments of matrices from shared memory, and their product on the tensor cores
    wgmma_...                products of a warpgroup, four warps, which read shared memory themselves, later (sm_90a)
    exp, log, tanh ...       of a number, in its dtype; where they overflow they give Inf or NaN, also in the simulator

Memory is addressed as (pointer or shared array, flat index). Kernels import these names and never look at which of two
implementations they got: gpu.py writes LLVM code and PTX, simulator.py does the same in Python, strictly: there, a
misaligned or out-of-range access raises, and what is copied or multiplied asynchronously arrives only when it has been
waited for.
"""

from numba.core import config

if config.ENABLE_CUDASIM:
    from . import simulator as _implementation
else:
    from . import gpu as _implementation

as_float = _implementation.as_float
copy_async = _implementation.copy_async
copy_async_commit = _implementation.copy_async_commit
copy_async_wait = _implementation.copy_async_wait
erf = _implementation.erf
erfc = _implementation.erfc
exp = _implementation.exp
expm1 = _implementation.expm1
fence_async = _implementation.fence_async
from_bf16 = _implementation.from_bf16
larger = _implementation.larger
ldmatrix_x4 = _implementation.ldmatrix_x4
ldmatrix_x4_transposed = _implementation.ldmatrix_x4_transposed
load = _implementation.load
load4 = _implementation.load4
log = _implementation.log
log1p = _implementation.log1p
mma_bf16 = _implementation.mma_bf16
mma_tf32 = _implementation.mma_tf32
multiply_high = _implementation.multiply_high
shift_right = _implementation.shift_right
sqrt = _implementation.sqrt
store = _implementation.store
store2 = _implementation.store2
store4 = _implementation.store4
tanh = _implementation.tanh
to_bf16 = _implementation.to_bf16
to_tf32 = _implementation.to_tf32
wgmma_bf16 = _implementation.wgmma_bf16
wgmma_commit = _implementation.wgmma_commit
wgmma_fence = _implementation.wgmma_fence
wgmma_wait = _implementation.wgmma_wait

__all__ = [
    "as_float",
    "copy_async",
    "copy_async_commit",
    "copy_async_wait",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "fence_async",
    "from_bf16",
    "larger",
    "ldmatrix_x4",
    "ldmatrix_x4_transposed",
    "load",
    "load4",
    "log",
    "log1p",
    "mma_bf16",
    "mma_tf32",
    "multiply_high",
    "shift_right",
    "sqrt",
    "store",
    "store2",
    "store4",
    "tanh",
    "to_bf16",
    "to_tf32",
    "wgmma_bf16",
    "wgmma_commit",
    "wgmma_fence",
    "wgmma_wait",
]
