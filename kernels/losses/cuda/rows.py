"""Losses on classes: a team takes a row, one lane, some, a warp or a block by its length, as in softmax.

Targets are rows of numbers or one label each; labels become rows of 0 and 1 in registers.

What backward needs is kept in `notes`, of 2 * rows + blocks numbers: one a row, another one a row, one a block. The
last are the blocks' parts of the loss.
"""

from functools import cache

from numba import cuda, int32, int64

from ...activation.cuda.softmax import row_sum, row_width
from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import exp, load, log, store
from ...reductions import THREADS, WARPS, block_sum, device
from ...teams import team_of, teamwork
from .parts import is_clipped, log_of_clipped, scale_of, total_of


def targets_of(T, team, labelled):
    """A device function: the member's targets of a row, from class `first` on."""
    size, width, count = team.size, team.width, team.count
    _, take, _, _, _ = teamwork(T, team)

    @device
    def from_label(labels, row, length, first, member, numbers):
        label = load(labels, row)
        label = label if 0 <= label < length else int64(-1)
        own = int32(label - first - member * width)
        for k in range(count):
            for v in range(width):
                numbers[k * width + v] = T(1) if own == k * size * width + v else T(0)

    @device
    def given(t, row, length, first, member, numbers):
        take(t, row * length + first, length - first, member, T(0), numbers)

    return from_label if labelled else given


@cache
def softmax_loss(labelled, T, team):
    """-sum of t log(softmax(x)) = log(sum of exp(x - highest)) sum of t - sum of t (x - highest).

    Noted: the highest logit of each row, and the factor that makes the row's exponentials probabilities (times sum of
    t, which is 1 for a distribution). With them, backward is one pass.
    """
    place, take, _, add_up, _ = teamwork(T, team)
    highest_and_sum, target = row_sum(T, team), targets_of(T, team, False)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def lose_softmax(
        x: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T
    ):
        """The row's logits are read for their maximum and the sum. Where the targets ask for them, those of labels are
        read again, one number, and others if the team could not hold them."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(held, T)
        targets = cuda.local.array(held, T)
        own_row, member = place()
        row = min(own_row, rows - 1)
        start, weight, dot, loss = row * length, T(0), T(0), T(0)
        highest, total = highest_and_sum(x, start, length, member, numbers, shared)
        if labelled:  # a label outside is a row of zeros
            label = load(t, row)
            if 0 <= label < length:
                weight, dot = T(1), load(x, start + label) - highest
        else:
            for first in range(0, chunk if whole else length, chunk):
                if not whole:
                    take(x, start + first, length - first, member, T(0), numbers)
                target(t, row, length, first, member, targets)
                for v in range(held):
                    weight += targets[v]
                    # 0 times -Inf: an impossible class that is not asked for costs nothing.
                    if targets[v] != T(0):
                        dot += targets[v] * (numbers[v] - highest)
            weight, dot = add_up(weight, shared), add_up(dot, shared)
        if member == 0 and row == own_row:
            store(notes, row, highest)
            store(notes, rows + row, weight / total)
            loss = (log(total) * weight - dot) * part
        loss = block_sum(loss, shared)
        if cuda.threadIdx.x == 0:
            store(notes, 2 * rows + cuda.blockIdx.x, loss)

    return lose_softmax


@cache
def softmax_loss_backward(labelled, T, team):
    place, take, give, _, _ = teamwork(T, team)
    target = targets_of(T, team, labelled)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def slope_softmax(
        dloss: pointer(T), has_dloss: int32, scale: T,
        x: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), dx: pointer(T),
        rows: int64, length: int64,
    ):  # fmt: skip
        """dx = (softmax(x) sum of t - t) / rows, times `scale` and, where there is one, dloss[0]."""
        numbers = cuda.local.array(held, T)
        targets = cuda.local.array(held, T)
        row, member = place()
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            highest, factor = load(notes, row), load(notes, rows + row)
            start = row * length
            for first in range(0, chunk if whole else length, chunk):
                take(x, start + first, length - first, member, T(0), numbers)
                target(t, row, length, first, member, targets)
                for v in range(held):
                    numbers[v] = (exp(numbers[v] - highest) * factor - targets[v]) * scale
                give(dx, start + first, length - first, member, numbers)

    return slope_softmax


@cache
def probability_loss(labelled, T, team):
    """-sum of t log(q), q = p / sum of p, kept between LOWEST and HIGHEST.

    Noted: the sum of p, and the sum of those t whose q was not moved.
    """
    place, take, _, add_up, _ = teamwork(T, team)
    target = targets_of(T, team, labelled)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def lose_probability(
        p: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T
    ):
        """Of the row first its sum is found, then the logarithms where the targets ask for them."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(held, T)
        targets = cuda.local.array(held, T)
        own_row, member = place()
        row = min(own_row, rows - 1)
        start, total, weight, dot, loss = row * length, T(0), T(0), T(0), T(0)
        for first in range(0, chunk if whole else length, chunk):
            take(p, start + first, length - first, member, T(0), numbers)
            some = T(0)
            for v in range(held):
                some += numbers[v]
            total += some
        total = add_up(total, shared)
        for first in range(0, chunk if whole else length, chunk):
            if not whole:
                take(p, start + first, length - first, member, T(0), numbers)
            target(t, row, length, first, member, targets)
            for v in range(held):
                q = numbers[v] / total
                # Where q is NaN, 0 times its logarithm is too.
                if targets[v] != T(0) or q != q:
                    dot += targets[v] * log_of_clipped(q)
                weight += T(0) if is_clipped(q) else targets[v]
        weight, dot = add_up(weight, shared), add_up(dot, shared)
        if member == 0 and row == own_row:
            store(notes, row, total)
            store(notes, rows + row, weight)
            loss = -dot * part
        loss = block_sum(loss, shared)
        if cuda.threadIdx.x == 0:
            store(notes, 2 * rows + cuda.blockIdx.x, loss)

    return lose_probability


