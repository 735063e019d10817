"""Losses on classes: a warp takes a row, or several short ones, a lane `width` neighbouring numbers at a time, as in
softmax.

Targets are rows of numbers or one label each; labels become rows of 0 and 1 in registers.

What backward needs is kept in `notes`, of 2 * rows + blocks numbers: one a row, another one a row, one a block. The
last are the blocks' parts of the loss.
"""

from functools import cache

from numba import cuda, int32, int64, uint32

from ...activation.cuda.softmax import first_of, online_sum, rescaled, row_width, sum_of
from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import exp, load, log, store
from ...reductions import block_sum, device, group_highest, group_sum, row_and_lane, row_lanes
from ...wide import accesses
from .parts import THREADS, WARPS, is_clipped, log_of_clipped, scale_of, total_of


def targets_of(T, width, labelled):
    """A device function: the targets of `width` classes, from `col` on, of a row."""
    fetch, _ = accesses(T, width, width)

    @device
    def from_label(labels, row, length, col, numbers):
        label = load(labels, row)
        for v in range(width):
            numbers[v] = T(1) if label == col + v else T(0)

    @device
    def given(t, row, length, col, numbers):
        fetch(t, row * length + col, width, numbers)

    return from_label if labelled else given


@cache
def softmax_loss(labelled, T, width):
    """-sum of t log(softmax(x)) = log(sum of exp(x - highest)) sum of t - sum of t (x - highest).

    Noted: the highest logit of each row, and the factor that makes the row's exponentials probabilities (times sum of
    t, which is 1 for a distribution). With them, backward is one pass.
    """
    fetch, _ = accesses(T, width, width)
    highest_and_sum = online_sum(T, width)

    @kernel(threads=THREADS)
    def lose_softmax(
        x: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T,
        lanes: int32, lanes_bits: uint32,
    ):  # fmt: skip
        """The row's logits are read for their maximum and the sum, and again where the targets ask for them: of labels
        one number."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        own_row, lane = row_and_lane(THREADS, lanes, lanes_bits)
        row = min(own_row, rows - 1)
        start, col, step, loss = row * length, int64(lane * width), int64(lanes * width), T(0)
        own, total = highest_and_sum(x, start + col, start + length, step, numbers)
        highest = group_highest(own, lanes)
        # Inf - Inf: a row with Inf, or of nothing but -Inf, is NaN.
        total = group_sum(total * rescaled(own, highest), lanes) + (highest - highest)
        weight, dot = T(0), T(0)
        if labelled:  # a label outside is a row of zeros
            label = load(t, row)
            if 0 <= label < length:
                weight, dot = T(1), load(x, start + label) - highest
        else:
            while col < length:
                fetch(x, start + col, width, numbers)
                fetch(t, start + col, width, targets)
                for v in range(width):
                    weight += targets[v]
                    # 0 times -Inf: an impossible class that is not asked for costs nothing.
                    if targets[v] != T(0):
                        dot += targets[v] * (numbers[v] - highest)
                col += step
            weight, dot = group_sum(weight, lanes), group_sum(dot, lanes)
        if lane == 0 and row == own_row:
            store(notes, row, highest)
            store(notes, rows + row, weight / total)
            loss = (log(total) * weight - dot) * part
        loss = block_sum(loss, shared)
        if cuda.threadIdx.x == 0:
            store(notes, 2 * rows + cuda.blockIdx.x, loss)

    return lose_softmax


@cache
def softmax_loss_backward(labelled, T, width):
    fetch, put = accesses(T, width, width)
    target = targets_of(T, width, labelled)

    @kernel(threads=THREADS)
    def slope_softmax(
        dloss: pointer(T), has_dloss: int32, scale: T,
        x: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), dx: pointer(T),
        rows: int64, length: int64, lanes: int32, lanes_bits: uint32,
    ):  # fmt: skip
        """dx = (softmax(x) sum of t - t) / rows, times `scale` and, where there is one, dloss[0]."""
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row, lane = row_and_lane(THREADS, lanes, lanes_bits)
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            highest, factor = load(notes, row), load(notes, rows + row)
            col = int64(lane * width)
            while col < length:
                fetch(x, row * length + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    numbers[v] = (exp(numbers[v] - highest) * factor - targets[v]) * scale
                put(dx, row * length + col, width, numbers)
                col += lanes * width

    return slope_softmax


@cache
def probability_loss(labelled, T, width):
    """-sum of t log(q), q = p / sum of p, kept between LOWEST and HIGHEST.

    Noted: the sum of p, and the sum of those t whose q was not moved.
    """
    fetch, _ = accesses(T, width, width)
    target, add_up_row = targets_of(T, width, labelled), sum_of(first_of, T, width)

    @kernel(threads=THREADS)
    def lose_probability(
        p: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T,
        lanes: int32, lanes_bits: uint32,
    ):  # fmt: skip
        """The row is read twice: for its sum, and for the logarithms where the targets ask for them."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        own_row, lane = row_and_lane(THREADS, lanes, lanes_bits)
        row = min(own_row, rows - 1)
        start, col, step, loss = row * length, int64(lane * width), int64(lanes * width), T(0)
        total = group_sum(add_up_row(p, p, start + col, start + length, step, numbers, targets), lanes)
        weight, dot = T(0), T(0)
        while col < length:
            fetch(p, start + col, width, numbers)
            target(t, row, length, col, targets)
            for v in range(width):
                q = numbers[v] / total
                # Where q is NaN, 0 times its logarithm is too.
                if targets[v] != T(0) or q != q:
                    dot += targets[v] * log_of_clipped(q)
                weight += T(0) if is_clipped(q) else targets[v]
            col += step
        weight, dot = group_sum(weight, lanes), group_sum(dot, lanes)
        if lane == 0 and row == own_row:
            store(notes, row, total)
            store(notes, rows + row, weight)
            loss = -dot * part
        loss = block_sum(loss, shared)
        if cuda.threadIdx.x == 0:
            store(notes, 2 * rows + cuda.blockIdx.x, loss)

    return lose_probability


