"""Backward, a vector of cells at a time: what each collects from the windows over it.

A run is a stretch of dx whose lanes find their windows at one distance each: the channels of a pixel, with stride 1
those of the pixels after it too. It may be repeated, one window further and one stride further each time.

    given    dy, and for a maximum the offsets
    at       source, line, pixel    where the first window stands in `given`, how far the next row and the next column
             target, step, stream   where in dx the run begins, and how far its repeat; whether past the caches
    run      (repeats, lanes)
    place    h, w, oh, ow, weight   the first cell and the first window over it; what a mean's gradients are multiplied
                                    by, 0 where windows have not as many cells each

Where not `whole`, lanes are counted. Otherwise vectors run over the end of what is written, and over what is read.
"""

from ...jit import jit
from ...simd import (
    VECTOR_BYTES,
    add_in_order,
    fma,
    lanes,
    rolled,
    select,
    vfill,
    vload_as_part,
    vload_part,
    vstore_part,
    vstream,
)
from .rung import cells_of

# Bytes of dx from which it is written past the caches: 11 GB/s became 20 where a copy reaches 18.
STREAM = 1 << 23


@jit(inline=True)
def may_stream(dx, count):
    """Whether dx is larger than the caches, and stretches of `count` numbers are whole vectors."""
    return dx.size * dx.itemsize >= STREAM and count % lanes(dx) == 0 and dx.ctypes.data % VECTOR_BYTES == 0


@jit(inline=True)
def put(dx, target, value, room, stream):
    if stream:
        vstream(dx, target, value)
    else:
        vstore_part(dx, target, value, room)


@jit(inline=True)
def next_windows(cell, first, end, stride, before, size, windows):
    """Along one axis: the first and the end of the windows over a cell, from those over one before it (or 0, 0)."""
    while end < windows and end * stride - before <= cell:
        end += 1
    while first < end and first * stride - before + size <= cell:
        first += 1
    return first, end


@jit(inline=True)
def max_gather(given, dx, at, run, place, geometry, rows, columns, whole):
    """dx = the sum of those of rows x columns gradients whose maximum it was."""
    (dy, offsets), (repeats, count) = given, run
    source, line, pixel, target, step, stream = at
    h, w, oh, ow, _ = place
    _, _, _, _, _, size_w, stride_h, stride_w, top, left, _, _ = geometry
    first = (h + top - oh * stride_h) * size_w + w + left - ow * stride_w  # the cell's number in its first window
    for _ in range(repeats):
        for i in range(0, count, lanes(dx)):
            room = lanes(dx) if whole else count - i
            total = vfill(dx, 0)
            for row in range(rows):
                rolled()
                for column in range(columns):
                    here = source + i + row * line + column * pixel
                    number = first - row * stride_h * size_w - column * stride_w
                    mine = vload_as_part(dx, offsets, here, room) == number
                    total = add_in_order(total, select(mine, vload_part(dy, here, room), 0.0))
            put(dx, target + i, total, room, stream)
        source, target = source + count, target + step


@jit(inline=True)
def avg_gather(given, dx, at, run, place, geometry, rows, columns, whole):
    """dx = the sum of rows x columns gradients, each times `weight`."""
    (dy,), (repeats, count) = given, run
    source, line, pixel, target, step, stream = at
    _, _, _, _, weight = place
    for _ in range(repeats):
        for i in range(0, count, lanes(dx)):
            room = lanes(dx) if whole else count - i
            total = vfill(dx, 0)
            for row in range(rows):
                rolled()
                across = vfill(dx, 0)
                for column in range(columns):
                    here = source + i + row * line + column * pixel
                    across = fma(vload_part(dy, here, room), weight, across)
                total = total + across
            put(dx, target + i, total, room, stream)
        source, target = source + count, target + step


@jit(inline=True)
def avg_gather_at_borders(given, dx, at, run, place, geometry, rows, columns, whole):
    """dx = the sum of rows x columns gradients, each over as many cells as its own window has.

    In one function with the one above, by a branch, many channels took 7 to 13 % longer.
    """
    (dy,), (repeats, count) = given, run
    source, line, pixel, target, step, stream = at
    _, _, oh, ow, _ = place
    _, height, width, _, size_h, size_w, stride_h, stride_w, top, left, _, _ = geometry
    for _ in range(repeats):
        for i in range(0, count, lanes(dx)):
            room = lanes(dx) if whole else count - i
            total = vfill(dx, 0)
            for row in range(rows):
                rolled()
                across = vfill(dx, 0)
                for column in range(columns):
                    _, w_first, w_end = cells_of(ow + column, stride_w, left, size_w, width)
                    here, share = source + i + row * line + column * pixel, vfill(dx, 1) / (w_end - w_first)
                    across = fma(vload_part(dy, here, room), share, across)
                _, h_first, h_end = cells_of(oh + row, stride_h, top, size_h, height)
                total = total + across / (h_end - h_first)
            put(dx, target + i, total, room, stream)
        source, target = source + count, target + step


def _for_usual_windows(kind, gather):
    """The same function, where the usual numbers of windows have lines with constants, which unroll."""

    @jit(inline=True, name=f"collect_{kind}")
    def collect(given, dx, at, run, place, geometry, rows, columns, whole):
        if not whole:
            gather(given, dx, at, run, place, geometry, rows, columns, False)
        elif rows == 0 or columns == 0:  # cells that no window reaches
            gather(given, dx, at, run, place, geometry, 0, 0, True)
        elif rows == 1 and columns == 1:
            gather(given, dx, at, run, place, geometry, 1, 1, True)
        elif rows == 1 and columns == 2:
            gather(given, dx, at, run, place, geometry, 1, 2, True)
        elif rows == 2 and columns == 1:
            gather(given, dx, at, run, place, geometry, 2, 1, True)
        elif rows == 2 and columns == 2:
            gather(given, dx, at, run, place, geometry, 2, 2, True)
        elif rows == 3 and columns == 3:
            gather(given, dx, at, run, place, geometry, 3, 3, True)
        elif columns == 3:
            gather(given, dx, at, run, place, geometry, rows, 3, True)
        else:
            gather(given, dx, at, run, place, geometry, rows, columns, True)

    return collect


collect_max, collect_alike = _for_usual_windows("max", max_gather), _for_usual_windows("avg", avg_gather)


@jit(inline=True)
def collect_avg(given, dx, at, run, place, geometry, rows, columns, whole):
    _, _, _, _, weight = place
    if weight > 0 or rows == 0 or columns == 0:
        collect_alike(given, dx, at, run, place, geometry, rows, columns, whole)
    elif columns == 2 and whole:  # few cells, but divisions that are not taken out of the loop would cost more than all
        avg_gather_at_borders(given, dx, at, run, place, geometry, rows, 2, True)
    elif columns == 3 and whole:
        avg_gather_at_borders(given, dx, at, run, place, geometry, rows, 3, True)
    else:
        avg_gather_at_borders(given, dx, at, run, place, geometry, rows, columns, whole)
