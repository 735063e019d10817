"""Pooling of images: `max_pool2d`, `avg_pool2d`, and `global_max_pool2d`, `global_avg_pool2d` over the whole image.

The window of output (oh, ow) is the cells (oh * SH - top + kh, ow * SW - left + kw) for kh < KH, kw < KW that lie in
the image; channels do not meet. The number of outputs along an axis of `size` cells:

    "valid"   (size - window) div stride + 1, no padding
    "same"    size / stride, rounded up; the padding that this takes is split evenly, the odd cell goes to the end

Arrays that are not C-contiguous are copied first. Otherwise there is no workspace on a GPU, and on a CPU the offsets of
maxima where they are not saved; backward up to 128 KB of each thread's stack, or for maxima 8 bytes for each of up to
256 cells of a window, kept for the 64 latest geometries.

D. Scherer, A. Müller, S. Behnke: "Evaluation of Pooling Operations in Convolutional Architectures", ICANN 2010.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import contiguous, namespace
from ..dispatch import Variants, device_of
from ..workspace import aligned, scratch

VARIANTS = {
    f"{kind}_pool2d": Variants(
        f"{kind}_pool2d",
        __name__,
        cpu={"naive": f"cpu:{kind}_naive", "simd": f"cpu:{kind}_simd"},
        cuda={"vectors": f"cuda:{kind}_vectors"},
    )
    for kind in ("max", "avg")
}


class Geometry(NamedTuple):
    """The sizes of one pooling: images, windows, strides, padding before the image, outputs."""

    N: int
    H: int
    W: int
    C: int
    KH: int
    KW: int
    SH: int
    SW: int
    top: int
    left: int
    OH: int
    OW: int


class MaxPoolSaved(NamedTuple):
    """What the backward of a maximum needs: where in its window each one stood, row by row."""

    offsets: np.ndarray
    dtype: np.dtype
    geometry: Geometry
    variant: str | None


class AvgPoolSaved(NamedTuple):
    """What the backward of a mean needs: the sizes."""

    dtype: np.dtype
    geometry: Geometry
    variant: str | None


def max_pool2d(x, pool_size=2, *, strides=None, padding="valid", variant=None):
    """y[n, oh, ow, c] = the largest x[n, h, w, c] of the window of (oh, ow).

    Parameters
    ----------
    x : (N, H, W, C) float32 | float64
    pool_size : KH and KW, or one integer for both
    strides : SH and SW, or one integer for both; None: pool_size
    padding : "valid" or "same"
    variant : a name in VARIANTS["max_pool2d"]["cpu"]: naive, simd (the default); on a GPU there is one, vectors

    Returns y : (N, OH, OW, C), dtype as x. A NaN in a window is its largest cell.
    Raises ValueError : a window larger than the image with "valid", an empty image, sizes that are no positive
    integers, an unknown padding or variant.  TypeError : dtypes other than float32 and float64.

    Saved for backward: the offset of each maximum in its window, KW * kh + kw, the first one
    where several are equal (or NaN); as uint8, or uint16 for windows of more than 256 cells, uint32 beyond 65536.
    Gradient: dX is, for each cell, the sum of dY over the outputs whose maximum it is.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.max_pool2d(np.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    geometry = _geometry_of("max_pool2d", x, pool_size, strides, padding)
    return _max("max_pool2d", x, geometry, variant)


def max_pool2d_forward(x, pool_size=2, *, strides=None, padding="valid", variant=None):
    """`max_pool2d`, and what its backward needs."""
    geometry = _geometry_of("max_pool2d", x, pool_size, strides, padding)
    offsets = namespace(x).empty(_outputs(geometry), _offset_type(geometry))
    y = _max("max_pool2d", x, geometry, variant, offsets)
    return y, MaxPoolSaved(offsets.reshape(y.shape), x.dtype, geometry, variant)


def max_pool2d_backward(dy, saved, needs=None):
    """(dX,) from dY (N, OH, OW, C); (None,) where `needs`, one bool, says so."""
    return _max_backward("max_pool2d_backward", dy, saved, needs, 4)


def avg_pool2d(x, pool_size=2, *, strides=None, padding="valid", variant=None):
    """y[n, oh, ow, c] = the mean of x[n, h, w, c] over the window of (oh, ow), padding not counted.

    Parameters, result and errors as `max_pool2d`. Nothing but the sizes is saved for backward.
    Gradient: dX is, for each cell, the sum over the windows it lies in of dY / (cells of that window).

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.avg_pool2d(np.arange(9.0).reshape(1, 3, 3, 1), padding="same")[0, :, :, 0]
    array([[2. , 3.5],
           [6.5, 8. ]])
    """
    return _avg("avg_pool2d", x, _geometry_of("avg_pool2d", x, pool_size, strides, padding), variant)


def avg_pool2d_forward(x, pool_size=2, *, strides=None, padding="valid", variant=None):
    """`avg_pool2d`, and what its backward needs."""
    geometry = _geometry_of("avg_pool2d", x, pool_size, strides, padding)
    return _avg("avg_pool2d", x, geometry, variant), AvgPoolSaved(x.dtype, geometry, variant)


def avg_pool2d_backward(dy, saved, needs=None):
    """(dX,) from dY (N, OH, OW, C); (None,) where `needs`, one bool, says so."""
    return _avg_backward("avg_pool2d_backward", dy, saved, needs, 4)


def global_max_pool2d(x):
    """y[n, c] = the largest x[n, h, w, c] over h and w: `max_pool2d` with one window as large as the image.

    x : (N, H, W, C) float32 | float64. Returns y : (N, C). Raises, saves and differentiates as `max_pool2d`.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.global_max_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[6., 7.]])
    """
    geometry = _whole("global_max_pool2d", x)
    return _max("global_max_pool2d", x, geometry, None).reshape(geometry.N, geometry.C)


def global_max_pool2d_forward(x):
    """`global_max_pool2d`, and what its backward needs."""
    geometry = _whole("global_max_pool2d", x)
    offsets = namespace(x).empty(_outputs(geometry), _offset_type(geometry))
    y = _max("global_max_pool2d", x, geometry, None, offsets).reshape(geometry.N, geometry.C)
    return y, MaxPoolSaved(offsets.reshape(y.shape), x.dtype, geometry, None)


def global_max_pool2d_backward(dy, saved, needs=None):
    """(dX,) from dY (N, C); (None,) where `needs`, one bool, says so."""
    return _max_backward("global_max_pool2d_backward", dy, saved, needs, 2)


def global_avg_pool2d(x):
    """y[n, c] = the mean of x[n, h, w, c] over h and w.

    x : (N, H, W, C) float32 | float64. Returns y : (N, C). Raises, saves and differentiates as `avg_pool2d`.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.global_avg_pool2d(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 4.]])
    """
    geometry = _whole("global_avg_pool2d", x)
    return _avg("global_avg_pool2d", x, geometry, None).reshape(geometry.N, geometry.C)


def global_avg_pool2d_forward(x):
    """`global_avg_pool2d`, and what its backward needs."""
    return global_avg_pool2d(x), AvgPoolSaved(x.dtype, _whole("global_avg_pool2d", x), None)


def global_avg_pool2d_backward(dy, saved, needs=None):
    """(dX,) from dY (N, C); (None,) where `needs`, one bool, says so."""
    return _avg_backward("global_avg_pool2d_backward", dy, saved, needs, 2)


def _max(op, x, geometry, variant, offsets=None):
    """y; offsets is filled. Without it, kernels on a CPU write offsets to scratch memory, those on a GPU none."""
    device = device_of(op, x=x)
    rung, xp = VARIANTS["max_pool2d"].launcher(device, variant), namespace(x)
    if offsets is None and device == "cpu":
        offsets = scratch("max_pool2d", _outputs(geometry), _offset_type(geometry))
    y = xp.empty(_outputs(geometry), x.dtype)
    rung.forward(contiguous(x).reshape(-1), y, offsets, tuple(geometry))
    return y.reshape(geometry.N, geometry.OH, geometry.OW, geometry.C)


def _avg(op, x, geometry, variant):
    rung = VARIANTS["avg_pool2d"].launcher(device_of(op, x=x), variant)
    xp = namespace(x)
    y = xp.empty(_outputs(geometry), x.dtype)
    rung.forward(contiguous(x).reshape(-1), y, tuple(geometry))
    return y.reshape(geometry.N, geometry.OH, geometry.OW, geometry.C)


def _max_backward(op, dy, saved, needs, ndim):
    offsets, dtype, geometry, variant = saved
    if not checks.wanted(op, needs, ("x",))[0]:
        return (None,)
    device = device_of(op, dy=dy, offsets=offsets)
    rung = VARIANTS["max_pool2d"].launcher(device, variant)
    dx = _gradient(op, dy, dtype, geometry, ndim, device)
    rung.backward(contiguous(dy).reshape(-1), offsets.reshape(-1), dx, tuple(geometry))
    return (dx.reshape(geometry[:4]),)


def _avg_backward(op, dy, saved, needs, ndim):
    dtype, geometry, variant = saved
    if not checks.wanted(op, needs, ("x",))[0]:
        return (None,)
    device = device_of(op, dy=dy)
    rung = VARIANTS["avg_pool2d"].launcher(device, variant)
    dx = _gradient(op, dy, dtype, geometry, ndim, device)
    rung.backward(contiguous(dy).reshape(-1), dx, tuple(geometry))
    return (dx.reshape(geometry[:4]),)


def _gradient(op, dy, dtype, geometry, ndim, device):
    """Check dY; dX, not yet filled."""
    checks.shape(op, (geometry.N, geometry.OH, geometry.OW, geometry.C)[:: 1 if ndim == 4 else 3], dy=dy)
    if dy.dtype != dtype:
        raise TypeError(f"{op}: dy is {dy.dtype} and x was {dtype}: dtypes must be the same")
    size = geometry.N * geometry.H * geometry.W * geometry.C
    return aligned(size, dtype) if device == "cpu" else namespace(dy).empty(size, dtype)


def _outputs(geometry):
    return geometry.N * geometry.OH * geometry.OW * geometry.C


def _offset_type(geometry):
    cells = geometry.KH * geometry.KW
    return np.uint8 if cells <= 256 else np.uint16 if cells <= 65536 else np.uint32


def _geometry_of(op, x, pool_size, strides, padding):
    """All sizes, once the arguments are known to fit."""
    device_of(op, x=x)
    checks.floats(op, x=x)
    window = checks.two(op, "pool_size", pool_size)
    strides = window if strides is None else checks.two(op, "strides", strides)
    return _geometry(op, x.shape, window, strides, padding)


def _whole(op, x):
    device_of(op, x=x)
    checks.floats(op, x=x)
    checks.rank(op, 4, "(N, H, W, C)", x=x)
    return _geometry(op, x.shape, x.shape[1:3], (1, 1), "valid")


@lru_cache(maxsize=256)
def _geometry(op, shape, window, strides, padding):
    """Check the sizes against each other; all of them."""
    if len(shape) != 4:
        raise ValueError(f"{op}: x is {shape}: must have 4 dimensions (N, H, W, C)")
    n, height, width, channels = shape
    if height == 0 or width == 0:
        raise ValueError(f"{op}: x is {shape}: images must not be empty")
    checks.pair(op, "pool_size", window)
    checks.pair(op, "strides", strides)
    checks.choice(op, "padding", padding, ("valid", "same"))
    before, outputs = [], []
    for size, cells, stride in zip((height, width), window, strides):
        if padding == "same":
            outputs.append(-(-size // stride))
            before.append(max(0, (outputs[-1] - 1) * stride + cells - size) // 2)
        elif cells > size:
            raise ValueError(
                f"{op}: x is {shape} and pool_size {window}: the window must not be larger than the image, "
                f"use padding='same' or a smaller one"
            )
        else:
            outputs.append((size - cells) // stride + 1)
            before.append(0)
    if window[0] * window[1] >= 2**31:
        raise ValueError(f"{op}: the window has {window[0]} x {window[1]} cells: must be below 2**31 in all")
    return Geometry(n, height, width, channels, *window, *strides, *before, *outputs)
