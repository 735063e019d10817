"""A convolution and the maximum over 2 x 2 pixels of its result as one operation: `conv2d_max_pool2d`.

Most small networks for images have the two in a row. As one, neither pass writes or reads the image between them.
"""

from typing import NamedTuple

import numpy as np

from .. import checks, gemm, pooling
from ..arrays import namespace
from ..dispatch import backend, device_of
from . import VARIANTS, Geometry, checked, empty


class Conv2dMaxPool2dSaved(NamedTuple):
    """What `conv2d_max_pool2d_backward` needs: the operands, which pixel of its window each maximum is, and y where an
    activation was fused."""

    x: np.ndarray
    w: np.ndarray
    has_bias: bool
    y: np.ndarray | None
    offsets: np.ndarray
    geometry: Geometry
    activation: str | None
    variant: str | None


def conv2d_max_pool2d(x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None, variant=None):
    """y[n, i, j, f] = the largest of z[n, 2 i, 2 j, f], z[n, 2 i, 2 j + 1, f], z[n, 2 i + 1, 2 j, f] and
    z[n, 2 i + 1, 2 j + 1, f], with z = conv2d(x, w, b, ...).

    Parameters
    ----------
    x, w, b, strides, padding, dilation, groups, activation : as in `conv2d`, which gives z (N, OH, OW, F)
    variant : a name in VARIANTS["conv2d_max_pool2d"]["cpu"]: separate (z as a whole, then the maxima), direct, winograd
        (the default: direct, but fewer multiplications for z where `conv2d` has them too); on a GPU separate

    Returns
    -------
    y : (N, OH div 2, OW div 2, F), dtype as x; the last row or column of an odd OH or OW is left out. The same numbers
        as `max_pool2d(conv2d(...))`, whose rounding and spread of NaN see.

    Workspace: forward that of `conv2d`, with separate also z and a byte for each y; backward that of `conv2d`, dz (not
    where x has up to 4 float32 or 2 float64 channels and dx is not wanted), and where there is an activation dy once
    more. For a sigmoid or tanh, and where groups are narrow (see `conv2d`), all variants are as separate.

    Raises
    ------
    ValueError, TypeError : as `conv2d`; ValueError also where OH or OW is below 2.

    Saved for backward: x, w, for each y a byte, which pixel it is (0 to 3; the first one where several are equal, or
    NaN), and y where there is an activation.  Gradients: dz is dy act'(y) at the maxima and zero elsewhere; dx, dw and
    db follow from it as in `conv2d`.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> x = np.arange(25.0).reshape(1, 5, 5, 1)
    >>> kernels.conv2d_max_pool2d(x, np.ones((2, 2, 1, 1)))[0, :, :, 0]
    array([[36., 44.],
           [76., 84.]])
    """
    y, _, _ = _run(x, w, b, (strides, padding, dilation, groups), activation, variant, False)
    return y


def conv2d_max_pool2d_forward(
    x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None, variant=None
):
    """`conv2d_max_pool2d`, and what its backward needs."""
    y, offsets, geometry = _run(x, w, b, (strides, padding, dilation, groups), activation, variant, True)
    kept = y if activation else None
    return y, Conv2dMaxPool2dSaved(x, w, b is not None, kept, offsets, geometry, activation, variant)


def conv2d_max_pool2d_backward(dy, saved, needs=None):
    """(dx, dw, db) from dy; None where `needs`, three bools, says so, and db where there was no bias."""
    op = "conv2d_max_pool2d_backward"
    x, w, has_bias, y, offsets, geometry, activation, variant = saved
    device, xp = device_of(op, dy=dy, x=x), namespace(x)
    rung = VARIANTS["conv2d_max_pool2d"].launcher(device, variant)
    need_x, need_w, need_b = checks.wanted(op, needs, ("x", "w", "b"))
    checks.floats(op, x=x, dy=dy)
    checks.shape(op, offsets.shape, dy=dy)
    dm, db = xp.ascontiguousarray(dy), None
    if activation is not None or (need_b and has_bias):
        rows = dm.reshape(-1, geometry.F)
        kernels = backend(gemm.__name__, device)
        dm, db = kernels.dense_epilogue_backward(rows, rows if y is None else y.reshape(rows.shape), activation)
    dx = dw = None
    if need_w:
        dw, x = empty(xp, w.shape, w.dtype), xp.ascontiguousarray(x)
        if device == "cpu" and variant != "separate":
            need_w = not backend(__package__, device).window_weight_gradient(x, dm, offsets, dw, geometry)
    if need_x or need_w:
        dz = empty(xp, (geometry.N, geometry.OH, geometry.OW, geometry.F), x.dtype)
        spread = pooling.VARIANTS["max_pool2d"].launcher(device, None).backward
        spread(dm.reshape(-1), offsets.reshape(-1), dz.reshape(-1), windows_of(geometry))
    if need_x:
        dx = empty(xp, x.shape, x.dtype)
        rung.data_gradient(dz, xp.ascontiguousarray(w), dx, geometry)
    if need_w:
        rung.weight_gradient(x, dz, dw, geometry)
    return dx, dw, db if need_b and has_bias else None


def windows_of(g):
    """The sizes of the pooling: windows of 2 x 2, 2 apart."""
    return tuple(pooling.Geometry(g.N, g.OH, g.OW, g.F, 2, 2, 2, 2, 0, 0, g.OH // 2, g.OW // 2))


def _run(x, w, b, window, activation, variant, saves):
    """Check, allocate, launch: y, the offsets of the maxima if they are to be saved, and the sizes."""
    op = "conv2d_max_pool2d"
    rung = VARIANTS[op].launcher(device_of(op, {"b": b}, x=x, w=w), variant)
    geometry, operands = checked(op, x, w, b, window, activation)
    if geometry.OH < 2 or geometry.OW < 2:
        raise ValueError(
            f"{op}: x is {x.shape} and w is {w.shape}: the convolution has {geometry.OH} x {geometry.OW} pixels, a "
            "window of the maximum needs 2 x 2; use padding='same' or a smaller window"
        )
    xp, shape = namespace(x), (geometry.N, geometry.OH // 2, geometry.OW // 2, geometry.F)
    y = empty(xp, shape, x.dtype)
    offsets = xp.empty(shape, np.uint8) if saves else None
    rung.forward(*operands, y, offsets, geometry, activation)
    return y, offsets, geometry
