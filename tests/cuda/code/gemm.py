"""The kernels of gemm whose machine code is read."""

from handloom.kernels.gemm import cuda

KERNELS = {
    "gemm-naive": lambda T: cuda.naive(T),
    "gemm-shared": lambda T: cuda.shared(T),
    "gemm-registers": lambda T: cuda.registers(T),
    "gemm-vectors": lambda T: cuda.vectors(T, True, True),
    "gemm-vectors-transposed": lambda T: cuda.vectors(T, False, False),
    "gemm-activate": lambda T: cuda.activate(T),
    "gemm-epilogue": lambda T: cuda.epilogue_backward(T),
    "gemm-add-rows": lambda T: cuda.add_rows(T),
}
