"""Backward of a maximum, image by image: dx is zero, and each number of dy is added where its maximum was.

That is a number at a time, four cycles each, since a sum in memory waits for the one before. It pays where dx would
collect from several windows for each of its cells, or has short rows (`pays`). The sums have the definition's order, as
those of gather.py have: the results are the same bits.
"""

from functools import lru_cache

import numpy as np

from ... import simd
from ...jit import jit
from ...simd import lanes, vfill, vstore_part
from ...threads import threaded
from . import narrow
from .gather import STREAM
from .rung import WORK

# Cells of a window at most: there is a number for each of them, and it is kept.
CELLS = 256


@jit
def max_scatter_image(image, dy, offsets, cells, dx, geometry):
    """One chunk: an image. `cells` says how far behind a window's first cell each of its cells lies."""
    _, height, width, channels, _, _, stride_h, stride_w, top, left, out_h, out_w = geometry
    size = height * width * channels
    for i in range(0, size, lanes(dx)):
        vstore_part(dx, image * size + i, vfill(dx, 0), size - i)
    for oh in range(out_h):
        for ow in range(out_w):
            source = ((image * out_h + oh) * out_w + ow) * channels
            corner = ((image * height + oh * stride_h - top) * width + ow * stride_w - left) * channels
            for c in range(channels):
                dx[np.uintp(corner + cells[np.uintp(offsets[source + c])] + c)] += dy[source + c]


_launch = threaded(max_scatter_image)


@lru_cache(maxsize=64)
def _cells(width, channels, size_h, size_w):
    return (np.arange(size_h)[:, None] * (width * channels) + np.arange(size_w) * channels).reshape(-1)


def max_scatter(dy, offsets, dx, geometry):
    """Workspace: 8 bytes for each cell of a window."""
    n, _, width, channels, size_h, size_w, *_ = geometry
    _launch(n, WORK * (dx.size + dy.size), dy, offsets, _cells(width, channels, size_h, size_w), dx, geometry)


@lru_cache(maxsize=256)
def pays(geometry, itemsize):
    """Whether the nanoseconds of a row of dx are fewer than those of collecting it.

    Between 120 shapes that were timed both ways on one thread of a Zen 3 (1 to 256 channels, images of 7 to 224,
    windows of 2, 3 and 5): collecting takes so long for a row, and so long for a vector and for each window over it.
    """
    n, height, width, channels, size_h, size_w, stride_h, stride_w, _, _, out_h, out_w = geometry
    if n == 1 or size_h * size_w > CELLS:  # one image is one thread
        return False
    vectors = width * channels * itemsize / simd.VECTOR_BYTES
    windows = size_h * size_w / (stride_h * stride_w)
    if narrow.suits(geometry, itemsize):
        collected = 15 + vectors * (1.5 + 0.75 * windows)
    else:
        collected = 120 + vectors * (0.25 + windows)
    is_large = n * height * width * channels * itemsize >= STREAM  # dx would be read from memory as well
    scattered = (1.3 * channels + 0.7) * out_h * out_w / height + vectors * (3 if is_large else 0.8)
    return scattered < collected
