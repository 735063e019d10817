"""The kernels of randomness whose machine code is read, of those that compute in the dtype of their array."""

from handloom.kernels.randomness import cuda


def wide(T):
    return 128 // T.bitwidth


KERNELS = {
    "randomness-uniform": lambda T: cuda.uniform_kernel(T, wide(T)),
    "randomness-dropout": lambda T: cuda.dropout_kernel(T, wide(T)),
    "randomness-dropout-anywhere": lambda T: cuda.dropout_kernel(T, 1),
}
