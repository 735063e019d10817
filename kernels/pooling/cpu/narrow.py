"""Backward with fewer channels than a vector has lanes: each row of dx is made on the stack.

A phase is every SW-th cell of a row. The windows over its cells lie next to each other in y, so that it collects whole
vectors from whole vectors; the phases are then woven into the row.

    3 x 3, stride 2, windows a, b, c      cells 0, 2, 4, 6 collect from     0 a b c  and  a b c 0
                                          cells 1, 3, 5                     a b c

Rows of dy wait on the stack, as many as fit, with zeros before and behind them: no border is near. Their offsets wait
as integers as wide as dy's numbers, since each is compared several times; and in the same memory, since the compiler
then needs one address for both. For one channel, such a maximum takes 0.4 times as long as with zeros between dy's
numbers too, as if the stride were 1: that looked at 9 windows for each cell where 2.25 lie over it. With as many
channels as lanes this does not pay: maxima took 0.9 to 2.2 times as long as from dy itself (all rows of a block in one
loop), since every number goes over the stack once more.
"""

import numpy as np

from ...jit import jit
from ...simd import (
    VECTOR_BYTES,
    first_lanes,
    lane_numbers,
    lanes,
    select,
    stack_array,
    vfill,
    viewed,
    vload,
    vload_as_part,
    vload_part,
    vstore,
    zip_high,
    zip_low,
)
from .forward import outputs_alike
from .gather import collect_avg, collect_max, may_stream, next_windows, put
from .rung import cells_of

# Bytes on the stack for each of: rows of dy, their offsets, the phases of a row, the row.
ROOM = 1 << 15
TWO_ROOMS = 2 * ROOM


