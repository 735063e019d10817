"""Labels: whether all are classes, and how many rows are right. The host waits for both results."""

from functools import cache

from numba import cuda, int32, int64, uint32

from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ...reductions import WARP, block_sum, device, group_highest, group_lowest, row_and_lane, row_lanes
from .parts import THREADS, WARPS, total_of

# Labels of one warp.
LABELS = 1024


@kernel(threads=THREADS)
def find_outside(labels: pointer(int64), size: int64, classes: int64, firsts: pointer(int64)):
    """One warp: where the first of LABELS labels stands that is no class, or `size`; one lane: every 32nd of them."""
    warp = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP
    if warp * LABELS < size:
        first = size
        for i in range(warp * LABELS + cuda.threadIdx.x % WARP, min(size, (warp + 1) * LABELS), WARP):
            label = load(labels, i)
            if label < 0 or label >= classes:
                first = min(first, i)
        first = group_lowest(first, WARP)
        if cuda.threadIdx.x % WARP == 0:
            store(firsts, warp, first)


@kernel(threads=WARP)
def find_lowest(numbers: pointer(int64), count: int64, result: pointer(int64)):
    """One warp: the smallest of the numbers."""
    lowest = load(numbers, 0)
    for i in range(int64(cuda.threadIdx.x), count, WARP):
        lowest = min(lowest, load(numbers, i))
    lowest = group_lowest(lowest, WARP)
    if cuda.threadIdx.x == 0:
        store(result, 0, lowest)


def first_outside(labels, classes):
    """Position of the first label that is no class; -1 where all are. Waits for the GPU."""
    firsts = namespace(labels).empty((-(-labels.size // LABELS),), labels.dtype)
    find_outside((-(-firsts.size // WARPS),), labels, labels.size, classes, firsts)
    if firsts.size > 1:
        lowest = namespace(labels).empty((1,), labels.dtype)
        find_lowest((1,), firsts, firsts.size, lowest)
        firsts = lowest
    first = int(firsts[0])
    return first if first < labels.size else -1


@device
def row_argmax(x, start, length, lane, lanes):
    """Where in the row of a group of lanes the largest number stands first; NaN is the largest.

    Each lane looks at its part from the end, so that of equal numbers the first stays."""
    j = length - 1 - lane
    highest, first = load(x, start + j), j
    while j >= lanes:
        j -= lanes
        number = load(x, start + j)
        if number >= highest or number != number:
            highest, first = number, j
    best = group_highest(highest, lanes)
    if highest < best or (best != best and highest == highest):
        first = length  # it is another lane's
    return group_lowest(first, lanes)


@cache
def count_rows(T, labelled):
    @kernel(threads=THREADS)
    def count_right_rows(
        p: pointer(T), t: pointer(int64 if labelled else T), rows: int64, length: int64, parts: pointer(int64),
        lanes: int32, lanes_bits: uint32,
    ):  # fmt: skip
        """A group of lanes: one row, which is right where its largest p stands at its label, or at its largest t. One
        block: how many of its rows are."""
        shared = cuda.shared.array(WARPS, int64)
        own_row, lane = row_and_lane(THREADS, lanes, lanes_bits)
        row, right = min(own_row, rows - 1), int64(0)
        expected = load(t, row) if labelled else row_argmax(t, row * length, length, lane, lanes)
        if row_argmax(p, row * length, length, lane, lanes) == expected and lane == 0 and row == own_row:
            right = int64(1)
        right = block_sum(right, shared)
        if cuda.threadIdx.x == 0:
            store(parts, cuda.blockIdx.x, right)

    return count_right_rows


def count_correct(p, t, labels=None):
    """The number of right rows, by t of p's shape or by labels."""
    T, length, labelled = element_of(p), p.shape[-1], labels is not None
    p, t = contiguous(p), contiguous(labels if labelled else t)
    rows, (lanes, bits) = p.size // length, row_lanes(length, 1)
    parts = namespace(p).empty((-(-rows * lanes // THREADS),), "int64")
    count_rows(T, labelled)((parts.size,), p, t, rows, length, parts, lanes, bits)
    return total_of(int64, parts)
