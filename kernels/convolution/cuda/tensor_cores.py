"""The rung "tensor": the matrix product of the rung "implicit" on the tensor cores, in TF32.

Products are of float32 numbers rounded to ten bits of mantissa, sums in float32. Tiles lie in shared memory as they do
for products of matrices (gemm/cuda/fragments.py), in chunks of 16 bytes: four neighbouring channels of one pixel, or
four neighbouring filters. A chunk is wholly in the image or in the zeros around it, and is copied or filled with zeros.
So channels and filters of a group have to be multiples of four; where they are not, the launchers spread arrays out.
"""

from functools import cache

from numba import cuda, float32, int32, int64, uint32

from ...arrays import address, namespace
from ...gemm.cuda import BLOCKS, at_least, shares, split
from ...gemm.cuda.fragments import (
    AHEAD,
    BLOCK,
    CHUNKS,
    NEVER,
    SHARED_BYTES,
    SUMS,
    THREADS,
    UNDER_WAY,
    WARP,
    WIDE,
    operations,
)
from ...launch import element_of, kernel, pointer
from ...ptx import copy_async, copy_async_commit, copy_async_wait, load, load4, store4
from ..rung import Rung
from .rung import make_rung
from .window import blocks_across, column_of, count_on, set_digits, terms_of

TERMS, V = 16, 4  # terms of a tile, numbers of a chunk
TILE = TERMS * BLOCK
PAIR = 2 * TILE
LAST = AHEAD * PAIR  # the last of the pairs' places
# A thread's chunks along a row of C's tile, and the rows, or terms down a column, from one of them to the next.
ACROSS = BLOCK // V
APART = THREADS // ACROSS


@cuda.jit(device=True, forceinline=True)
def next_pair(now):
    return int32(now + PAIR if now < LAST else 0)


