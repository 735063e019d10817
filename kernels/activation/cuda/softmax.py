"""Softmax and log_softmax of the rows of x, and the reductions of a row that the losses share with them.

    three-pass     a thread a row: its maximum; the sum of exponentials; the result
    online         a thread a row: maximum and sum in one pass, the sum rescaled where the maximum rises; the result
    warp-per-row   a warp a row: each lane does the same for every 32nd part of it, and shuffles join what they found
    registers      a lane, some, a warp or a block a row, by its length: they hold it in registers, read x once and
                   compute each exponential once

Rows may be of any length; element j of a row is x[row * length + j]. A thread's sums add up BLOCK terms before they are
added to the total, or as many as it holds, so that rounding errors grow with the root of a long row and not with its
length; the row's length alone fixes their order.

The online maximum: M. Milakov and N. Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867.
"""

import math
from functools import cache

from numba import cuda, int64

from ...arrays import contiguous
from ...launch import element_of, kernel, pointer
from ...ptx import exp, larger, load, log, store
from ...reductions import THREADS, WARP, WARPS, device, group_highest, group_sum, higher
from ...teams import team_of, teamwork
from ...wide import accesses, width_of

BLOCK = 32

# ---------------------------------------------------------------------------------------------------------------------
# What a thread finds out about its part of a row: x[first], x[first + step] ... before `end`, `width` numbers from each


@device
def rescaled(before, now):
    """exp(before - now), by which a sum of exp(x - before) becomes one of exp(x - now); 1 where both are infinite."""
    factor = exp(before - now)
    return type(before)(1) if before == now else factor


@cache
def online_sum(T, width):
    fetch, _ = accesses(T, width, width)

    @device
    def highest_and_sum(x, first, end, step, numbers):
        """The largest x, -Inf where there are none; and the sum of exp(x - it)."""
        highest, total, j = T(-math.inf), T(0), first
        while j < end:
            before, part, stop = highest, T(0), min(end, j + BLOCK * step)
            while j < stop:
                fetch(x, j, width, numbers)
                top = highest
                for v in range(width):
                    top = numbers[v] if numbers[v] > top else top
                part *= rescaled(highest, top)
                highest = top
                for v in range(width):
                    part += rescaled(numbers[v], highest)
                j += step
            total = total * rescaled(before, highest) + part
        return highest, total

    return highest_and_sum


@cache
def sum_of(term, T, width):
    fetch, _ = accesses(T, width, width)

    @device
    def add_up(a, b, first, end, step, left, right):
        """The sum of term(a, b)."""
        total, j = T(0), first
        while j < end:
            part, stop = T(0), min(end, j + BLOCK * step)
            while j < stop:
                fetch(a, j, width, left)
                fetch(b, j, width, right)
                for v in range(width):
                    part += term(left[v], right[v])
                j += step
            total += part
        return total

    return add_up


# ---------------------------------------------------------------------------------------------------------------------
# What the two functions make of it: (normal, result), a row's normal and what becomes of each x with it; and for the
# gradient (term, slope), what is added up and what becomes of each dy and y with the sum.


@device
def _reciprocal(total):
    return type(total)(1) / total


@device
def _softmax(x, highest, reciprocal):
    return exp(x - highest) * reciprocal


@device
def _log_softmax(x, highest, log_sum):
    """In this order: a large `highest` hides the logarithm."""
    return (x - highest) - log_sum


@device
def _logarithm(total):
    return log(total)


@device
def _product(dy, y):
    return dy * y


@device
def _softmax_slope(dy, y, mean):
    return y * (dy - mean)


@device
def first_of(dy, y):
    return dy


@device
def _log_softmax_slope(dy, y, total):
    return dy - exp(y) * total


RESULTS = {"softmax": (_reciprocal, _softmax), "log_softmax": (_logarithm, _log_softmax)}
SLOPES = {"softmax": (_product, _softmax_slope), "log_softmax": (first_of, _log_softmax_slope)}

# ---------------------------------------------------------------------------------------------------------------------
# A thread a row


@cache
def three_pass(op, T):
    normal, result = RESULTS[op]

    @kernel(threads=THREADS)
    def normalize_three_pass(x: pointer(T), y: pointer(T), rows: int64, length: int64):
        """One thread: one row, read three times. Neighbouring threads read numbers that lie a row apart, so that each
        access of a warp touches up to 32 cache lines."""
        row = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if row < rows:
            start, end = row * length, (row + 1) * length
            highest, total = T(-math.inf), T(0)
            for j in range(start, end):
                highest = higher(highest, load(x, j))
            for block in range(start, end, BLOCK):
                part = T(0)
                for j in range(block, min(end, block + BLOCK)):
                    part += exp(load(x, j) - highest)
                total += part
            normalizer = normal(total)
            for j in range(start, end):
                store(y, j, result(load(x, j), highest, normalizer))

    return normalize_three_pass


