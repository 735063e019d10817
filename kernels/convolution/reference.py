"""Convolutions in plain NumPy: what the kernels are checked against."""

import numpy as np


def conv2d(x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None):
    """y = f(z + b): every cell (kh, kw) of the window adds a product of a shifted, strided view of x with w[kh, kw]."""
    kernel, views, out = _views(x, w, strides, padding, dilation, groups)
    z = np.zeros((x.shape[0], *out, *kernel.shape[2::2]), x.dtype)
    for cell, view in views:
        z += np.einsum("nhwgc,gcf->nhwgf", view, kernel[cell])
    z = z.reshape(*z.shape[:3], w.shape[3])
    return _ACTIVATIONS[activation](z if b is None else z + b)


def conv2d_backward(dy, x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None):
    """With dz = dy * f'(z): each cell's product gives a share of dx and all of dw[kh, kw]."""
    options = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    dz = dy * _DERIVATIVES[activation](conv2d(x, w, b, activation=activation, **options))
    db = None if b is None else dz.sum(axis=(0, 1, 2))
    dz = dz.reshape(*dz.shape[:3], groups, -1)
    kernel, views, _ = _views(x, w, **options)
    dkernel = np.empty_like(kernel)
    for cell, view in views:
        dkernel[cell] = np.einsum("nhwgc,nhwgf->gcf", view, dz)
    dw = dkernel.swapaxes(2, 3).reshape(w.shape)
    dpadded = np.zeros_like(_pad(x, _padding(x, w, strides, padding, dilation)))
    for cell, view in _windows(dpadded, dz.shape[1:3], w, strides, dilation, groups):
        view += np.einsum("nhwgf,gcf->nhwgc", dz, kernel[cell])
    (top, _), (left, _) = _padding(x, w, strides, padding, dilation)
    return dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dw, db


def conv2d_max_pool2d(*operands, **options):
    """The largest of each 2 x 2 pixels of conv2d."""
    return _fours(conv2d(*operands, **options)).max(axis=3)


def conv2d_max_pool2d_backward(dy, *operands, **options):
    """dy goes to the first pixel of its window that is the largest."""
    z = conv2d(*operands, **options)
    fours = _fours(z)
    dz = np.zeros_like(z)
    largest = np.arange(4)[:, None] == fours.argmax(axis=3)[..., None, :]
    n, high, wide, _, f = fours.shape
    spread = (largest * dy[..., None, :]).reshape(n, high, wide, 2, 2, f).swapaxes(2, 3)
    dz[:, : 2 * high, : 2 * wide] = spread.reshape(n, 2 * high, 2 * wide, f)
    return conv2d_backward(dz, *operands, **options)


def _fours(z):
    """The pixels of every 2 x 2 side by side: (N, OH / 2, OW / 2, 4, F); those of an odd end are left out."""
    n, high, wide, f = z.shape
    even = z[:, : high // 2 * 2, : wide // 2 * 2]
    return even.reshape(n, high // 2, 2, wide // 2, 2, f).swapaxes(2, 3).reshape(n, high // 2, wide // 2, 4, f)


_ACTIVATIONS = {
    None: lambda z: z,
    "relu": lambda z: np.where(z < 0, 0, z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
}
_DERIVATIVES = {
    None: lambda y: np.ones_like(y),
    "relu": lambda y: np.where(y == 0, 0, np.ones_like(y)),
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}


def _two(value):
    return tuple(value) if isinstance(value, tuple | list) else (value, value)


def _padding(x, w, strides, padding, dilation):
    """((top, bottom), (left, right)); "same" puts the odd cell at the end, as TensorFlow does."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        return padding
    sides = []
    for size, window, stride, step in zip(x.shape[1:3], w.shape[:2], _two(strides), _two(dilation)):
        total = max((-(-size // stride) - 1) * stride + (window - 1) * step + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return tuple(sides)


def _pad(x, padding):
    return np.pad(x, ((0, 0), *padding, (0, 0)))


def _views(x, w, strides, padding, dilation, groups):
    """w as (KH, KW, G, C/G, F/G), the window's views of padded x, and (OH, OW)."""
    padded = _pad(x, _padding(x, w, strides, padding, dilation))
    out = tuple(
        (size - (window - 1) * step - 1) // stride + 1
        for size, window, stride, step in zip(padded.shape[1:3], w.shape[:2], _two(strides), _two(dilation))
    )
    kernel = w.reshape(*w.shape[:3], groups, -1).swapaxes(2, 3)
    return kernel, _windows(padded, out, w, strides, dilation, groups), out


def _windows(padded, out, w, strides, dilation, groups):
    """For each cell (kh, kw): what it meets as the window moves, (N, OH, OW, G, C/G), a view of `padded`."""
    n, _, _, c = padded.shape
    grouped = padded.reshape(*padded.shape[:3], groups, c // groups)
    (sh, sw), (dh, dw), (oh, ow) = _two(strides), _two(dilation), out
    for kh, kw in np.ndindex(w.shape[:2]):
        rows = slice(kh * dh, kh * dh + (oh - 1) * sh + 1, sh)
        columns = slice(kw * dw, kw * dw + (ow - 1) * sw + 1, sw)
        yield (kh, kw), grouped[:, rows, columns]