@cache
def probability_loss_backward(labelled, T, width):
    fetch, put = accesses(T, width, width)
    target = targets_of(T, width, labelled)

    @kernel(threads=THREADS)
    def slope_probability(
        dloss: pointer(T), has_dloss: int32, scale: T,
        p: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), dp: pointer(T),
        rows: int64, length: int64, lanes: int32, lanes_bits: uint32,
    ):  # fmt: skip
        """dp = (sum of t not clipped / sum of p - t / p, zero where clipped) / rows, times `scale` and dloss[0]."""
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row, lane = row_and_lane(THREADS, lanes, lanes_bits)
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            total = load(notes, row)
            common = load(notes, rows + row) / total
            col = int64(lane * width)
            while col < length:
                fetch(p, row * length + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    own = T(0)
                    if not is_clipped(numbers[v] / total):
                        own = targets[v] / numbers[v]
                    numbers[v] = (common - own) * scale
                put(dp, row * length + col, width, numbers)
                col += lanes * width

    return slope_probability


def over_rows(forward, backward, labelled):
    """Launchers (y, t) -> mean, notes; and (dloss, y, t, notes, dy). dloss is a number or an array ()."""

    def aligned(length, y, t, *others):
        return row_width(length, y, *others) if labelled else row_width(length, y, t, *others)

    def launch_forward(y, t):
        T, length, y, t = element_of(y), y.shape[-1], contiguous(y), contiguous(t)
        rows, width = y.size // length, aligned(length, y, t)
        lanes, bits = row_lanes(length, width)
        blocks = -(-rows * lanes // THREADS)
        notes = namespace(y).empty((2 * rows + blocks,), y.dtype)
        forward(labelled, T, width)((blocks,), y, t, notes, rows, length, 1.0 / rows, lanes, bits)
        return total_of(T, notes[2 * rows :]), notes

    def launch_backward(dloss, y, t, notes, dy):
        T, length, y, t, dy = element_of(y), y.shape[-1], contiguous(y), contiguous(t), contiguous(dy)
        rows, width = y.size // length, aligned(length, y, t, dy)
        lanes, bits = row_lanes(length, width)
        blocks, scale = -(-rows * lanes // THREADS), scale_of(dloss, y, rows)
        backward(labelled, T, width)((blocks,), *scale, y, t, notes, dy, rows, length, lanes, bits)

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