@cache
def online(op, T):
    normal, result = RESULTS[op]
    highest_and_sum = online_sum(T, 1)

    @kernel(threads=THREADS)
    def normalize_online(x: pointer(T), y: pointer(T), rows: int64, length: int64):
        """One thread: one row.

        Why it is faster: the row is read twice instead of three times. Where x is a new maximum, the sum so far is
        rescaled to it; that costs another exponential, while the threads wait for memory.
        """
        numbers = cuda.local.array(1, T)
        row = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if row < rows:
            start, end = row * length, (row + 1) * length
            highest, total = highest_and_sum(x, start, end, 1, numbers)
            # Inf - Inf: a row with Inf, or of nothing but -Inf, is NaN.
            normalizer = normal(total + (highest - highest))
            for j in range(start, end):
                store(y, j, result(load(x, j), highest, normalizer))

    return normalize_online


@cache
def thread_per_row_backward(op, T):
    term, slope = SLOPES[op]
    add_up = sum_of(term, T, 1)

    @kernel(threads=THREADS)
    def slope_thread_per_row(dy: pointer(T), y: pointer(T), dx: pointer(T), rows: int64, length: int64):
        """One thread: one row of dx. It reads dy and y twice, as far apart as forward."""
        left = cuda.local.array(1, T)
        right = cuda.local.array(1, T)
        row = int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
        if row < rows:
            start, end = row * length, (row + 1) * length
            total = add_up(dy, y, start, end, 1, left, right)
            for j in range(start, end):
                store(dx, j, slope(load(dy, j), load(y, j), total))

    return slope_thread_per_row


# ---------------------------------------------------------------------------------------------------------------------
# A warp a row


@cache
def warp_per_row(op, T, width):
    normal, result = RESULTS[op]
    fetch, put = accesses(T, width, width)
    highest_and_sum = online_sum(T, width)

    @kernel(threads=THREADS)
    def normalize_warp_per_row(x: pointer(T), y: pointer(T), rows: int64, length: int64):
        """One warp: one row; one lane: `width` neighbouring numbers of every 32 * `width`.

        Why it is faster: the lanes read whole cache lines, 16 bytes each where rows are whole 16 bytes, and few long
        rows keep 32 times as many threads busy. Ten shuffles join the lanes' maxima and their sums.
        """
        numbers = cuda.local.array(width, T)
        row = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP
        if row < rows:
            first, end, step = row * length + cuda.threadIdx.x % WARP * width, (row + 1) * length, WARP * width
            own, total = highest_and_sum(x, first, end, step, numbers)
            highest = group_highest(own, WARP)
            total = group_sum(total * rescaled(own, highest), WARP)
            normalizer = normal(total + (highest - highest))  # Inf - Inf, as above
            j = first
            while j < end:
                fetch(x, j, width, numbers)
                for v in range(width):
                    numbers[v] = result(numbers[v], highest, normalizer)
                put(y, j, width, numbers)
                j += step

    return normalize_warp_per_row


@cache
def warp_per_row_backward(op, T, width):
    term, slope = SLOPES[op]
    fetch, put = accesses(T, width, width)
    add_up = sum_of(term, T, width)

    @kernel(threads=THREADS)
    def slope_warp_per_row(dy: pointer(T), y: pointer(T), dx: pointer(T), rows: int64, length: int64):
        """One warp: one row of dx, shared among its lanes as forward; faster for the same reason."""
        left = cuda.local.array(width, T)
        right = cuda.local.array(width, T)
        row = int64(cuda.blockIdx.x) * WARPS + cuda.threadIdx.x // WARP
        if row < rows:
            first, end, step = row * length + cuda.threadIdx.x % WARP * width, (row + 1) * length, WARP * width
            total = group_sum(add_up(dy, y, first, end, step, left, right), WARP)
            j = first
            while j < end:
                fetch(dy, j, width, left)
                fetch(y, j, width, right)
                for v in range(width):
                    left[v] = slope(left[v], right[v], total)
                put(dx, j, width, left)
                j += step

    return slope_warp_per_row


# ---------------------------------------------------------------------------------------------------------------------
# A team a row, whose threads hold it


@cache
def row_sum(T, team):
    """A device function, also for the losses: (the largest x of a row, the sum of exp(x - it)), in all of the team's
    threads; `numbers` holds the row after, if the team can hold it. A row with Inf or NaN, or of nothing but -Inf, has
    a sum that is NaN."""
    _, take, _, add_up, highest_of = teamwork(T, team)
    held, chunk = team.held, team.chunk

    @device
    def largest(numbers):
        top = T(-math.inf)
        for v in range(held):
            top = larger(top, numbers[v])
        return top

    @device
    def of_whole_row(x, start, length, member, numbers, shared):
        take(x, start, length, member, T(-math.inf), numbers)
        highest, total = highest_of(largest(numbers), shared), T(0)
        for v in range(held):
            total += exp(numbers[v] - highest)
        return highest, add_up(total, shared)

    @device
    def of_chunks(x, start, length, member, numbers, shared):
        own, total = T(-math.inf), T(0)
        for first in range(0, length, chunk):
            take(x, start + first, length - first, member, T(-math.inf), numbers)
            before, part = own, T(0)
            own = larger(own, largest(numbers))
            base = T(0) if own == T(-math.inf) else own
            for v in range(held):
                part += exp(numbers[v] - base)
            total = total * rescaled(before, own) + part
        highest = highest_of(own, shared)
        return highest, add_up(total * rescaled(own, highest), shared) + (highest - highest)

    return of_whole_row if team.whole else of_chunks


