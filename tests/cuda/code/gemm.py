"""The kernels of gemm whose machine code is read."""

from handloom.kernels.gemm import cuda

KERNELS = {
    "gemm-naive": lambda T: cuda.naive(T),
    "gemm-shared": lambda T: cuda.shared(T),
    "gemm-registers": lambda T: cuda.registers(T, cuda.LARGE),
    "gemm-registers-small": lambda T: cuda.registers(T, cuda.SMALL),
    "gemm-vectors": lambda T: cuda.vectors(T, True, True, cuda.LARGE, True),
    "gemm-vectors-transposed": lambda T: cuda.vectors(T, False, False, cuda.LARGE, True),
    "gemm-vectors-small": lambda T: cuda.vectors(T, True, True, cuda.SMALL, False),
    "gemm-vectors-transposed-small": lambda T: cuda.vectors(T, False, False, cuda.SMALL, True),
    "gemm-activate": lambda T: cuda.activate(T),
    "gemm-epilogue": lambda T: cuda.epilogue_backward(T),
    "gemm-add-parts": lambda T: cuda.add_parts(T),
}
