"""Pooling on a CPU.

    naive   the loops of the definition, one number at a time; backward adds to dx wherever a window says so
    simd    a vector of windows at a time, chunk by chunk over several threads; backward goes by rows of dx

Channels lie next to each other in memory, and so do pixels: a vector of them is as many windows at once. A chunk is
some rows: of y forward, of dx backward. A number of dx collects from the windows that cover it, in rising order, so no
two threads add to the same one, windows may overlap as they like, and dx goes to memory once.

`geometry` is the contract's Geometry as a plain tuple: N, H, W, C, KH, KW, SH, SW, top, left, OH, OW.
"""

from collections.abc import Callable
from typing import NamedTuple

from ..jit import jit
from ..simd import (
    VECTOR_BYTES,
    add_in_order,
    first_lanes,
    fma,
    lane_numbers,
    lanes,
    rolled,
    select,
    stack_array,
    vfill,
    vload_as_part,
    vload_part,
    vstore,
    vstore_as,
    vstore_as_part,
    vstore_part,
    vstream,
)
from ..threads import threaded

# Cells that a chunk looks at: long enough to be worth a thread's while, short enough that threads share evenly.
CHUNK = 32768
# What one cell costs in arithmetic operations, memory counted in: it decides between threads and none.
WORK = 4
# Numbers of dy that a chunk keeps on the stack: they stay in the first-level cache.
HELD = 4096
# Bytes of dx from which it is written past the caches: 11 GB/s became 20 where a copy reaches 18.
STREAM = 1 << 23


class Rung(NamedTuple):
    """One variant: forward fills y (and offsets), backward fills dx. All arrays are flat."""

    forward: Callable
    backward: Callable


@jit(inline=True)
def cells_of(window, stride, before, size, edge):
    """A window along one axis: where it starts, and the first and the end of its cells that lie in the image."""
    start = window * stride - before
    return start, max(start, 0), min(start + size, edge)


# ---------------------------------------------------------------------------------------------------------------------
# naive


