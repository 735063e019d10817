"""Losses on classes: a warp takes a row, a lane `width` neighbouring numbers of every 32 * `width`, as in softmax.

Targets are rows of numbers or one label each; labels become rows of 0 and 1 in registers.

What backward needs is kept in `notes`, of 2 * rows + blocks numbers: one a row, another one a row, one a block. The
last are the blocks' parts of the loss.
"""

from functools import cache

from numba import cuda, int32, int64

from ...activation.cuda.softmax import first_of, online_sum, rescaled, row_width, sum_of
from ...arrays import contiguous, namespace
from ...launch import element_of, kernel, pointer
from ...ptx import exp, load, log, store
from ...reductions import WARP, block_sum, device, warp_highest, warp_sum
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
    target, highest_and_sum = targets_of(T, width, labelled), online_sum(T, width)

    @kernel(threads=THREADS)
    def lose_softmax(
        x: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T
    ):
        """The row's logits are read twice: for their maximum and the sum, and where the targets ask for them."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row, lane, loss = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP, cuda.threadIdx.x % WARP, T(0)
        if row < rows:
            start, step = row * length, WARP * width
            own, total = highest_and_sum(x, start + lane * width, start + length, step, numbers)
            highest = warp_highest(own)
            # Inf - Inf: a row with Inf, or of nothing but -Inf, is NaN.
            total = warp_sum(total * rescaled(own, highest)) + (highest - highest)
            weight, dot = T(0), T(0)
            for col in range(lane * width, length, step):
                fetch(x, start + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    weight += targets[v]
                    # 0 times -Inf: an impossible class that is not asked for costs nothing.
                    if targets[v] != T(0):
                        dot += targets[v] * (numbers[v] - highest)
            weight, dot = warp_sum(weight), warp_sum(dot)
            if lane == 0:
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
        rows: int64, length: int64,
    ):  # fmt: skip
        """dx = (softmax(x) sum of t - t) / rows, times `scale` and, where there is one, dloss[0]."""
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            highest, factor = load(notes, row), load(notes, rows + row)
            for col in range(cuda.threadIdx.x % WARP * width, length, WARP * width):
                fetch(x, row * length + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    numbers[v] = (exp(numbers[v] - highest) * factor - targets[v]) * scale
                put(dx, row * length + col, width, numbers)

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
        p: pointer(T), t: pointer(int64 if labelled else T), notes: pointer(T), rows: int64, length: int64, part: T
    ):
        """The row is read twice: for its sum, and for the logarithms where the targets ask for them."""
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row, lane, loss = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP, cuda.threadIdx.x % WARP, T(0)
        if row < rows:
            start, step = row * length, WARP * width
            total = warp_sum(add_up_row(p, p, start + lane * width, start + length, step, numbers, targets))
            weight, dot = T(0), T(0)
            for col in range(lane * width, length, step):
                fetch(p, start + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    q = numbers[v] / total
                    # Where q is NaN, 0 times its logarithm is too.
                    if targets[v] != T(0) or q != q:
                        dot += targets[v] * log_of_clipped(q)
                    weight += T(0) if is_clipped(q) else targets[v]
            weight, dot = warp_sum(weight), warp_sum(dot)
            if lane == 0:
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
        rows: int64, length: int64,
    ):  # fmt: skip
        """dp = (sum of t not clipped / sum of p - t / p, zero where clipped) / rows, times `scale` and dloss[0]."""
        numbers = cuda.local.array(width, T)
        targets = cuda.local.array(width, T)
        row = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP
        if row < rows:
            if has_dloss:
                scale *= load(dloss, 0)
            total = load(notes, row)
            common = load(notes, rows + row) / total
            for col in range(cuda.threadIdx.x % WARP * width, length, WARP * width):
                fetch(p, row * length + col, width, numbers)
                target(t, row, length, col, targets)
                for v in range(width):
                    own = T(0)
                    if not is_clipped(numbers[v] / total):
                        own = targets[v] / numbers[v]
                    numbers[v] = (common - own) * scale
                put(dp, row * length + col, width, numbers)

    return slope_probability


def over_rows(forward, backward, labelled):
    """Launchers (y, t) -> mean, notes; and (dloss, y, t, notes, dy). dloss is a number or an array ()."""

    def aligned(length, y, t, *others):
        return row_width(length, y, *others) if labelled else row_width(length, y, t, *others)

    def launch_forward(y, t):
        T, length, y, t = element_of(y), y.shape[-1], contiguous(y), contiguous(t)
        rows = y.size // length
        blocks = -(-rows // WARPS)
        notes = namespace(y).empty((2 * rows + blocks,), y.dtype)
        make = forward(labelled, T, aligned(length, y, t))
        make((blocks,), y, t, notes, rows, length, 1.0 / rows)
        return total_of(T, notes[2 * rows :]), notes

    def launch_backward(dloss, y, t, notes, dy):
        T, length, y, t, dy = element_of(y), y.shape[-1], contiguous(y), contiguous(t), contiguous(dy)
        rows = y.size // length
        make = backward(labelled, T, aligned(length, y, t, dy))
        make((-(-rows // WARPS),), *scale_of(dloss, y, rows), y, t, notes, dy, rows, length)

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
