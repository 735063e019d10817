"""Labels: whether all are classes, and how many rows are right."""

import math
from functools import cache

import numpy as np
from numba import cuda, int32, int64

from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import load, store
from ...reductions import THREADS, WARP, WARPS, block_lowest, block_sum, device, group_lowest
from ...teams import team_of, teamwork
from .parts import total_of

# Labels of one warp.
LABELS = 1024
# Where no number stands: behind every one.
NOWHERE = np.int32(2**31 - 1)


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
    """(1,): the position of the first label that is no class; how many there are where all of them are classes."""
    firsts = namespace(labels).empty((-(-labels.size // LABELS),), labels.dtype)
    find_outside((-(-firsts.size // WARPS),), labels, labels.size, classes, firsts)
    if firsts.size > 1:
        lowest = namespace(labels).empty((1,), labels.dtype)
        find_lowest((1,), firsts, firsts.size, lowest)
        firsts = lowest
    return firsts


@cache
def row_argmax(T, team):
    """A device function: where in the row of a team the largest number stands first; NaN is the largest."""
    _, _, _, _, highest_of = teamwork(T, team)
    size = team.size

    @device
    def lowest_of_lanes(number, shared):
        return group_lowest(number, size)

    lowest_of = lowest_of_lanes if size <= WARP else block_lowest

    @device
    def argmax(x, start, length, member, shared, places):
        """Each thread looks at its part from the end, so that of equal numbers the first stays."""
        highest, place = T(-math.inf), NOWHERE
        j = (length - 1 - member) // size * size + member
        while j >= 0:
            number = load(x, start + j)
            if number >= highest or number != number:
                highest, place = number, int32(j)
            j -= size
        best = highest_of(highest, shared)
        if highest < best or (best != best and highest == highest):
            place = NOWHERE  # it is another thread's
        return lowest_of(place, places)

    return argmax


@cache
def count_rows(T, team, labelled):
    place, _, _, _, _ = teamwork(T, team)
    argmax = row_argmax(T, team)

    @kernel(threads=THREADS)
    def count_right_rows(
        p: pointer(T), t: pointer(int64 if labelled else T), rows: int64, length: int64, parts: pointer(int64)
    ):
        """A team: one row, which is right where its largest p stands at its label, or at its largest t. One block: how
        many of its rows are."""
        shared = cuda.shared.array(WARPS, T)
        places = cuda.shared.array(WARPS, int32)
        counts = cuda.shared.array(WARPS, int64)
        own_row, member = place()
        row, right = min(own_row, rows - 1), int64(0)
        expected = load(t, row) if labelled else int64(argmax(t, row * length, length, member, shared, places))
        if argmax(p, row * length, length, member, shared, places) == expected and member == 0 and row == own_row:
            right = int64(1)
        right = block_sum(right, counts)
        if cuda.threadIdx.x == 0:
            store(parts, cuda.blockIdx.x, right)

    return count_right_rows


def count_correct(p, t, labels=None):
    """The number of right rows, by t of p's shape or by labels."""
    T, length, labelled = element_of(p), p.shape[-1], labels is not None
    p, t = contiguous(p), contiguous(labels if labelled else t)
    rows, team = p.size // length, team_of(length, 1, p.itemsize)
    parts = namespace(p).empty((team.blocks(rows),), "int64")
    count_rows(T, team, labelled)((parts.size,), p, t, rows, length, parts)
    return total_of(int64, parts)