@cache
def registers(op, T, team):
    normal, result = RESULTS[op]
    place, take, give, _, _ = teamwork(T, team)
    highest_and_sum = row_sum(T, team)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def normalize_registers(x: pointer(T), y: pointer(T), rows: int64, length: int64):
        """One team: one row; one thread: `width` neighbouring numbers of every `size` * `width`.

        Why it is faster: x is read once, the maximum is known before the first exponential, and there is one for each
        number (the compiler sees that `result` asks for the same again). A short row has few threads or one, which
        keeps them all busy; one of thousands has a block, so that a few such rows suffice to keep memory busy.
        """
        shared = cuda.shared.array(WARPS, T)
        numbers = cuda.local.array(held, T)
        own_row, member = place()
        row = min(own_row, rows - 1)  # shuffles want all lanes: those without a row do the last one, and write nothing
        start = row * length
        highest, total = highest_and_sum(x, start, length, member, numbers, shared)
        normalizer = normal(total)
        if row == own_row:
            for first in range(0, chunk if whole else length, chunk):
                if not whole:
                    take(x, start + first, length - first, member, T(0), numbers)
                for v in range(held):
                    numbers[v] = result(numbers[v], highest, normalizer)
                give(y, start + first, length - first, member, numbers)

    return normalize_registers


@cache
def registers_backward(op, T, team):
    term, slope = SLOPES[op]
    place, take, give, add_up, _ = teamwork(T, team)
    whole, held, chunk = team.whole, team.held, team.chunk

    @kernel(threads=THREADS)
    def slope_registers(dy: pointer(T), y: pointer(T), dx: pointer(T), rows: int64, length: int64):
        """One team: one row of dx, held as forward: dy and y are read once."""
        shared = cuda.shared.array(WARPS, T)
        left = cuda.local.array(held, T)
        right = cuda.local.array(held, T)
        own_row, member = place()
        row = min(own_row, rows - 1)
        start, total = row * length, T(0)
        for first in range(0, chunk if whole else length, chunk):
            take(dy, start + first, length - first, member, T(0), left)
            take(y, start + first, length - first, member, T(0), right)
            part = T(0)
            for v in range(held):
                part += term(left[v], right[v])
            total += part
        total = add_up(total, shared)
        if row == own_row:
            for first in range(0, chunk if whole else length, chunk):
                if not whole:
                    take(dy, start + first, length - first, member, T(0), left)
                    take(y, start + first, length - first, member, T(0), right)
                for v in range(held):
                    left[v] = slope(left[v], right[v], total)
                give(dx, start + first, length - first, member, left)

    return slope_registers


# ---------------------------------------------------------------------------------------------------------------------
# The launchers, called with arrays (..., length), the output last


def row_width(length, *arrays):
    """How many numbers of rows of this length one access takes: those in 16 bytes where every row starts on one."""
    width = width_of(*arrays)
    return width if length % width == 0 else 1


def _by_threads(make, op):
    def launch(*arrays):
        size, length = arrays[0].size, arrays[0].shape[-1]
        if size:
            rows = size // length
            make(op, element_of(arrays[0]))((-(-rows // THREADS),), *map(contiguous, arrays), rows, length)

    return launch


def _by_warps(make, op):
    def launch(*arrays):
        size, length = arrays[0].size, arrays[0].shape[-1]
        if size:
            arrays, rows, T = [*map(contiguous, arrays)], size // length, element_of(arrays[0])
            make(op, T, row_width(length, *arrays))((-(-rows // WARPS),), *arrays, rows, length)

    return launch


def _by_teams(make, op):
    def launch(*arrays):
        size, length = arrays[0].size, arrays[0].shape[-1]
        if size:
            arrays, rows, T = [*map(contiguous, arrays)], size // length, element_of(arrays[0])
            team = team_of(length, row_width(length, *arrays), arrays[0].itemsize)
            make(op, T, team)((team.blocks(rows),), *arrays, rows, length)

    return launch


softmax_three_pass, log_softmax_three_pass = (_by_threads(three_pass, op) for op in RESULTS)
softmax_online, log_softmax_online = (_by_threads(online, op) for op in RESULTS)
softmax_warp_per_row, log_softmax_warp_per_row = (_by_warps(warp_per_row, op) for op in RESULTS)
softmax_registers, log_softmax_registers = (_by_teams(registers, op) for op in RESULTS)
softmax_three_pass_backward, log_softmax_three_pass_backward = (
    _by_threads(thread_per_row_backward, op) for op in SLOPES
)
softmax_online_backward, log_softmax_online_backward = softmax_three_pass_backward, log_softmax_three_pass_backward
softmax_warp_per_row_backward, log_softmax_warp_per_row_backward = (
    _by_warps(warp_per_row_backward, op) for op in SLOPES
)
softmax_registers_backward, log_softmax_registers_backward = (_by_teams(registers_backward, op) for op in SLOPES)
