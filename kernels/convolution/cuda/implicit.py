"""The rung "implicit": convolutions as matrix products, whose matrix of windows is never made.

Each row of the matrix that im2col would make is a pixel's window, each column a tap and a channel. The kernels compute
where in the source a number of that matrix lies and bring it from there into shared memory.
"""

import math
from functools import cache

from numba import cuda, int32, int64

from ...arrays import address
from ...gemm.cuda import BLOCKS, shares, split
from ...launch import element_of, kernel, pointer
from ...ptx import load, load4, store, store4
from ...wide import vector_of
from .rung import make_rung
from .tiles import DEPTH, ROWS, THREADS, operations, resident, shape_for, sizes
from .window import blocks_across, column_of, count_on, count_one, set_digits, terms_of


@cache
def gather_windows(T, fetches, at_once, whole):
    """The function that brings this thread's part of the next eight columns of the matrix: V neighbouring ones of some
    rows. whole: V channels in a row belong to one tap and start on whole 16 bytes."""
    V = 128 // T.bitwidth

    @cuda.jit(device=True, forceinline=True)
    def gather(x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w, column, windows, row, ahead):
        for v in range(0, V, V if whole else 1):
            h_on, w_on = int32(column[2] * tap_h), int32(column[1] * tap_w)
            on = int32(h_on * width + w_on)
            for f in range(fetches):
                h0, w0, cell, first = load4(windows, (row + f * at_once) * 4)
                h, w = int32(h0 + h_on), int32(w0 + w_on)
                inside = column[2] < taps_h and h >= 0 and h < height and w >= 0 and w < width
                at = int64(int32(cell + on)) * channels + int32(first + column[0])
                if whole:
                    if inside:
                        numbers = load4(x, at)
                        for n in range(V):
                            ahead[f * V + n] = numbers[n]
                    else:
                        for n in range(V):
                            ahead[f * V + n] = T(0)
                else:
                    ahead[f * V + v] = T(0)
                    if inside:
                        ahead[f * V + v] = load(x, at)
            if not whole:
                count_one(column, depth, taps_w)
        count_on(column, DEPTH if whole else DEPTH - V, depth, taps_w)

    return gather