@cache
def probability_loss_backward(labelled, T, team):
    place, take, give, _, _ = teamwork(T, team)
    target = targets_of(T, team, labelled)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def slope_probability(
        dloss: pointer(T), has_dloss: int32, scale: T,
        p: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), dp: pointer(T),
        rows: int64, length: int64,
    ):  # fmt: skip
        """dp = (sum of t not clipped / sum of p - t / p, zero where clipped) / rows, times `scale` and dloss[0]."""
        numbers = cuda.local.array(held, T)
        targets = cuda.local.array(held, T)
        row, member = place()
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            total = load(notes, row)
            common = load(notes, rows + row) / total
            start = row * length
            for first in range(0, chunk if whole else length, chunk):
                take(p, start + first, length - first, member, T(1), numbers)
                target(t, row, length, first, member, targets)
                for v in range(held):
                    own = T(0)
                    if targets[v] != T(0) and not is_clipped(numbers[v] / total):
                        own = targets[v] / numbers[v]
                    numbers[v] = (common - own) * scale
                give(dp, start + first, length - first, member, numbers)

    return slope_probability


def over_rows(forward, backward, labelled):
    """Launchers (y, t) -> mean, notes; and (dloss, y, t, notes, dy). dloss is a number or an array ()."""

    def aligned(length, y, t, *others):
        return row_width(length, y, *others) if labelled else row_width(length, y, t, *others)

    def launch_forward(y, t):
        T, length, y, t = element_of(y), y.shape[-1], contiguous(y), contiguous(t)
        rows, team = y.size // length, team_of(length, aligned(length, y, t), y.itemsize)
        blocks = team.blocks(rows)
        notes = namespace(y).empty((2 * rows + blocks,), y.dtype)
        forward(labelled, T, team)((blocks,), y, t, notes, rows, length, 1.0 / rows)
        return total_of(T, notes[2 * rows :]), notes

    def launch_backward(dloss, y, t, notes, dy):
        T, length, y, t, dy = element_of(y), y.shape[-1], contiguous(y), contiguous(t), contiguous(dy)
        rows, team = y.size // length, team_of(length, aligned(length, y, t, dy), y.itemsize)
        scale = scale_of(dloss, y, rows)
        backward(labelled, T, team)((team.blocks(rows),), *scale, y, t, notes, dy, rows, length)

    return launch_forward, launch_backward


softmax_cross_entropy, softmax_cross_entropy_backward = over_rows(softmax_loss, softmax_loss_backward, False)
sparse_softmax_cross_entropy, sparse_softmax_cross_entropy_backward = over_rows(
    softmax_loss, softmax_loss_backward, True
)
categorical_cross_entropy, categorical_cross_entropy_backward = over_rows(
    probability_loss, probability_loss_backward, False
)
sparse_categorical_cross_entropy, sparse_categorical_cross_entropy_backward = over_rows(
    probability_loss, probability_loss_backward, True
)
