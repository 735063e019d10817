"""The zeros around an image, which all rungs read."""

from ...jit import jit
from ...simd import lanes, vfill, vload_part, vstore_part
from ...threads import threaded
from ...workspace import scratch


@jit(inner=True)
def pad_rows(chunk, source, target, chunks, rows, height, width, top, left, padded_height, padded_width):
    """One chunk: a share of the target's `rows` rows, each `padded_width` numbers: zeros, a source row, zeros."""
    step = lanes(source)
    zeros = vfill(source, 0.0)
    for row in range(chunk * rows // chunks, (chunk + 1) * rows // chunks):
        image, h = row // padded_height, row % padded_height - top
        t = row * padded_width
        start, end = t, t
        if 0 <= h < height:
            s = (image * height + h) * width
            start, end = t + left, t + left + width
            for j in range(0, width, step):
                vstore_part(target, start + j, vload_part(source, s + j, width - j), width - j)
        for j in range(t, start, step):
            vstore_part(target, j, zeros, start - j)
        for j in range(end, t + padded_width, step):
            vstore_part(target, j, zeros, t + padded_width - j)


_pad_rows = threaded(pad_rows)


def pad(x, images, height, width, padding):
    """`x`, images of height x width numbers, flat and with zeros around: rows above and below, numbers left and right.

    Without any padding x itself; else a workspace, valid until the next call in this thread.
    """
    (top, bottom), (left, right) = padding
    flat = x.reshape(-1)
    if not (top or bottom or left or right):
        return flat
    padded_height, padded_width = height + top + bottom, left + width + right
    rows = images * padded_height
    target = scratch("convolution.padded", rows * padded_width, x.dtype)
    chunks = min(rows, 32)
    _pad_rows(
        chunks, rows * padded_width, flat, target,
        chunks, rows, height, width, top, left, padded_height, padded_width,
    )  # fmt: skip
    return target


def pad_input(x, geometry):
    """x with the zeros that the geometry asks for, flat; its height and width."""
    g = geometry
    rows, (left, right) = g.padding
    return pad(x, g.N, g.H, g.W * g.C, (rows, (left * g.C, right * g.C))), g.H + sum(rows), g.W + left + right