@cache
def convolve():
    place, look, own, aim, bring, multiply_step, put = operations(float32, True, False)

    @cuda.jit(device=True, forceinline=True)
    def bring_windows(
        tiles, to, x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w, tap, h0, w0, cell, channel
    ):
        """Start to copy this thread's chunks of the next 16 columns of the matrix: the same channels of four pixels."""
        h_on, w_on = int32(tap[2] * tap_h), int32(tap[1] * tap_w)
        on = int32(h_on * width + w_on)
        for f in range(CHUNKS):
            pixel, p = own(f, True)
            h, w = int32(h0[f] + h_on), int32(w0[f] + w_on)
            inside = tap[2] < taps_h and h >= 0 and h < height and w >= 0 and w < width
            at = int64(int32(cell[f] + on)) * channels + int32(channel + tap[0])
            copy_async(tiles, int32(to + place(pixel, p, True)), x, at, int32(16) if inside else int32(0))
        count_on(tap, TERMS, depth, taps_w)

    @cuda.jit(device=True, forceinline=True)
    def write(stage, y, digits, rows_w, rows_h, image_step, row_step, pixel_step, rows_left, col, columns_left, floor):
        """64 rows of shared memory to y; `digits` are those of this thread's first pixel, and then of the next 64."""
        row, chunk = split(cuda.threadIdx.x, ACROSS)
        for _ in range(WARP // APART):
            if row < rows_left and chunk * V < columns_left:
                at = digits[2] * image_step + digits[1] * row_step + digits[0] * pixel_step + col + chunk * V
                z = load4(stage, int32(row * WIDE + chunk * V))
                store4(
                    y, at, (at_least(z[0], floor), at_least(z[1], floor), at_least(z[2], floor), at_least(z[3], floor))
                )
            row = int32(row + APART)
            count_on(digits, APART, rows_w, rows_h)

    @kernel(threads=THREADS, blocks=2)
    def convolve_tensor(
        x: pointer(float32), w: pointer(float32), bias: pointer(float32), y: pointer(float32), height: int32,
        width: int32, channels: int32, depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32,
        step_h: int32, step_w: int32, taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32,
        filters: int32, columns: int32, image_step: int64, row_step: int64, pixel_step: int64, has_bias: int32,
        floor: float32, share: int32, part_step: int64,
    ):  # fmt: skip
        """One block: 128 pixels of y by 128 filters of one group; one warp: 64 x 64 of these numbers, in registers; one
        thread brings four terms of four pixels, and four filters of four terms, for each 16 terms. 48 KB of shared
        memory: three pairs of tiles, and in the end half of the results at a time. Sums are cut as in
        `convolve_implicit`.

        Why it is faster: an instruction does 1024 multiply-adds where a warp's ordinary one does 32; and tiles come
        without passing through registers, two ahead of the one that is multiplied. As in `convolve_implicit` a thread's
        pixels stay the same, and its column of the matrix moves on by counting.
        """
        tiles = cuda.shared.array(0, float32, alignment=16)
        acc, right = cuda.local.array(SUMS, float32), cuda.local.array(16, uint32)
        h0, w0, cell = cuda.local.array(CHUNKS, int32), cuda.local.array(CHUNKS, int32), cuda.local.array(CHUNKS, int32)
        at_b, limit_b = cuda.local.array(CHUNKS, int64), cuda.local.array(CHUNKS, int32)
        digits = cuda.local.array(3, int32)
        warp, lane = int32(cuda.threadIdx.x // 32), int32(cuda.threadIdx.x % 32)
        row, col = int32(warp % 2 * WARP), int32(warp // 2 * WARP)
        part = int32(cuda.blockIdx.y)
        down, across = split(cuda.blockIdx.x, blocks_across(filters, columns, BLOCK))
        group, col0 = column_of(across, columns, BLOCK)
        first_col, columns_left, row0 = int32(group * columns + col0), int32(columns - col0), int32(down * BLOCK)
        for t in range(32):
            start, at = float32(0), int32(col + t // 4 * 8 + lane % 4 * 2 + t % 2)
            if has_bias and at < columns_left:
                start = load(bias, first_col + at)
            for i in range(4):
                acc[32 * i + t] = start
        for f in range(CHUNKS):
            pixel, _ = own(f, True)
            # Beyond the last pixel the last one is read again: nobody writes what comes of it.
            set_digits(digits, min(int32(row0 + pixel), int32(pixels - 1)), rows_w, rows_h)
            h0[f], w0[f] = int32(start_h + digits[1] * step_h), int32(start_w + digits[0] * step_w)
            cell[f] = int32((digits[2] * height + h0[f]) * width + w0[f])
        channel = int32(group * depth)
        _, p = own(0, True)
        begin = int32(part * share)
        terms = int32(min(share, taps_h * taps_w * depth - begin))
        set_digits(digits, int32(begin + p), depth, taps_w)
        aim(int64(begin) * filters, first_col, columns_left, filters, False, at_b, limit_b)
        step_b = int64(filters) * TERMS
        look_a, look_b = look(row, True, False), int32(look(col, False, True) + TILE)
        for ahead in range(AHEAD):
            left = int32(terms - ahead * TERMS)
            if left > 0:
                bring_windows(
                    tiles, int32(ahead * PAIR), x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w,
                    digits, h0, w0, cell, channel,
                )  # fmt: skip
                bring(tiles, int32(ahead * PAIR + TILE), w, at_b, limit_b, step_b, left, False)
            copy_async_commit()
        now, free = int32(0), int32(LAST)
        for term in range(int32(0), terms, int32(TERMS)):
            copy_async_wait(UNDER_WAY)
            cuda.syncthreads()  # all have what they waited for, and nobody reads the oldest tiles any more
            left = int32(terms - term - AHEAD * TERMS)
            if left > 0:
                bring_windows(
                    tiles, free, x, height, width, channels, depth, taps_h, taps_w, tap_h, tap_w, digits, h0, w0,
                    cell, channel,
                )  # fmt: skip
                bring(tiles, int32(free + TILE), w, at_b, limit_b, step_b, left, False)
            copy_async_commit()
            multiply_step(tiles, int32(now + look_a), int32(now + look_b), 0, right, acc)
            multiply_step(tiles, int32(now + look_a), int32(now + look_b), 1, right, acc)
            free, now = now, next_pair(now)
        set_digits(digits, int32(row0 + cuda.threadIdx.x // ACROSS), rows_w, rows_h)
        for rows in range(0, BLOCK, WARP):
            cuda.syncthreads()
            if row == rows:
                put(tiles, acc)
            cuda.syncthreads()
            write(
                tiles, y, digits, rows_w, rows_h, image_step, row_step, pixel_step, int32(pixels - row0 - rows),
                cuda.blockIdx.y * part_step + first_col, columns_left, floor,
            )  # fmt: skip

    return convolve_tensor


@cache
def correlate():
    place, look, own, aim, bring, multiply_step, put = operations(float32, False, False)

    @cuda.jit(device=True, forceinline=True)
    def bring_pixels(
        tiles, to, x, height, width, channels, rows_h, rows_w, step_h, step_w, left, pixel, h0, w0, cell, channel, limit
    ):
        """Start to copy this thread's chunks of the next 16 rows of the matrix: of four pixels what one tap meets."""
        for f in range(CHUNKS):
            outer, p = own(f, False)
            h_on, w_on = int32(pixel[1] * step_h), int32(pixel[0] * step_w)
            h, w = int32(h0 + h_on), int32(w0 + w_on)
            inside = limit < left - f * APART and h >= 0 and h < height and w >= 0 and w < width
            at = int64(int32(cell + (pixel[2] * height + h_on) * width + w_on)) * channels + channel
            copy_async(tiles, int32(to + place(outer, p, False)), x, at, int32(16) if inside else int32(0))
            count_on(pixel, APART, rows_w, rows_h)

    @cuda.jit(device=True, forceinline=True)
    def write(stage, partial, at, filters, rows_left, columns_left):
        """64 rows of shared memory to the part of dw that begins at partial[at]."""
        row, chunk = split(cuda.threadIdx.x, ACROSS)
        for _ in range(WARP // APART):
            if row < rows_left and chunk * V < columns_left:
                numbers = load4(stage, int32(row * WIDE + chunk * V))
                store4(partial, at + int64(row) * filters + chunk * V, numbers)
            row = int32(row + APART)

    @kernel(threads=THREADS, blocks=2)
    def correlate_tensor(
        x: pointer(float32), dz: pointer(float32), partial: pointer(float32), height: int32, width: int32,
        channels: int32, depth: int32, rows_h: int32, rows_w: int32, start_h: int32, start_w: int32, step_h: int32,
        step_w: int32, taps_h: int32, taps_w: int32, tap_h: int32, tap_w: int32, pixels: int32, filters: int32,
        columns: int32, share: int32,
    ):  # fmt: skip
        """One block: 128 taps and channels by 128 filters of one group of dw, added up over a share of the pixels; one
        warp: 64 x 64 of these numbers, in registers; one thread brings four channels, and four filters, of four pixels
        for each 16. 48 KB of shared memory.

        Why it is faster: as `convolve_tensor`. Here a thread's tap and channels stay the same, and its pixel moves on
        by counting.
        """
        tiles = cuda.shared.array(0, float32, alignment=16)
        acc, right = cuda.local.array(SUMS, float32), cuda.local.array(16, uint32)
        at_b, limit_b = cuda.local.array(CHUNKS, int64), cuda.local.array(CHUNKS, int32)
        digits = cuda.local.array(3, int32)
        warp = int32(cuda.threadIdx.x // 32)
        row, col = int32(warp % 2 * WARP), int32(warp // 2 * WARP)
        terms = int32(taps_h * taps_w * depth)  # rows of dw
        part = int32(cuda.blockIdx.y)
        down, across = split(cuda.blockIdx.x, blocks_across(filters, columns, BLOCK))
        group, col0 = column_of(across, columns, BLOCK)
        first_col, columns_left, row0 = int32(group * columns + col0), int32(columns - col0), int32(down * BLOCK)
        begin = int32(part * share)
        count = int32(min(share, pixels - begin))  # of the part's pixels
        for t in range(SUMS):
            acc[t] = float32(0)
        outer, p = own(0, False)
        set_digits(digits, int32(row0 + outer), depth, taps_w)
        h0, w0 = int32(start_h + digits[2] * tap_h), int32(start_w + digits[1] * tap_w)
        cell, channel = int32(h0 * width + w0), int32(group * depth + digits[0])
        limit = p if row0 + outer < terms else int32(NEVER)
        set_digits(digits, int32(begin + p), rows_w, rows_h)
        aim(int64(begin) * filters, first_col, columns_left, filters, False, at_b, limit_b)
        step_b = int64(filters) * TERMS
        look_a, look_b = look(row, False, False), int32(look(col, False, True) + TILE)
        for ahead in range(AHEAD):
            left = int32(count - ahead * TERMS)
            if left > 0:
                bring_pixels(
                    tiles, int32(ahead * PAIR), x, height, width, channels, rows_h, rows_w, step_h, step_w, left,
                    digits, h0, w0, cell, channel, limit,
                )  # fmt: skip
                bring(tiles, int32(ahead * PAIR + TILE), dz, at_b, limit_b, step_b, left, False)
            copy_async_commit()
        now, free = int32(0), int32(LAST)
        for pixel in range(int32(0), count, int32(TERMS)):
            copy_async_wait(UNDER_WAY)
            cuda.syncthreads()  # as above
            left = int32(count - pixel - AHEAD * TERMS)
            if left > 0:
                bring_pixels(
                    tiles, free, x, height, width, channels, rows_h, rows_w, step_h, step_w, left, digits, h0, w0,
                    cell, channel, limit,
                )  # fmt: skip
                bring(tiles, int32(free + TILE), dz, at_b, limit_b, step_b, left, False)
            copy_async_commit()
            multiply_step(tiles, int32(now + look_a), int32(now + look_b), 0, right, acc)
            multiply_step(tiles, int32(now + look_a), int32(now + look_b), 1, right, acc)
            free, now = now, next_pair(now)
        for rows in range(0, BLOCK, WARP):
            cuda.syncthreads()
            if row == rows:
                put(tiles, acc)
            cuda.syncthreads()
            at = (int64(cuda.blockIdx.y) * terms + row0 + rows) * filters + first_col
            write(tiles, partial, at, filters, int32(terms - row0 - rows), columns_left)

    return correlate_tensor


# ---------------------------------------------------------------------------------------------------------------------
# The launchers

# The fewest pixels of a part of the sums for dw.
FEWEST = 256


def _blocks(window, rows):
    """Blocks of a result with so many rows."""
    return -(-rows // BLOCK) * (window.filters // window.columns) * -(-window.columns // BLOCK)


def _convolve(window, parts, x, w, bias, y, *rest):
    convolve()((_blocks(window, window.pixels), parts), x, w, bias, y, *window, *rest, shared=SHARED_BYTES)


def _cut(window, T):
    return shares(terms_of(window), _blocks(window, window.pixels))


def _parts(window, T):
    """Parts into which the pixels are cut for dw."""
    return min(BLOCKS // _blocks(window, terms_of(window)), window.pixels // FEWEST)


def _correlate(window, x, dz, partial, share, parts):
    correlate()((_blocks(window, terms_of(window)), parts), x, dz, partial, *window, share, shared=SHARED_BYTES)


def _shapes(g):
    """Of x, w, y and b, groups apart from their channels or filters."""
    depth, columns = g.C // g.groups, g.F // g.groups
    pixels, results = (g.N, g.H, g.W), (g.N, g.OH, g.OW)
    return (
        (*pixels, g.groups, depth), (g.KH, g.KW, depth, g.groups, columns), (*results, g.groups, columns),
        (g.groups, columns),
    )  # fmt: skip


def _spread(g):
    """The sizes with a group's channels and filters rounded up to whole chunks, and all shapes: (before, then)."""
    depth, columns = (-(-size // g.groups // V) * V for size in (g.C, g.F))
    wide = g._replace(C=g.groups * depth, F=g.groups * columns)
    return wide, *zip(_shapes(g), _shapes(wide))


def _suits(array, before, then):
    return before == then and address(array) % 16 == 0


def _given(array, before, then):
    """An operand in the shape that the kernels take: itself where it suits, else a copy between zeros."""
    if _suits(array, before, then):
        return array
    copy = namespace(array).zeros(then, array.dtype)
    copy[tuple(map(slice, before))] = array.reshape(before)
    return copy


def _made(array, before, then, make):
    """make(result): the result itself where it suits, else another one, from which it is copied."""
    if _suits(array, before, then):
        make(array)
    else:
        made = namespace(array).empty(then, array.dtype)
        make(made)
        array.reshape(before)[...] = made[tuple(map(slice, before))]


def _check(array):
    if element_of(array) is not float32:
        raise ValueError(
            f"conv2d: variant is 'tensor' and the arrays are {array.dtype}: takes float32, as TF32; 'direct' and "
            "'implicit' take float64"
        )


_whole = make_rung(_convolve, _correlate, _cut, _parts)


def _forward(x, w, b, y, g, activation):
    _check(x)
    wide, of_x, of_w, of_y, of_b = _spread(g)
    x, w, b = _given(x, *of_x), _given(w, *of_w), b if b is None else _given(b, *of_b)
    _made(y, *of_y, lambda y: _whole.forward(x, w, b, y, wide, activation))


def _data_gradient(dz, w, dx, g):
    _check(dz)
    wide, of_x, of_w, of_y, _ = _spread(g)
    dz, w = _given(dz, *of_y), _given(w, *of_w)
    _made(dx, *of_x, lambda dx: _whole.data_gradient(dz, w, dx, wide))


def _weight_gradient(x, dz, dw, g):
    _check(x)
    wide, of_x, of_w, of_y, _ = _spread(g)
    x, dz = _given(x, *of_x), _given(dz, *of_y)
    _made(dw, *of_w, lambda dw: _whole.weight_gradient(x, dz, dw, wide))


conv2d_tensor = Rung(_forward, _data_gradient, _weight_gradient)
