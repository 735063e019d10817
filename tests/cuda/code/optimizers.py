"""The kernels of the optimizers whose machine code is read: 16 bytes an access, and one number."""

from handloom.kernels.optimizers import cuda


def wide(T):
    return 128 // T.bitwidth


KERNELS = {
    "optimizers-sgd": lambda T: cuda.sgd_kernel(T, wide(T)),
    "optimizers-momentum": lambda T: cuda.momentum_kernel(T, wide(T)),
    "optimizers-rmsprop": lambda T: cuda.rmsprop_kernel(T, wide(T), False, False),
    "optimizers-rmsprop-all": lambda T: cuda.rmsprop_kernel(T, wide(T), True, True),
    "optimizers-adam": lambda T: cuda.adam_kernel(T, wide(T)),
    "optimizers-sgd-anywhere": lambda T: cuda.sgd_kernel(T, 1),
    "optimizers-momentum-anywhere": lambda T: cuda.momentum_kernel(T, 1),
    "optimizers-rmsprop-anywhere": lambda T: cuda.rmsprop_kernel(T, 1, True, True),
    "optimizers-adam-anywhere": lambda T: cuda.adam_kernel(T, 1),
}