@jit
def max_forward_naive(x, y, offsets, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                target = (row * out_w + ow) * channels + c
                found = False
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        value = x[((row // out_h * height + h) * width + w) * channels + c]
                        best = y[target]
                        if not found or (best == best and not value <= best):
                            y[target], offsets[target], found = value, (h - h0) * size_w + w - w0, True


@jit
def max_backward_naive(dy, offsets, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        for ow in range(out_w):
            for c in range(channels):
                source = (row * out_w + ow) * channels + c
                h = row % out_h * stride_h - top + offsets[source] // size_w
                w = ow * stride_w - left + offsets[source] % size_w
                dx[((row // out_h * height + h) * width + w) * channels + c] += dy[source]


@jit
def avg_forward_naive(x, y, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                total, cells = x.dtype.type(0), x.dtype.type(0)
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        total += x[((row // out_h * height + h) * width + w) * channels + c]
                        cells += 1
                y[(row * out_w + ow) * channels + c] = total / cells


@jit
def avg_backward_naive(dy, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    dx[:] = 0
    for row in range(n * out_h):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        for ow in range(out_w):
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            for c in range(channels):
                share = dy[(row * out_w + ow) * channels + c] / ((h_end - h_first) * (w_end - w_first))
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        dx[((row // out_h * height + h) * width + w) * channels + c] += share


max_naive = Rung(max_forward_naive, max_backward_naive)
avg_naive = Rung(avg_forward_naive, avg_backward_naive)


# ---------------------------------------------------------------------------------------------------------------------
# simd
#
# A run is a stretch of y (backward: of dx) whose lanes find their cells at one distance each: the channels of a pixel,
# and where the stride is 1 the pixels of a row away from its borders too, so that vectors are full however few the
# channels. Runs are written in rising order, in whole vectors: what the last one writes beyond its run is written
# again by the next. Only where a vector would leave the chunk, or memory, lanes are counted.
#
#     stride 1, window 3, padding 1:     | w = 0 | w = 1 ... width - 2 | w = width - 1 |      three runs
#
# The usual windows, up to three cells wide, take the same lines with a constant width, which unrolls.


@jit(inline=True)
def has_room(like, end_of_row, end, channels):
    """Whether whole vectors may run over the end of a row: there is room behind it, or they never do."""
    return channels % lanes(like) == 0 or end_of_row + lanes(like) <= end


@jit(inline=True)
def outputs_alike(ow, stride, left, size, width):
    """How many outputs from `ow` on have windows that lie in the image as its own does."""
    start = ow * stride - left
    if start < 0 or start + size > width:
        return 1
    more = width - size - start
    return 1 + (more if stride == 1 else more // stride)


@jit(inline=True)
def run_of(alike, stride, channels):
    """(repeats, lanes): with stride 1 the pixels follow each other in x as in y."""
    return (1, alike * channels) if stride == 1 else (alike, channels)


@jit(inline=True)
def max_run(x, y, offsets, start, target, run, step, line, pixel, rows, columns, size_w, corner, whole):
    """The largest of rows x columns cells and its number in a window size_w wide, `corner` being that of the first."""
    repeats, count = run
    for _ in range(repeats):
        for i in range(0, count, lanes(x)):
            room = lanes(x) if whole else count - i
            best, offset = vload_part(x, start + i, room), vfill(lane_numbers(x), corner)
            for row in range(rows):
                rolled()
                for column in range(columns):
                    value = vload_part(x, start + i + row * line + column * pixel, room)
                    better = (best == best) & ~(value <= best)  # the first NaN wins for good
                    best = select(better, value, best)
                    offset = select(better, corner + row * size_w + column, offset)
            vstore_part(y, target + i, best, room)
            vstore_as_part(offsets, target + i, offset, room)
        start, target = start + step, target + count


@jit
def max_forward_chunk(chunk, rows, x, y, offsets, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    line, step, end = width * channels, stride_w * channels, min((chunk + 1) * rows, n * out_h)
    for row in range(chunk * rows, end):
        h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        high, ow = h_end - h_first, 0
        first = (row // out_h * height + h_first) * line
        whole = has_room(x, (row + 1) * out_w * channels, end * out_w * channels, channels)
        whole &= has_room(x, first + high * line, x.size, channels)
        while ow < out_w:
            w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            alike, wide = outputs_alike(ow, stride_w, left, size_w, width), w_end - w_first
            run = run_of(alike, stride_w, channels)
            start, target = first + w_first * channels, (row * out_w + ow) * channels
            corner = (h_first - h0) * size_w + w_first - w0
            if not whole:
                max_run(x, y, offsets, start, target, run, step, line, channels, high, wide, size_w, corner, False)
            elif high == 2 and wide == 2:
                max_run(x, y, offsets, start, target, run, step, line, channels, 2, 2, size_w, corner, True)
            elif high == 3 and wide == 3:
                max_run(x, y, offsets, start, target, run, step, line, channels, 3, 3, size_w, corner, True)
            else:
                max_run(x, y, offsets, start, target, run, step, line, channels, high, wide, size_w, corner, True)
            ow += alike


@jit(inline=True)
def sum_run(x, y, start, target, run, step, line, pixel, rows, columns, whole):
    """Each row of the window is summed for itself, so that rounding grows with its edges and not with its area."""
    repeats, count = run
    for _ in range(repeats):
        for i in range(0, count, lanes(x)):
            room = lanes(x) if whole else count - i
            total = vfill(x, 0)
            for row in range(rows):
                rolled()
                across = vfill(x, 0)
                for column in range(columns):
                    across = across + vload_part(x, start + i + row * line + column * pixel, room)
                total = total + across
            vstore_part(y, target + i, total / (rows * columns), room)
        start, target = start + step, target + count


@jit
def avg_forward_chunk(chunk, rows, x, y, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    line, step, end = width * channels, stride_w * channels, min((chunk + 1) * rows, n * out_h)
    for row in range(chunk * rows, end):
        _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
        high, ow = h_end - h_first, 0
        first = (row // out_h * height + h_first) * line
        whole = has_room(x, (row + 1) * out_w * channels, end * out_w * channels, channels)
        whole &= has_room(x, first + high * line, x.size, channels)
        while ow < out_w:
            _, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
            alike, wide = outputs_alike(ow, stride_w, left, size_w, width), w_end - w_first
            run = run_of(alike, stride_w, channels)
            start, target = first + w_first * channels, (row * out_w + ow) * channels
            if not whole:
                sum_run(x, y, start, target, run, step, line, channels, high, wide, False)
            elif high == 2 and wide == 2:
                sum_run(x, y, start, target, run, step, line, channels, 2, 2, True)
            elif high == 3 and wide == 3:
                sum_run(x, y, start, target, run, step, line, channels, 3, 3, True)
            else:
                sum_run(x, y, start, target, run, step, line, channels, high, wide, True)
            ow += alike


@jit(inline=True)
def next_windows(w, first, end, stride, left, size, windows):
    """The first and the end of the windows that cover cell w, from those that cover one before it (or from 0, 0)."""
    while end < windows and end * stride - left <= w:
        end += 1
    while first < end and first * stride - left + size <= w:
        first += 1
    return first, end


@jit(inline=True)
def cells_alike(w, stride, left, size, width, windows, channels, like):
    """How often the next `stride` cells of a row repeat, each time one window further; 0 near the borders.

    Each of them is a run. Where vectors run over the end of a pixel, the next one has to be written next.
    """
    if w + left - size < -stride or (stride > 1 and channels % lanes(like) != 0):
        return 0
    if stride == 1:
        return max(0, min(windows - left - w, width - w))
    return max(0, min(windows - -(-(left + w) // stride), (width - w) // stride))


@jit(inline=True)
def may_stream(dx, channels):
    """Whether dx is larger than the caches and made of whole vectors."""
    return dx.size * dx.itemsize >= STREAM and channels % lanes(dx) == 0 and dx.ctypes.data % VECTOR_BYTES == 0


# Backward with few channels: rows of dy are copied to the stack, as many as fit, their pixels as far apart as the
# windows are, with zeros between and around. There the stride is 1 and no border is near: a row of dx is one run.
#
#     3 x 3, stride 2, four pixels, padding of 1 before them:     0 a 0 b 0 c 0 d 0       dx[w] sees numbers w to w + 2


@jit(inline=True)
def rows_held(dx, geometry):
    """How many rows fit on the stack, 0 where they are not to be copied; and the numbers of one."""
    _, _, width, channels, size_h, size_w, stride_h, _, _, _, _, _ = geometry
    line = (width + size_w) * channels + lanes(dx)
    slots = (HELD - lanes(dx)) // line
    return (slots if channels < lanes(dx) and slots * stride_h >= size_h else 0), line


@jit(inline=True)
def clear(held):
    for i in range(0, HELD, lanes(held)):
        vstore(held, i, vfill(held, 0))


@jit(inline=True)
def set_apart(dy, source, held, target, run, step, cells):
    """Copy pixels of dy, each lane over `cells`, to places `step` apart, and zeros behind."""
    repeats, count = run
    for i in range(0, count, lanes(dy)):
        mine, zero = first_lanes(dy, count - i), vfill(dy, 0)
        for pixel in range(repeats):
            here = source + pixel * count + i
            share = vload_part(dy, here, dy.size - here) / cells
            vstore(held, target + pixel * step + i, select(mine, share, zero))


@jit(inline=True)
def set_offsets_apart(offsets, source, held, target, run, step, like):
    """Copy pixels of offsets likewise; what they are where dy is zero does not matter."""
    repeats, count = run
    for i in range(0, count, lanes(like)):
        for pixel in range(repeats):
            here = source + pixel * count + i
            vstore_as(held, target + pixel * step + i, vload_as_part(like, offsets, here, offsets.size - here))


@jit(inline=True)
def max_hold(dy, offsets, row, held_dy, held_offsets, place, geometry):
    """A row of dy and its offsets, set apart."""
    _, _, _, channels, _, size_w, _, stride_w, _, left, _, out_w = geometry
    source, target, run = (
        row * out_w * channels,
        place + (size_w - 1 - left) * channels,
        run_of(out_w, stride_w, channels),
    )
    set_apart(dy, source, held_dy, target, run, stride_w * channels, 1)
    set_offsets_apart(offsets, source, held_offsets, target, run, stride_w * channels, dy)


@jit(inline=True)
def max_gather(dy, offsets, dx, at, run, steps, rows, columns, whole):
    """dx = the sum of the rows x columns gradients from `source` on whose maximum it was.

    cell : its number in the first of these windows; in the next one it is less by step_h, step_w
    """
    source, line, pixel, target, step, stream = at
    cell, step_h, step_w = steps
    repeats, count = run
    for _ in range(repeats):
        for i in range(0, count, lanes(dx)):
            room = lanes(dx) if whole else count - i
            total = vfill(dx, 0)
            for row in range(rows):
                rolled()
                for column in range(columns):
                    here = source + i + row * line + column * pixel
                    best = vload_as_part(dx, offsets, here, room) == cell - row * step_h - column * step_w
                    total = add_in_order(total, select(best, vload_part(dy, here, room), 0.0))
            if stream:
                vstream(dx, target + i, total)
            else:
                vstore_part(dx, target + i, total, room)
        source, target = source + count, target + step


@jit
def max_backward_chunk(chunk, rows, dy, offsets, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    end, line = min((chunk + 1) * rows, n * height), out_w * channels
    held_dy, held_offsets = stack_array(dx.dtype, HELD), stack_array(offsets.dtype, HELD)
    held_first = held_end = 0
    stream = may_stream(dx, channels)
    slots, held_line = rows_held(dx, geometry)
    if slots > 0:
        clear(held_dy)
        stride_w, left, out_w = 1, size_w - 1, width + size_w - 1
        given, where, line = held_dy, held_offsets, held_line
    else:
        given, where = dy, offsets
    image, h = chunk * rows // height, chunk * rows % height
    oh_first = oh_end = 0
    for row in range(chunk * rows, end):
        oh_first, oh_end = next_windows(h, oh_first, oh_end, stride_h, top, size_h, out_h)
        first, high = image * out_h + oh_first, oh_end - oh_first
        if slots > 0:
            if first + high > held_end:
                held_first, held_end = first, min(first + slots, n * out_h)
                for held in range(held_first, held_end):
                    max_hold(dy, offsets, held, held_dy, held_offsets, (held - held_first) * line, geometry)
            first -= held_first
        whole = has_room(dx, (row + 1) * width * channels, end * width * channels, channels)
        whole &= has_room(dx, (first + high) * line, given.size, channels)
        w = ow_first = ow_end = 0
        while w < width:
            blocks = cells_alike(w, stride_w, left, size_w, width, out_w, channels, dx)
            run = run_of(max(blocks, 1), stride_w, channels)
            for _ in range(stride_w if blocks > 0 else 1):
                ow_first, ow_end = next_windows(w, ow_first, ow_end, stride_w, left, size_w, out_w)
                wide, step_h = ow_end - ow_first, stride_h * size_w
                source, target = first * line + ow_first * channels, (row * width + w) * channels
                cell = (h + top - oh_first * stride_h) * size_w + w + left - ow_first * stride_w
                at = source, line, channels, target, stride_w * channels, stream
                steps = cell, step_h, stride_w
                if not whole:
                    max_gather(given, where, dx, at, run, steps, high, wide, False)
                elif high == 1 and wide == 1:
                    max_gather(given, where, dx, at, run, steps, 1, 1, True)
                elif high == 1 and wide == 2:
                    max_gather(given, where, dx, at, run, steps, 1, 2, True)
                elif high == 2 and wide == 1:
                    max_gather(given, where, dx, at, run, steps, 2, 1, True)
                elif high == 2 and wide == 2:
                    max_gather(given, where, dx, at, run, steps, 2, 2, True)
                elif high == 3 and wide == 3:
                    max_gather(given, where, dx, at, run, steps, 3, 3, True)
                elif wide == 3:
                    max_gather(given, where, dx, at, run, steps, high, 3, True)
                else:
                    max_gather(given, where, dx, at, run, steps, high, wide, True)
                w += 1
            if blocks > 1:
                w, ow_first, ow_end = w + (blocks - 1) * stride_w, ow_first + blocks - 1, ow_end + blocks - 1
        h += 1
        if h == height:
            image, h, oh_first, oh_end = image + 1, 0, 0, 0


@jit(inline=True)
def avg_hold(dy, row, held, place, geometry):
    """A row of dy, each number over the cells of its window, set apart."""
    _, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    _, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
    ow = 0
    while ow < out_w:
        w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
        alike = outputs_alike(ow, stride_w, left, size_w, width)
        run, cells = run_of(alike, stride_w, channels), (h_end - h_first) * (w_end - w_first)
        target = place + (w0 + size_w - 1) * channels
        set_apart(dy, (row * out_w + ow) * channels, held, target, run, stride_w * channels, cells)
        ow += alike


@jit(inline=True)
def avg_gather(dy, dx, at, run, windows, geometry, rows, columns, whole, alike):
    """dx = the sum of the rows x columns gradients from `source` on, each over the cells of its window.

    weight : what each is multiplied by where the windows are `alike`, with as many cells each
    """
    _, height, width, _, size_h, size_w, stride_h, stride_w, top, left, _, _ = geometry
    source, line, pixel, target, step, stream = at
    repeats, count = run
    oh, ow, weight = windows
    for _ in range(repeats):
        for i in range(0, count, lanes(dx)):
            room = lanes(dx) if whole else count - i
            total = vfill(dx, 0)
            for row in range(rows):
                rolled()
                across = vfill(dx, 0)
                for column in range(columns):
                    share = vfill(dx, weight)
                    if not alike:
                        _, w_first, w_end = cells_of(ow + column, stride_w, left, size_w, width)
                        share = vfill(dx, 1) / (w_end - w_first)
                    across = fma(vload_part(dy, source + i + row * line + column * pixel, room), share, across)
                if not alike:
                    _, h_first, h_end = cells_of(oh + row, stride_h, top, size_h, height)
                    across = across / (h_end - h_first)
                total = total + across
            if stream:
                vstream(dx, target + i, total)
            else:
                vstore_part(dx, target + i, total, room)
        source, target = source + count, target + step


@jit
def avg_backward_chunk(chunk, rows, dy, dx, geometry):
    n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
    end, line = min((chunk + 1) * rows, n * height), out_w * channels
    held_dy = stack_array(dx.dtype, HELD)
    held_first = held_end = 0
    none, one = dx.dtype.type(0), dx.dtype.type(1)
    stream = may_stream(dx, channels)
    slots, held_line = rows_held(dx, geometry)
    if slots > 0:
        clear(held_dy)
        stride_w, left, out_w = 1, size_w - 1, width + size_w - 1
        given, line = held_dy, held_line
    else:
        given = dy
    complete = out_w if slots > 0 else min(out_w, (width - size_w + left) // stride_w + 1)
    image, h = chunk * rows // height, chunk * rows % height
    oh_first = oh_end = 0
    for row in range(chunk * rows, end):
        oh_first, oh_end = next_windows(h, oh_first, oh_end, stride_h, top, size_h, out_h)
        first, high = image * out_h + oh_first, oh_end - oh_first
        if slots > 0:
            if first + high > held_end:
                held_first, held_end = first, min(first + slots, n * out_h)
                for held in range(held_first, held_end):
                    avg_hold(dy, held, held_dy, (held - held_first) * line, geometry)
            first -= held_first
        whole = has_room(dx, (row + 1) * width * channels, end * width * channels, channels)
        whole &= has_room(dx, (first + high) * line, given.size, channels)
        tall = oh_first * stride_h >= top and (oh_end - 1) * stride_h - top + size_h <= height
        w = ow_first = ow_end = 0
        while w < width:
            ow_first, ow_end = next_windows(w, ow_first, ow_end, stride_w, left, size_w, out_w)
            blocks = 0
            if slots > 0 or ow_first * stride_w >= left:
                blocks = cells_alike(w, stride_w, left, size_w, width, complete, channels, dx)
            run = run_of(max(blocks, 1), stride_w, channels)
            for _ in range(stride_w if blocks > 0 else 1):
                ow_first, ow_end = next_windows(w, ow_first, ow_end, stride_w, left, size_w, out_w)
                wide, start, last = ow_end - ow_first, ow_first * stride_w - left, (ow_end - 1) * stride_w - left
                weight = none
                if slots > 0:
                    weight = one
                elif tall and start >= 0 and last + size_w <= width:
                    weight = one / dx.dtype.type(size_h * size_w)
                windows = oh_first, ow_first, weight
                source, target = first * line + ow_first * channels, (row * width + w) * channels
                at = source, line, channels, target, stride_w * channels, stream
                if not whole:
                    avg_gather(given, dx, at, run, windows, geometry, high, wide, False, weight > none)
                elif high == 1 and wide == 1 and weight > none:
                    avg_gather(given, dx, at, run, windows, geometry, 1, 1, True, True)
                elif high == 1 and wide == 2:
                    avg_gather(given, dx, at, run, windows, geometry, 1, 2, True, weight > none)
                elif high == 2 and wide == 1:
                    avg_gather(given, dx, at, run, windows, geometry, 2, 1, True, weight > none)
                elif high == 2 and wide == 2:
                    avg_gather(given, dx, at, run, windows, geometry, 2, 2, True, weight > none)
                elif high == 3 and wide == 3:
                    avg_gather(given, dx, at, run, windows, geometry, 3, 3, True, weight > none)
                elif wide == 3:
                    avg_gather(given, dx, at, run, windows, geometry, high, 3, True, weight > none)
                else:
                    avg_gather(given, dx, at, run, windows, geometry, high, wide, True, weight > none)
                w += 1
            if blocks > 1:
                w, ow_first, ow_end = w + (blocks - 1) * stride_w, ow_first + blocks - 1, ow_end + blocks - 1
        h += 1
        if h == height:
            image, h, oh_first, oh_end = image + 1, 0, 0, 0


def _by_rows_of_y(chunk_kernel):
    """A launcher that gives each chunk some rows of y."""
    launch = threaded(chunk_kernel)

    def run(*args):
        n, _, _, channels, size_h, size_w, *_, out_h, out_w = args[-1]
        _launch(launch, n * out_h, out_w * channels * size_h * size_w, args)

    return run


def _by_rows_of_dx(chunk_kernel):
    """A launcher that gives each chunk some rows of dx."""
    launch = threaded(chunk_kernel)

    def run(*args):
        n, height, width, channels, size_h, size_w, stride_h, stride_w, *_ = args[-1]
        windows = -(-size_h // stride_h) * -(-size_w // stride_w)  # that a cell lies in
        _launch(launch, n * height, width * channels * (1 + windows), args)

    return run


def _launch(launch, rows, row_cells, args):
    if rows * row_cells > 0:
        together = max(1, CHUNK // row_cells)
        launch(-(-rows // together), WORK * rows * row_cells, together, *args)


max_simd = Rung(_by_rows_of_y(max_forward_chunk), _by_rows_of_dx(max_backward_chunk))
avg_simd = Rung(_by_rows_of_y(avg_forward_chunk), _by_rows_of_dx(avg_backward_chunk))
