"""Convolutions of images: `conv2d`, with bias and activation in the same pass.

    y[n, oh, ow, f] = act( sum over kh, kw, c of xp[n, oh * SH + kh * DH, ow * SW + kw * DW, c] w[kh, kw, c, f] + b[f] )

with xp the input with zeros around it. As everywhere in deep learning this is a correlation: the window is not turned.
The text on the whole family: V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np

from .. import checks, gemm
from ..arrays import namespace
from ..dispatch import Variants, backend, device_of
from ..gemm import FUSED_ACTIVATIONS
from ..workspace import aligned

VARIANTS = {
    "conv2d": Variants(
        "conv2d",
        __name__,
        cpu={
            "naive": "cpu:conv2d_naive",
            "im2col": "cpu:conv2d_im2col",
            "direct": "cpu:conv2d_direct",
            "threaded": "cpu:conv2d_threaded",
            "winograd": "cpu:conv2d_winograd",
        },
        cuda={
            "direct": "cuda:conv2d_direct",
            "implicit": "cuda:conv2d_implicit",
            "winograd": "cuda:conv2d_winograd",
            "tensor": "cuda:conv2d_tensor",
        },
        default={"cuda": "cuda:conv2d_default"},
        rule={"cuda": "cuda:conv2d_rule"},
    ),
    "conv2d_max_pool2d": Variants(
        "conv2d_max_pool2d",
        __name__,
        cpu={
            "separate": "cpu:conv2d_max_pool2d_separate",
            "direct": "cpu:conv2d_max_pool2d_direct",
            "winograd": "cpu:conv2d_max_pool2d_winograd",
        },
        cuda={"separate": "cuda:conv2d_max_pool2d_separate"},
    ),
}


class Geometry(NamedTuple):
    """The sizes of one convolution. Pairs are (along the height, along the width)."""

    N: int
    H: int
    W: int
    C: int
    KH: int
    KW: int
    F: int
    OH: int
    OW: int
    strides: tuple
    padding: tuple  # ((top, bottom), (left, right))
    dilation: tuple
    groups: int


class Conv2dSaved(NamedTuple):
    """What `conv2d_backward` needs: the operands, and the output where an activation was fused."""

    x: np.ndarray
    w: np.ndarray
    has_bias: bool
    y: np.ndarray | None
    geometry: Geometry
    activation: str | None
    variant: str | None


def conv2d(x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None, variant=None):
    """y[n, oh, ow, f] = act( sum over kh, kw, c of xp[n, oh SH + kh DH, ow SW + kw DW, c] w[kh, kw, c, f] + b[f] ).

    Parameters
    ----------
    x : (N, H, W, C) float32 | float64
    w : (KH, KW, C / groups, F), dtype as x
    b : (F,), dtype as x, or None
    strides : step of the window, an integer or two (height, width)
    padding : zeros around x: "valid" (none), "same" (OH = H / SH rounded up; an odd zero goes to the bottom and the
        right, as in TensorFlow), or ((top, bottom), (left, right)). The zeros take part: 0 * NaN in w is NaN.
    dilation : distance of the window's cells, an integer or two
    groups : the channels are cut into this many groups; filters [g * F / groups, ...) see group g alone.
        groups = C is a depthwise convolution
    activation : act: None, "relu", "sigmoid" or "tanh"
    variant : a name in VARIANTS["conv2d"]["cpu"]: naive, im2col, direct, threaded, winograd (the default: threaded, but
        3 x 3 windows without strides and groups by fewer multiplications where that pays); on a GPU direct, implicit
        (the default where a pass makes at least 8 columns a group: F / groups, for dx C / groups), winograd (y and dx
        as on the CPU where that should pay, but not with dilation; else implicit), and tensor: float32 alone, whose
        products the tensor cores make of numbers rounded to ten bits of mantissa (TF32) and add up in float32. y, dx
        and dw are then off by up to 2^-10 of the sum of the products' absolute values

    Returns
    -------
    y : (N, OH, OW, F), with OH = (H + top + bottom - (KH - 1) * DH - 1) // SH + 1, and OW alike.

    Workspace, besides index tables of one image, or of a few small ones, kept for the 128 latest geometries:

        all variants  x with its zeros, where there are any; backward also dz, as large as y, where there is an
                      activation, and where there is one or a bias 16 rows of it
        naive         dx with its zeros
        im2col        KH KW C / groups numbers for each pixel of as many images as fit into 524,288 numbers, or of one;
                      what `matmul` takes for a product with these; dx with its zeros, where there are any; dw once
                      more; with several groups also a group of w and of those images' y
        direct,       w in panels, a group's filters (for dx its channels) rounded up to 16, or 8 with float64; for dx
        threaded      dz with zeros around it; for dw partial sums, 16 dw at most and no more than 1,048,576 numbers,
                      and 290 KB of each thread's stack

    Where a megabyte or more of weights meets up to 512 pixels, the variant threaded takes 210 KB of each thread's stack
    instead of panels; for the dw of a plain 1 x 1 window, what `matmul` takes for it; for that of few filters, or few
    channels, one dw more, and in all of them the filters rounded up to whole tiles. For a dx of very few channels (up
    to 4, or 2 with float64) the variant threaded takes dx with its zeros, where there are any, w with its taps and
    channels rounded up to 14, and 66 KB of each thread's stack. Where groups are narrow (1, 2, 4 ... channels up to a
    vector, as many filters; not with the largest windows), it takes no zeros around x and dz, but w once more for dx,
    16 sums of dw, and 56 KB of each thread's stack. Where winograd goes its own way, it takes no zeros around x and dz,
    but 36 (C + 1) numbers for each filter, for dx 36 (F + 1) for each channel, these rounded up to 32 (AVX-512) or 16,
    or half of that with float64, and 0.6 MB of each thread's stack (1.2 with AVX-512). Arrays that are not C-contiguous
    are copied first.

    Rounding: naive, im2col, direct and threaded add up KH KW C / groups products. Where winograd goes its own way, an
    error enters a tile of 4 x 4 pixels, as far apart as the window's cells. With numbers drawn alike (uniform, normal)
    and 8 channels or more, no y is off by more than 32 eps times the largest sum of |x w| over a window of its tile,
    with eps = 2^-23 (float32) or 2^-52; at worst by 2304 (C + 20) eps max|x| max|w|. There NaN or Inf in x make all of
    the tiles that they reach NaN, up to 8 x 8 pixels instead of 3 x 3; so it is with dz and dx. Those in w reach all
    pixels of their filter, as always.

    The GPU's variants take no tables and no zeros around x. Backward they take dz as above, and where there is an
    activation or a bias a row for every 64 of it; w once more for dx; and for dw partial sums, at most 65,536 numbers
    (direct) or 4,194,304 (implicit, tensor). Where y or dx has so few blocks that processors would be idle, implicit
    and tensor cut its sums into parts, which are copies of it: at most 4,194,304 numbers, for dx in each phase of the
    strides. Where winograd goes its own way, it takes 36 numbers for each channel and filter instead, and 36 (C + F)
    for each tile of as many images as make 24 MB of that, or of one. tensor takes copies of the arrays of a pass whose
    channels or filters in a group are no multiple of 4, these rounded up, and of those that do not start on 16 bytes.

    Raises
    ------
    ValueError : shapes that do not fit, a window larger than the padded image, an empty array, an unknown variant; on a
        GPU images with about 2^31 pixels together, and float64 with the variant tensor.
    TypeError : dtypes other than float32, float64, or mixed.

    Saved for backward: x, w, and y where there is an activation.  Gradients, with dz = dy act'(z): dw is the
    correlation of x with dz, dx that of dz with the turned window (cells between the strides filled with zeros), db the
    sum of dz over images and pixels. NaN and Inf in w or dz may also reach cells of dx that lie near theirs along the
    border of the image.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), padding="same")[0, :, :, 0]
    array([[4., 4., 2.],
           [4., 4., 2.],
           [2., 2., 1.]])
    """
    y, _ = _run(x, w, b, (strides, padding, dilation, groups), activation, variant)
    return y


def conv2d_forward(x, w, b=None, *, strides=1, padding="valid", dilation=1, groups=1, activation=None, variant=None):
    """`conv2d`, and what its backward needs."""
    y, geometry = _run(x, w, b, (strides, padding, dilation, groups), activation, variant)
    return y, Conv2dSaved(x, w, b is not None, y if activation else None, geometry, activation, variant)


def conv2d_backward(dy, saved, needs=None):
    """(dx, dw, db) from dy (N, OH, OW, F); None where `needs`, three bools, says so, and db where there was no bias."""
    x, w, has_bias, y, geometry, activation, variant = saved
    device, xp = device_of("conv2d_backward", dy=dy, x=x), namespace(x)
    rung = VARIANTS["conv2d"].launcher(device, variant)
    need_x, need_w, need_b = checks.wanted("conv2d_backward", needs, ("x", "w", "b"))
    checks.floats("conv2d_backward", x=x, dy=dy)
    checks.shape("conv2d_backward", (geometry.N, geometry.OH, geometry.OW, geometry.F), dy=dy)
    dz, db = xp.ascontiguousarray(dy), None
    if activation is not None or (need_b and has_bias):
        rows, kernels = dz.reshape(-1, geometry.F), backend(gemm.__name__, device)
        dz, db = kernels.dense_epilogue_backward(rows, rows if y is None else y.reshape(rows.shape), activation)
    dx = dw = None
    if need_x:
        dx = empty(xp, x.shape, x.dtype)
        rung.data_gradient(dz, xp.ascontiguousarray(w), dx, geometry)
    if need_w:
        dw = empty(xp, w.shape, w.dtype)
        rung.weight_gradient(xp.ascontiguousarray(x), dz, dw, geometry)
    return dx, dw, db if need_b and has_bias else None


def _run(x, w, b, window, activation, variant):
    """Check, allocate, launch: y and the sizes."""
    rung = VARIANTS["conv2d"].launcher(device_of("conv2d", {"b": b}, x=x, w=w), variant)
    geometry, operands = checked("conv2d", x, w, b, window, activation)
    y = empty(namespace(x), (geometry.N, geometry.OH, geometry.OW, geometry.F), x.dtype)
    rung.forward(*operands, y, geometry, activation)
    return y, geometry


def checked(op, x, w, b, window, activation):
    """The sizes, and (x, w, b) C-contiguous; `window` is (strides, padding, dilation, groups)."""
    checks.floats(op, x=x, w=w, b=b)
    checks.choice(op, "activation", activation, FUSED_ACTIVATIONS)
    strides, padding, dilation, groups = window
    if type(groups) is not int:
        checks.positive(op, groups=groups)
    strides, dilation = checks.two(op, "strides", strides), checks.two(op, "dilation", dilation)
    geometry = _geometry(op, x.shape, w.shape, strides, _as_padding(op, padding), dilation, int(groups))
    xp = namespace(x)
    if b is not None:
        if b.shape != (geometry.F,):
            raise ValueError(f"{op}: b is {b.shape} and w is {w.shape}: b must be ({geometry.F},)")
        b = xp.ascontiguousarray(b)
    return geometry, (xp.ascontiguousarray(x), xp.ascontiguousarray(w), b)


def empty(xp, shape, dtype):
    """An array for a result; NumPy's start on a cache line, as CuPy's always do."""
    return aligned(prod(shape), dtype).reshape(shape) if xp is np else xp.empty(shape, dtype)


def _as_padding(op, padding):
    """ "valid", "same" or two pairs of integers."""
    if type(padding) is str:
        return padding
    try:
        (top, bottom), (left, right) = padding
        sides = top, bottom, left, right
    except (TypeError, ValueError):
        sides = (None,)
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side >= 0 for side in sides):
        raise ValueError(
            f"{op}: padding is {padding!r}: must be 'valid', 'same' or ((top, bottom), (left, right)) with integers "
            "of at least 0"
        )
    return (int(top), int(bottom)), (int(left), int(right))


@lru_cache(maxsize=256)
def _geometry(op, x_shape, w_shape, strides, padding, dilation, groups):
    """Check the shapes against each other; all sizes."""
    for name, shape, layout in (("x", x_shape, "(N, H, W, C)"), ("w", w_shape, "(KH, KW, C / groups, F)")):
        if len(shape) != 4:
            raise ValueError(f"{op}: {name} is {shape}: must have 4 dimensions {layout}")
        if 0 in shape:
            raise ValueError(f"{op}: {name} is {shape}: must not be empty")
    strides, dilation = checks.pair(op, "strides", strides), checks.pair(op, "dilation", dilation)
    checks.positive(op, groups=groups)
    n, h, w, c = x_shape
    kh, kw, depth, f = w_shape
    if c != depth * groups:
        raise ValueError(
            f"{op}: x is {x_shape} and w is {w_shape}: x.shape[3] must equal w.shape[2] * groups "
            f"({c} != {depth} * {groups})"
        )
    if f % groups:
        raise ValueError(f"{op}: w is {w_shape} and groups is {groups}: w.shape[3] must be a multiple of groups")
    if isinstance(padding, str):
        checks.choice(op, "padding", padding, ("valid", "same"))
        sides = [(0, 0), (0, 0)]
        if padding == "same":
            sides = [_same(*axis) for axis in zip((h, w), (kh, kw), strides, dilation)]
        padding = tuple(sides)
    out = []
    for size, window, stride, step, (before, after) in zip((h, w), (kh, kw), strides, dilation, padding):
        span = (window - 1) * step + 1
        if span > size + before + after:
            raise ValueError(
                f"{op}: x is {x_shape} and w is {w_shape}: the window covers {span} cells, the padded image has "
                f"{size + before + after}; use padding='same' or a smaller window"
            )
        out.append((size + before + after - span) // stride + 1)
    return Geometry(n, h, w, c, kh, kw, f, *out, strides, padding, dilation, groups)


def _same(size, window, stride, step):
    """(before, after) such that there are size / stride outputs, rounded up."""
    total = max(0, (-(-size // stride) - 1) * stride + (window - 1) * step + 1 - size)
    return total // 2, total - total // 2
