"""Forward: a vector of windows at a time, row by row of y.

A run is a stretch of y whose lanes find their cells at one distance each: the channels of a pixel, and where the stride
is 1 the pixels of a row away from its borders too, so that vectors are full however few the channels.

    stride 1, window 3, padding 1:     | w = 0 | w = 1 ... width - 2 | w = width - 1 |      three runs

Runs are written in rising order, in whole vectors: what the last one writes beyond its run is written again by the
next. Only where a vector would leave the chunk, or memory, lanes are counted.

The usual windows, up to three cells wide, take the same lines with a constant width, which unrolls.
"""

from ...jit import jit
from ...simd import (
    lane_numbers,
    lanes,
    rolled,
    select,
    vfill,
    vload_part,
    vstore_as_part,
    vstore_part,
)
from ...threads import threaded
from .rung import cells_of, in_chunks


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
def largest(x, out, at, run, corner, size_w, rows, columns, whole):
    """The largest of rows x columns cells and its number in a window size_w wide, `corner` being that of the first."""
    y, offsets = out
    start, step, line, pixel, target = at
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


@jit(inline=True)
def mean(x, out, at, run, corner, size_w, rows, columns, whole):
    """Each row of the window is summed for itself, so that rounding grows with its edges and not with its area."""
    (y,) = out
    start, step, line, pixel, target = at
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


def _over_rows_of_y(kind, reduce):
    """A function (chunk, rows, x, out, geometry) that fills a chunk's rows of `out`, run by run; `reduce` does one."""

    @jit(inline=True, name=f"{kind}_over_rows_of_y")
    def walk(chunk, rows, x, out, geometry):
        n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
        line, end = width * channels, min((chunk + 1) * rows, n * out_h)
        for row in range(chunk * rows, end):
            h0, h_first, h_end = cells_of(row % out_h, stride_h, top, size_h, height)
            high, ow = h_end - h_first, 0
            first = (row // out_h * height + h_first) * line
            whole = has_room(x, (row + 1) * out_w * channels, end * out_w * channels, channels)
            whole &= has_room(x, first + high * line, x.size, channels)
            while ow < out_w:
                w0, w_first, w_end = cells_of(ow, stride_w, left, size_w, width)
                alike, wide = outputs_alike(ow, stride_w, left, size_w, width), w_end - w_first
                run, corner = run_of(alike, stride_w, channels), (h_first - h0) * size_w + w_first - w0
                start, target = first + w_first * channels, (row * out_w + ow) * channels
                at = start, stride_w * channels, line, channels, target
                if not whole:
                    reduce(x, out, at, run, corner, size_w, high, wide, False)
                elif high == 2 and wide == 2:
                    reduce(x, out, at, run, corner, size_w, 2, 2, True)
                elif high == 3 and wide == 3:
                    reduce(x, out, at, run, corner, size_w, 3, 3, True)
                else:
                    reduce(x, out, at, run, corner, size_w, high, wide, True)
                ow += alike

    return walk


max_over_rows, avg_over_rows = _over_rows_of_y("max", largest), _over_rows_of_y("avg", mean)


@jit
def max_forward_chunk(chunk, rows, x, y, offsets, geometry):
    max_over_rows(chunk, rows, x, (y, offsets), geometry)


@jit
def avg_forward_chunk(chunk, rows, x, y, geometry):
    avg_over_rows(chunk, rows, x, (y,), geometry)


def _by_rows_of_y(chunk_kernel):
    """A launcher that gives each chunk some rows of y."""
    launch = threaded(chunk_kernel)

    def run(*args):
        n, _, _, channels, size_h, size_w, *_, out_h, out_w = args[-1]
        in_chunks(launch, n * out_h, out_w * channels * size_h * size_w, args)

    return run


max_forward, avg_forward = _by_rows_of_y(max_forward_chunk), _by_rows_of_y(avg_forward_chunk)
