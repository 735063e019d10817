"""The kernels of pooling whose machine code is read; those of maxima, which only compare: test_code_pooling.py."""

from handloom.kernels.pooling.cuda import maxima, means


def wide(T):
    return 128 // T.bitwidth


KERNELS = {
    "pooling-max-backward": lambda T: maxima.max_backward(T, wide(T), 8, 2),
    "pooling-max-backward-odd": lambda T: maxima.max_backward(T, wide(T), 8, 1),
    "pooling-max-backward-channel": lambda T: maxima.max_backward(T, 1, 16, 1),
    "pooling-avg": lambda T: means.avg_forward(T, wide(T)),
    "pooling-avg-channel": lambda T: means.avg_forward(T, 1),
    "pooling-avg-shared": lambda T: means.avg_forward_shared(T, wide(T)),
    "pooling-avg-backward": lambda T: means.avg_backward(T, wide(T), 2),
    "pooling-avg-backward-odd": lambda T: means.avg_backward(T, wide(T), 1),
    "pooling-avg-backward-channel": lambda T: means.avg_backward(T, 1, 1),
}