@cache
def convolve(T, side_x, columns_, whole_depth, whole_rows):
    V, block_rows, block_columns, wide = sizes(T, side_x, columns_)
    size_a, size_b, accumulators = DEPTH * wide, DEPTH * block_columns, ROWS * columns_
    both_a, both_b, spread = 2 * size_a, 2 * size_b, THREADS // side_x * V
    # Of its eight terms, a row is brought by `team` threads, V each.
    team = DEPTH // V
    at_once = THREADS // team
    fetches = block_rows // at_once
    numbers, corners = fetches * V, 4 * block_rows
    place_b, fetch_b, put_b, multiply, write_row = operations(T, side_x, columns_, whole_rows)
    gather = gather_windows(T, fetches, at_once, whole_depth)

    @cuda.jit(device=True, forceinline=True)
    def put_a(tile, start, ahead):
        row, p = split(cuda.threadIdx.x, team)
        at = int32(start + p * V * wide + row)
        for f in range(fetches):
            for v in range(V):
                store(tile, int32(at + v * wide + f * at_once), ahead[f * V + v])

    @cuda.jit(device=True, forceinline=True)
    def write(y, places, y_at, x_at, columns_left, acc, first, floor):
        """Half of the thread's rows: not every LLVM unrolls a loop over all of them."""
        for i in range(first, first + ROWS // 2):
            place = load(places, i // V * spread + y_at + i % V)
            if place >= 0:
                write_row(y, place + x_at, columns_left - x_at, acc, i, floor)

    @kernel(threads=THREADS, blocks=resident(T))
    def convolve_implicit(
        x: pointer(T), w: pointer(T), bias: pointer(T), y: pointer(T), height: int32, width: int32, channels: int32,
        depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32, step_h: int32, step_w: int32,
        taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32, filters: int32, columns: int32,
        image_step: int64, row_step: int64, pixel_step: int64, has_bias: int32, floor: T, share: int32,
        part_step: int64,
    ):  # fmt: skip
        """One block: 128 pixels of y by up to 128 filters of one group, or another shape of tiles.py; one thread: 8 x 8
        of these numbers, or fewer of a narrower tile. Up to 25 KB of shared memory (28 with float64). The sums are cut
        into shares of their terms; part p of them goes p * part_step numbers further on in y.

        Why it is faster: a number of x or w is fetched once for all that a block makes of it, and then each one read
        from shared memory takes part in several multiply-adds. While eight columns of the matrix are multiplied, the
        next eight are on their way into registers. A thread's pixels stay the same, and its column of the matrix moves
        on by counting: there is no division in the loop.
        """
        tile_a = cuda.shared.array(both_a, T, alignment=16)
        tile_b = cuda.shared.array(both_b, T, alignment=16)
        # Of the block's pixels: where the windows begin (row, column, cell of all images, channel), and places in y.
        windows = cuda.shared.array(corners, int32, alignment=16)
        places = cuda.shared.array(block_rows, int64)
        acc = cuda.local.array(accumulators, T)
        right = cuda.local.array(columns_, T)
        ahead_a = cuda.local.array(numbers, T)
        ahead_b = cuda.local.array(V, T)
        digits = cuda.local.array(3, int32)
        thread = int32(cuda.threadIdx.x)
        part = int32(cuda.blockIdx.y)
        down, across = split(cuda.blockIdx.x, blocks_across(filters, columns, block_columns))
        group, col0 = column_of(across, columns, block_columns)
        first_col, columns_left = int32(group * columns + col0), int32(columns - col0)
        row0 = int32(down * block_rows)
        if thread < block_rows:
            # Beyond the last pixel the last one is read again: nobody writes what comes of it.
            set_digits(digits, min(row0 + thread, pixels - 1), rows_w, rows_h)
            h0, w0 = start_h + digits[1] * step_h, start_w + digits[0] * step_w
            cell = (digits[2] * height + h0) * width + w0
            store4(windows, thread * 4, (int32(h0), int32(w0), int32(cell), int32(group * depth)))
            place = digits[2] * image_step + digits[1] * row_step + digits[0] * pixel_step
            place += part * part_step + first_col
            store(places, thread, place if row0 + thread < pixels else int64(-1))
        cuda.syncthreads()
        y_at, x_at = int32(thread // side_x * V), int32(thread % side_x * V)
        row, first_term = split(thread, team)
        begin = int32(part * share)
        terms = int32(min(share, taps_h * taps_w * depth - begin))
        set_digits(digits, begin + first_term * V, depth, taps_w)
        row_b, col_b, left_b = place_b(columns_left)
        col_b = int32(col_b + first_col)
        gather(x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w, digits, windows, row, ahead_a)
        from_b = int64(begin + row_b) * filters + col_b
        fetch_b(w, from_b, left_b, row_b < terms, ahead_b)
        put_a(tile_a, 0, ahead_a)
        put_b(tile_b, 0, ahead_b)
        for j in range(columns_):
            start, col = T(0), j // V * side_x * V + x_at + j % V
            if has_bias and col < columns_left:
                start = load(bias, first_col + col)
            for i in range(ROWS):
                acc[i * columns_ + j] = start
        cuda.syncthreads()
        now = int32(0)  # which pair of tiles is read
        left = int32(terms - DEPTH)  # terms of the next tiles and of those after them
        while left > -DEPTH:
            if left > 0:
                gather(
                    x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w, digits, windows, row,
                    ahead_a,
                )  # fmt: skip
                from_b += filters * DEPTH
                fetch_b(w, from_b, left_b, row_b < left, ahead_b)
            multiply(tile_a, int32(now * size_a + y_at), tile_b, int32(now * size_b + x_at), right, acc)
            now = int32(1 - now)
            if left > 0:
                put_a(tile_a, now * size_a, ahead_a)
                put_b(tile_b, now * size_b, ahead_b)
                cuda.syncthreads()
            left = int32(left - DEPTH)
        for half in range(0, ROWS, ROWS // 2):
            write(y, places, y_at, x_at, columns_left, acc, half, floor)

    return convolve_implicit


@cache
def gather_rows(T, fetches, team, whole):
    """The function that brings this thread's part of eight rows of the matrix, one pixel of it in some columns.
    whole: V columns in a row belong to one tap and start on whole 16 bytes."""
    V = 128 // T.bitwidth

    @cuda.jit(device=True, forceinline=True)
    def gather(x, height, width, channels, step_h, step_w, inside_part, pixel, taps, member, ahead):
        h_on, w_on = int32(pixel[1] * step_h), int32(pixel[0] * step_w)
        on = int32(int32(pixel[2] * height + h_on) * width + w_on)
        for f in range(fetches):
            h0, w0, cell, channel = load4(taps, (member + f * team) * 4)
            h, w = int32(h0 + h_on), int32(w0 + w_on)
            inside = inside_part and h >= 0 and h < height and w >= 0 and w < width
            at = int64(int32(cell + on)) * channels + channel
            if whole:
                if inside:
                    numbers = load4(x, at)
                    for n in range(V):
                        ahead[f * V + n] = numbers[n]
                else:
                    for n in range(V):
                        ahead[f * V + n] = T(0)
            else:
                ahead[f] = T(0)
                if inside:
                    ahead[f] = load(x, at)

    return gather


@cache
def correlate(T, side_x, columns_, whole_depth, whole_rows):
    V, block_rows, block_columns, wide = sizes(T, side_x, columns_)
    size_a, size_b, accumulators = DEPTH * wide, DEPTH * block_columns, ROWS * columns_
    both_a, both_b, spread = 2 * size_a, 2 * size_b, THREADS // side_x * V
    # Each of eight pixels is brought by `team` threads, some neighbouring columns of the matrix at once.
    team = THREADS // DEPTH
    neighbours = V if whole_depth else 1
    at_once = team * neighbours
    fetches = block_rows // at_once
    numbers, sets = fetches * neighbours, block_rows // neighbours
    corners = 4 * sets
    place_b, fetch_b, put_b, multiply, write_row = operations(T, side_x, columns_, whole_rows)
    gather = gather_rows(T, fetches, team, whole_depth)
    vector = vector_of(V)

    @cuda.jit(device=True, forceinline=True)
    def put_a(tile, start, ahead):
        p, column = split(cuda.threadIdx.x, team)
        at = int32(start + p * wide + column * neighbours)
        for f in range(fetches):
            if whole_depth:
                store4(tile, int32(at + f * at_once), vector(ahead, f * V))
            else:
                store(tile, int32(at + f * at_once), ahead[f])

    @cuda.jit(device=True, forceinline=True)
    def write(partial, at, row0, terms, filters, columns_left, acc, first, floor):
        for i in range(first, first + ROWS // 2):
            row = row0 + i // V * spread + i % V
            if row < terms:
                write_row(partial, at + int64(row) * filters, columns_left, acc, i, floor)

    @kernel(threads=THREADS, blocks=resident(T))
    def correlate_implicit(
        x: pointer(T), dz: pointer(T), partial: pointer(T), height: int32, width: int32, channels: int32,
        depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32, step_h: int32, step_w: int32,
        taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32, filters: int32, columns: int32,
        share: int32, floor: T,
    ):  # fmt: skip
        """One block: 128 taps and channels by up to 128 filters of one group of dw, or another shape of tiles.py, added
        up over a share of the pixels; one thread: 8 x 8 of these numbers, or fewer of a narrower tile. Up to 23 KB of
        shared memory (27 with float64).

        Why it is faster: as `convolve_implicit`. Here a thread's taps and channels stay the same, and its pixel moves
        on by counting.
        """
        tile_a = cuda.shared.array(both_a, T, alignment=16)
        tile_b = cuda.shared.array(both_b, T, alignment=16)
        # Of the block's rows of dw, neighbours together: where their taps lie in a window (row, column, cell), and the
        # first channel.
        taps = cuda.shared.array(corners, int32, alignment=16)
        acc = cuda.local.array(accumulators, T)
        right = cuda.local.array(columns_, T)
        ahead_a = cuda.local.array(numbers, T)
        ahead_b = cuda.local.array(V, T)
        digits = cuda.local.array(3, int32)
        thread = int32(cuda.threadIdx.x)
        terms = int32(taps_h * taps_w * depth)  # rows of dw
        part = int32(cuda.blockIdx.y)
        down, across = split(cuda.blockIdx.x, blocks_across(filters, columns, block_columns))
        group, col0 = column_of(across, columns, block_columns)
        first_col, columns_left = int32(group * columns + col0), int32(columns - col0)
        row0 = int32(down * block_rows)
        if thread < sets:
            # Beyond the last row the last ones are read again: nobody writes what comes of them.
            set_digits(digits, min(row0 + thread * neighbours, terms - neighbours), depth, taps_w)
            h0, w0 = start_h + digits[2] * tap_h, start_w + digits[1] * tap_w
            store4(taps, thread * 4, (int32(h0), int32(w0), int32(h0 * width + w0), int32(group * depth + digits[0])))
        cuda.syncthreads()
        y_at, x_at = int32(thread // side_x * V), int32(thread % side_x * V)
        begin = int32(part * share)
        end = int32(min(begin + share, pixels))
        row_b, col_b, left_b = place_b(columns_left)
        col_b = int32(col_b + first_col)
        p, member = split(thread, team)
        set_digits(digits, begin + p, rows_w, rows_h)
        gather(x, height, width, channels, step_h, step_w, begin + p < end, digits, taps, member, ahead_a)
        fetch_b(dz, int64(begin + row_b) * filters + col_b, left_b, begin + row_b < end, ahead_b)
        put_a(tile_a, 0, ahead_a)
        put_b(tile_b, 0, ahead_b)
        for i in range(accumulators):
            acc[i] = T(0)
        cuda.syncthreads()
        now = int32(0)  # which pair of tiles is read
        at = int32(begin + DEPTH)  # where the next tiles begin
        while at < end + DEPTH:
            if at < end:
                count_on(digits, DEPTH, rows_w, rows_h)
                gather(x, height, width, channels, step_h, step_w, at + p < end, digits, taps, member, ahead_a)
                row_next = int32(at + row_b)
                fetch_b(dz, int64(row_next) * filters + col_b, left_b, row_next < end, ahead_b)
            multiply(tile_a, int32(now * size_a + y_at), tile_b, int32(now * size_b + x_at), right, acc)
            now = int32(1 - now)
            if at < end:
                put_a(tile_a, now * size_a, ahead_a)
                put_b(tile_b, now * size_b, ahead_b)
                cuda.syncthreads()
            at = int32(at + DEPTH)
        at = int64(cuda.blockIdx.y) * terms * filters + first_col + x_at
        for half in range(0, ROWS, ROWS // 2):
            write(partial, at, row0 + y_at, terms, filters, columns_left - x_at, acc, half, floor)

    return correlate_implicit


# ---------------------------------------------------------------------------------------------------------------------
# The launchers

# The fewest pixels of a part of the sums for dw.
FEWEST = 256


def _whole(size, *arrays):
    """Whether rows of `size` numbers are whole 16 bytes and start on them."""
    itemsize = arrays[0].dtype.itemsize
    return size * itemsize % 16 == 0 and all(address(array) % 16 == 0 for array in arrays)


def _tiled(window, rows, T):
    """(shape of the tile, how many of them lie down and across a result of so many rows)"""
    shape = shape_for(window.columns, T)
    _, block_rows, block_columns, _ = sizes(T, *shape)
    across = window.filters // window.columns * -(-window.columns // block_columns)
    return shape, -(-rows // block_rows), across


def _convolve(window, parts, x, w, bias, y, *rest):
    T = element_of(x)
    shape, down, across = _tiled(window, window.pixels, T)
    multiply = convolve(T, *shape, _whole(window.depth, x), _whole(window.columns, w, y))
    multiply((down * across, parts), x, w, bias, y, *window, *rest)


def _cut(window, T):
    _, down, across = _tiled(window, window.pixels, T)
    return shares(terms_of(window), down * across)


def _parts(window, T):
    """Parts into which the pixels are cut for dw."""
    _, down, across = _tiled(window, terms_of(window), T)
    return min(BLOCKS // (down * across), window.pixels // FEWEST)


def _correlate(window, x, dz, partial, share, parts):
    T = element_of(x)
    shape, down, across = _tiled(window, terms_of(window), T)
    multiply = correlate(T, *shape, _whole(window.depth, x), _whole(window.columns, dz, partial))
    multiply((down * across, parts), x, dz, partial, *window, share, -math.inf)


conv2d_implicit = make_rung(_convolve, _correlate, _cut, _parts)
