"""Labels: whether all are classes, and how many rows are right. The host waits for both results."""

from functools import cache

from numba import cuda, int64

from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ...reductions import WARP, block_sum, device, higher, warp_highest, warp_lowest
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
        first = warp_lowest(first)
        if cuda.threadIdx.x % WARP == 0:
            store(firsts, warp, first)


@kernel(threads=WARP)
def find_lowest(numbers: pointer(int64), count: int64, result: pointer(int64)):
    """One warp: the smallest of the numbers."""
    lowest = load(numbers, 0)
    for i in range(int64(cuda.threadIdx.x), count, WARP):
        lowest = min(lowest, load(numbers, i))
    lowest = warp_lowest(lowest)
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
def row_argmax(x, start, length):
    """Where in a warp's row the largest number stands first; NaN is the largest."""
    lane, highest, first = cuda.threadIdx.x % WARP, load(x, start), length
    for j in range(lane, length, WARP):
        highest = higher(highest, load(x, start + j))
    highest = warp_highest(highest)
    for j in range(lane, length, WARP):
        number = load(x, start + j)
        if number == highest or number != number:
            first = min(first, j)
    return warp_lowest(first)


@cache
def count_rows(T, labelled):
    @kernel(threads=THREADS)
    def count_right_rows(
        p: pointer(T), t: pointer(int64 if labelled else T), rows: int64, length: int64, parts: pointer(int64)
    ):
        """One warp: one row, which is right where its largest p stands at its label, or at its largest t. One block:
        how many of its rows are."""
        shared = cuda.shared.array(WARPS, int64)
        row, right = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP, int64(0)
        if row < rows:
            expected = load(t, row) if labelled else row_argmax(t, row * length, length)
            if row_argmax(p, row * length, length) == expected and cuda.threadIdx.x % WARP == 0:
                right = int64(1)
        right = block_sum(right, shared)
        if cuda.threadIdx.x == 0:
            store(parts, cuda.blockIdx.x, right)

    return count_right_rows


def count_correct(p, t, labels=None):
    """The number of right rows, by t of p's shape or by labels."""
    T, length, labelled = element_of(p), p.shape[-1], labels is not None
    p, t = contiguous(p), contiguous(labels if labelled else t)
    rows = p.size // length
    parts = namespace(p).empty((-(-rows // WARPS),), "int64")
    count_rows(T, labelled)((parts.size,), p, t, rows, length, parts)
    return total_of(int64, parts)
