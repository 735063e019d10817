"""Pooling in plain NumPy: what the kernels are checked against. Output by output, window by window."""

import numpy as np


def _windows(shape, pool_size, strides, padding):
    """((oh, ow), (rows of the window, columns of the window)) for every output."""
    axes = []
    for size, window, stride in zip(shape[1:3], np.broadcast_to(pool_size, 2), np.broadcast_to(strides, 2)):
        starts = range(0, size - window + 1, stride)
        if padding == "same":
            count = -(-size // stride)
            before = max((count - 1) * stride + window - size, 0) // 2
            starts = range(-before, count * stride - before, stride)
        axes.append([slice(max(start, 0), min(start + window, size)) for start in starts])
    return [((oh, ow), (rows, columns)) for oh, rows in enumerate(axes[0]) for ow, columns in enumerate(axes[1])]


def _pool(x, reduce, pool_size, strides, padding):
    windows = _windows(x.shape, pool_size, strides or pool_size, padding)
    (rows, columns), _ = windows[-1]
    y = np.zeros((x.shape[0], rows + 1, columns + 1, x.shape[3]))
    for (oh, ow), window in windows:
        y[:, oh, ow] = reduce(x[:, *window], axis=(1, 2))
    return y


def max_pool2d(x, *, pool_size=2, strides=None, padding="valid"):
    return _pool(x, np.max, pool_size, strides, padding)


def max_pool2d_backward(dy, x, *, pool_size=2, strides=None, padding="valid"):
    dx = np.zeros_like(x)
    for (oh, ow), window in _windows(x.shape, pool_size, strides or pool_size, padding):
        cells = x[:, *window]
        n, high, wide, channels = cells.shape
        flat = cells.reshape(n, high * wide, channels)
        first = np.arange(flat.shape[1])[:, None] == flat.argmax(axis=1)[:, None]
        dx[:, *window] += first.reshape(cells.shape) * dy[:, oh : oh + 1, ow : ow + 1]
    return (dx,)


def avg_pool2d(x, *, pool_size=2, strides=None, padding="valid"):
    return _pool(x, np.mean, pool_size, strides, padding)


def avg_pool2d_backward(dy, x, *, pool_size=2, strides=None, padding="valid"):
    dx = np.zeros_like(x)
    for (oh, ow), window in _windows(x.shape, pool_size, strides or pool_size, padding):
        cells = dx[:, *window]
        cells += dy[:, oh : oh + 1, ow : ow + 1] / (cells.shape[1] * cells.shape[2])
    return (dx,)


def global_max_pool2d(x):
    return x.max(axis=(1, 2))


def global_max_pool2d_backward(dy, x):
    return max_pool2d_backward(dy[:, None, None], x, pool_size=x.shape[1:3])


def global_avg_pool2d(x):
    return x.mean(axis=(1, 2))


def global_avg_pool2d_backward(dy, x):
    return (np.broadcast_to(dy[:, None, None] / (x.shape[1] * x.shape[2]), x.shape),)