@jit(inline=True)
def layout(geometry, lane_count):
    """(cells, over, line, apart): cells of a phase, and windows over one, at most; how far apart rows of dy begin, and
    phases, with room for the last vector to run over the end."""
    _, _, width, channels, _, size_w, _, stride_w, _, left, _, _ = geometry
    cells, over = -(-width // stride_w), -(-size_w // stride_w)
    line = (cells + left // stride_w + 1 + over) * channels + lane_count
    return cells, over, line, cells * channels + lane_count


def suits(geometry, itemsize):
    """Whether channels are few, and rows short enough for the stack."""
    channels, size_h, stride_h, stride_w = geometry[3], geometry[4], geometry[6], geometry[7]
    lane_count, room = VECTOR_BYTES // itemsize, ROOM // itemsize
    if channels >= lane_count:
        return False
    _, _, line, apart = layout.py_func(geometry, lane_count)
    # The row takes as much as its phases, and another vector.
    return -(-size_h // stride_h) * line + lane_count <= room and (stride_w + 1) * apart <= room


@jit(inline=True)
def clear(held, start, end):
    for i in range(start, end, lanes(held)):
        vstore(held, i, vfill(held, 0))


# Rows are held in rising order: zeros behind one may run over the beginning of the next.


@jit(inline=True)
def max_hold(given, row, held, start, end, before, geometry):
    """A row of dy, `before` zeros before it, and its offsets; what these are where dy is zero does not matter."""
    (dy, offsets), (held_dy, held_offsets) = given, held
    count = geometry[3] * geometry[11]
    clear(held_dy, start, start + before)
    for i in range(0, count, lanes(dy)):
        source, target = row * count + i, start + before + i
        vstore(held_dy, target, vload_part(dy, source, dy.size - source))
        vstore(held_offsets, target, vload_as_part(dy, offsets, source, dy.size - source))
    clear(held_dy, start + before + count, end)


@jit(inline=True)
def avg_hold(given, row, held, start, end, before, geometry):
    """A row of dy, `before` zeros before it, each number over the cells of its window."""
    (dy,), (held_dy,) = given, held
    _, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
    clear(held_dy, start, start + before)
    ow = 0
    while ow < out_w:
        _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        alike = outputs_alike(ow, stride_w, left, size_w, width)
        for i in range(ow * channels, (ow + alike) * channels, lanes(dy)):
            source = row * out_w * channels + i
            share = vload_part(dy, source, dy.size - source) / ((h_end - h_first) * (w_end - w_first))
            vstore(held_dy, start + before + i, share)
        ow += alike
    clear(held_dy, start + before + out_w * channels, end)


@jit(inline=True)
def weave(phases, apart, row, start, cells, stride_w, channels):
    """The row from its phases, in rising order: a vector that runs over the end of a cell is written over there."""
    if channels == 1 and stride_w == 2:
        for i in range(0, cells, lanes(row)):
            even, odd = vload(phases, i), vload(phases, apart + i)
            vstore(row, start + 2 * i, zip_low(even, odd))
            vstore(row, start + 2 * i + lanes(row), zip_high(even, odd))
    elif 2 * channels <= lanes(row) and stride_w == 2:
        for i in range(0, cells * channels, channels):
            two = select(first_lanes(row, channels), vload(phases, i), vload(phases, apart - channels + i))
            vstore(row, start + 2 * i, two)
    else:
        for cell in range(cells):
            for phase in range(stride_w):
                target = start + (cell * stride_w + phase) * channels
                vstore(row, target, vload(phases, phase * apart + cell * channels))


def _over_narrow_rows(kind, hold, collect):
    """A function (chunk, rows, given, held, dx, geometry) that fills a chunk's rows of dx."""

    @jit(inline=True, name=f"{kind}_over_narrow_rows")
    def walk(chunk, rows, given, held, dx, geometry):
        n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
        cells, most, line, apart = layout(geometry, lanes(dx))
        phases, made = viewed(stack_array(np.uint8, ROOM), dx), viewed(stack_array(np.uint8, ROOM), dx)
        end, count, slots = min((chunk + 1) * rows, n * height), width * channels, (held[0].size - lanes(dx)) // line
        stream = may_stream(dx, count)
        image, h = chunk * rows // height, chunk * rows % height
        oh = oh_end = held_first = held_end = 0
        for row in range(chunk * rows, end):
            oh, oh_end = next_windows(h, oh, oh_end, stride_h, top, size_h, out_h)
            first, high = image * out_h + oh, oh_end - oh
            if first + high > held_end:
                # As many as the chunk needs: a load from what was just stored otherwise waits, in every row.
                held_first, held_end = first, min(first + min(slots, high + (end - row) // stride_h), n * out_h)
                for i in range(held_end - held_first):
                    hold(given, held_first + i, held, i * line, (i + 1) * line, (most - 1) * channels, geometry)
            # dx itself, where what runs over the row's end is written again by the next rows of this chunk.
            direct = not stream and (row + 1) * count + stride_w * channels + 2 * lanes(dx) <= end * count
            goal, start = (dx, row * count) if direct else (made, 0)
            into, target, step = (goal, start, 0) if stride_w == 1 else (phases, 0, apart)
            phase, skipped = left % stride_w, left // stride_w
            for _ in range(stride_w):
                over = most if phase + (most - 1) * stride_w < size_w else most - 1
                source = (first - held_first) * line + (most - over + skipped) * channels
                at = source, line, channels, target, 0, False
                place = h, phase - left, oh, 1 - over, dx.dtype.type(1)
                collect(held, into, at, (1, cells * channels), place, geometry, high, over, True)
                phase, target = phase + 1, target + step
                if phase == stride_w:
                    phase, skipped = 0, skipped + 1
            if stride_w > 1:
                weave(phases, apart, goal, start, cells, stride_w, channels)
            if not direct:
                for i in range(0, count, lanes(dx)):
                    put(dx, row * count + i, vload(made, i), count - i, stream)
            h += 1
            if h == height:
                image, h, oh, oh_end = image + 1, 0, 0, 0

    return walk


max_over_rows = _over_narrow_rows("max", max_hold, collect_max)
avg_over_rows = _over_narrow_rows("avg", avg_hold, collect_avg)


@jit
def max_backward_narrow(chunk, rows, dy, offsets, dx, geometry):
    room = stack_array(np.uint8, TWO_ROOMS)
    held = viewed(room[:ROOM], dx), viewed(room[ROOM:], lane_numbers(dx))
    max_over_rows(chunk, rows, (dy, offsets), held, dx, geometry)


@jit
def avg_backward_narrow(chunk, rows, dy, dx, geometry):
    avg_over_rows(chunk, rows, (dy,), (viewed(stack_array(np.uint8, ROOM), dx),), dx, geometry)
