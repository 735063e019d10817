"""Backward: row by row of dx, run by run.

Where the windows over them lie in the image as a whole, runs are repeated to the end of the row: all cells of one
column of the window first, then those of the next.
"""

from ...jit import jit
from ...simd import lanes
from ...threads import threaded
from . import narrow, scatter
from .forward import has_room, run_of
from .gather import collect_avg, collect_max, may_stream, next_windows
from .rung import in_chunks


@jit(inline=True)
def cells_alike(w, first, stride, left, size, width, channels, like):
    """How often the next `stride` cells of a row repeat, each time one window further; 0 near the borders.

    first : the first window over cell w. Each cell is a run: where vectors run over the end of a pixel, the next one
    has to be written next.
    """
    if first * stride < left or w + left - size < -stride or (stride > 1 and channels % lanes(like) != 0):
        return 0
    complete = (width - size + left) // stride + 1
    if stride == 1:
        return max(0, min(complete - left - w, width - w))
    return max(0, min(complete - -(-(left + w) // stride), (width - w) // stride))


def _over_rows_of_dx(kind, collect):
    """A function (chunk, rows, given, dx, geometry) that fills a chunk's rows of dx."""

    @jit(inline=True, name=f"{kind}_over_rows_of_dx")
    def walk(chunk, rows, given, dx, geometry):
        n, height, width, channels, size_h, size_w, stride_h, stride_w, top, left, out_h, out_w = geometry
        end, line, stream = min((chunk + 1) * rows, n * height), out_w * channels, may_stream(dx, channels)
        none, alike = dx.dtype.type(0), dx.dtype.type(1) / dx.dtype.type(size_h * size_w)
        image, h = chunk * rows // height, chunk * rows % height
        oh = oh_end = 0
        for row in range(chunk * rows, end):
            oh, oh_end = next_windows(h, oh, oh_end, stride_h, top, size_h, out_h)
            first, high = image * out_h + oh, oh_end - oh
            whole = has_room(dx, (row + 1) * width * channels, end * width * channels, channels)
            whole &= has_room(dx, (first + high) * line, given[0].size, channels)
            tall = oh * stride_h >= top and (oh_end - 1) * stride_h - top + size_h <= height
            w = ow = ow_end = 0
            while w < width:
                ow, ow_end = next_windows(w, ow, ow_end, stride_w, left, size_w, out_w)
                blocks = cells_alike(w, ow, stride_w, left, size_w, width, channels, dx)
                run = run_of(max(blocks, 1), stride_w, channels)
                for _ in range(stride_w if blocks > 0 else 1):
                    ow, ow_end = next_windows(w, ow, ow_end, stride_w, left, size_w, out_w)
                    inside = ow * stride_w >= left and (ow_end - 1) * stride_w - left + size_w <= width
                    source, target = first * line + ow * channels, (row * width + w) * channels
                    at = source, line, channels, target, stride_w * channels, stream
                    place = h, w, oh, ow, alike if tall and inside else none
                    collect(given, dx, at, run, place, geometry, high, ow_end - ow, whole)
                    w += 1
                if blocks > 1:
                    w, ow, ow_end = w + (blocks - 1) * stride_w, ow + blocks - 1, ow_end + blocks - 1
            h += 1
            if h == height:
                image, h, oh, oh_end = image + 1, 0, 0, 0

    return walk


max_over_rows, avg_over_rows = _over_rows_of_dx("max", collect_max), _over_rows_of_dx("avg", collect_avg)


@jit
def max_backward_chunk(chunk, rows, dy, offsets, dx, geometry):
    max_over_rows(chunk, rows, (dy, offsets), dx, geometry)


@jit
def avg_backward_chunk(chunk, rows, dy, dx, geometry):
    avg_over_rows(chunk, rows, (dy,), dx, geometry)


def _by_rows_of_dx(chunk_kernel, narrow_kernel):
    """A launcher that gives each chunk some rows of dx."""
    launch, launch_narrow = threaded(chunk_kernel), threaded(narrow_kernel)

    def run(*args):
        *_, dx, geometry = args
        n, height, width, channels, size_h, size_w, stride_h, stride_w, *_ = geometry
        windows = -(-size_h // stride_h) * -(-size_w // stride_w)  # that a cell lies in
        chosen = launch_narrow if narrow.suits(geometry, dx.itemsize) else launch
        in_chunks(chosen, n * height, width * channels * (1 + windows), args)

    return run


max_gathered = _by_rows_of_dx(max_backward_chunk, narrow.max_backward_narrow)
avg_backward = _by_rows_of_dx(avg_backward_chunk, narrow.avg_backward_narrow)


def max_backward(*args):
    *_, dx, geometry = args
    (scatter.max_scatter if scatter.pays(geometry, dx.itemsize) else max_gathered)(*args)
