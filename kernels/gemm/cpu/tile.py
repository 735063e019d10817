"""The register tile, the panels that feed it, and how an operand is described to it."""

import functools

from ... import simd
from ...arrays import contiguous
from ...jit import jit
from ...simd import (
    at,
    expect,
    lanes,
    select,
    tile_add,
    tile_fill_rows,
    tile_outer,
    tile_outer_part,
    tile_relu,
    tile_store,
    tile_zeros,
    transpose_block,
    vfill,
    vload,
    vload_part,
    vstore,
    vstore_part,
)
from ...vecmath import vsigmoid, vtanh

NONE, RELU, SIGMOID, TANH = range(4)
CODES = {None: NONE, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}

ROWS, COLUMNS = simd.TILE_ROWS, simd.TILE_COLUMNS
# Rows of the tile for what is left over.
SHORT = max(2, ROWS * 2 // 7)
# Whether a tile of one vector takes the last columns of C where they are no more: with so many rows its multiply-adds
# are enough to hide each other's latency.
NARROW = ROWS >= 12
# Whether memory is asked for long before it is read. Where a third-level cache is slow, as that of an Intel Xeon
# (Emerald Rapids; copies take it 13 GB/s a core), panels come too late otherwise: tiles of 2016 x 2048 x 512, A's in a
# cache, ran at 98 instead of 90 GFLOP/s. With AVX2 it has not been timed.
LOOKS_AHEAD = simd.VECTOR_BYTES == 64


def operand(x):
    """(flat array, stride of rows, stride of columns) of a 2-D array; copied if neither orientation is contiguous."""
    if x.flags.c_contiguous:
        return x.ravel(), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.ravel("K"), 1, x.shape[0]
    return contiguous(x).ravel(), x.shape[1], 1


@jit(inline=True)
def clear(x, start, count):
    """x[start : start + count] = 0"""
    for i in range(start, start + count, lanes(x)):
        vstore_part(x, i, vfill(x, 0.0), start + count - i)


@jit(inner=True)
def pack_panel(source, start, across, deep, available, depth, width, panel, p0):
    """panel[p0 + k * width + i] = source[start + i * across + k * deep]: `width` rows (or columns), turned k-major.

            source                      panel
        i0  k0 k1 k2 ..                 i0 i1 .. i13   at k0
        i1  k0 k1 k2 ..       ->        i0 i1 .. i13   at k1
        ..                              ..

    The product then reads both operands strictly forward, without holes: no cache line is fetched for a few of its
    numbers, and rows a power of two apart do not fall into the same set of the cache. Of `width` rows only
    `available` exist. The rest are finite numbers, and no denormals: these rows of C are never stored, but computed,
    and what happens to lie in memory slowed that down (4096 x 16 x 64 took 3 instead of 0.1 ms on an Intel Xeon,
    which computes with denormals tens of times as slowly).

    A panel narrower than a vector is written in whole vectors all the same, each over the end of the one before: the
    memory behind a panel has to have room for one, and is written over. (With AVX2, stores with masks are slow: without
    them 512 x 512 x 512 took 2.0 instead of 2.9 ms on two cores of a Zen 3.)
    """
    step = lanes(source)
    rows = min(width, available)
    if rows < width:
        clear(panel, p0, depth * width)
    if deep == 1 and depth >= step:
        for i in range(0, rows, step):
            room = step if width < step else width - i
            for k in range(0, depth, step):
                k = min(k, depth - step)
                first = start + i * across + k
                if LOOKS_AHEAD:
                    for row in range(step):  # of the next panel
                        expect(source, first + (width + row) * across)
                transpose_block(source, first, across, rows - i, panel, p0 + k * width + i, width, room)
    elif across == 1:
        for k in range(depth):
            for i in range(0, rows, step):
                first, target = start + k * deep + i, p0 + k * width + i
                if (i + step <= width or width < step) and first + step <= source.size:
                    vstore(panel, target, vload(source, first))
                else:
                    vstore_part(panel, target, vload_part(source, first, rows - i), width - i)
    else:
        for k in range(depth):
            for i in range(rows):
                panel[p0 + k * width + i] = at(source, start + i * across + k * deep)


# Panels that `pack_panels` fills at a time: as many streams of stores as the first-level cache takes without conflicts.
# Of whole vectors, of which each is one store, it takes twice as many.
SIDE_BY_SIDE, STRIP = 4, 8
# Rows that are asked for before they are read: too far apart for the hardware to see them coming.
SOON = 8


@jit(inline=True)
def pack_panels(source, start, across, deep, available, depth, width, panels, p0):
    """Panels for all `available` rows, one after another from panels[p0] on, as by `pack_panel`.

    Where neighbouring rows are neighbouring numbers (a transposed operand A, or B as it is), a cache line holds numbers
    of several panels, and lines a power of two apart drive each other out before the next panel asks for them: so
    panels are filled side by side. Their last row is not written beyond its end, where the next panel has begun.

    (Inlined, so that each caller's width is a constant: where A and B shared one function for any width, 250 x 5000 x
    250 took 1.3 times as long.)
    """
    step, together, whole = lanes(source), SIDE_BY_SIDE * width, 0
    if across != 1:
        for i in range(0, available, width):
            pack_panel(source, start + i * across, across, deep, available - i, depth, width, panels, p0 + i * depth)
        return
    if width % step == 0:
        whole = available // width * width
        for first in range(0, whole, STRIP * width):
            count = min(STRIP * width, whole - first)
            copy_panels(source, start + first, deep, count, depth, width, panels, p0 + first * depth, depth * width)
    if available % width:
        clear(panels, p0 + available // width * width * depth, width * depth)
    for first in range(whole, available, together):
        end = min(available, first + together)
        for k in range(depth):
            for i in range(first, end, step):
                expect(source, start + (k + SOON) * deep + i)
            for i in range(first, end, width):
                for j in range(0, width, step):
                    place, target, left = start + k * deep + i + j, p0 + i * depth + k * width + j, width - j
                    if (left >= step or k < depth - 1) and place + step <= source.size:
                        vstore(panels, target, vload(source, place))
                    else:
                        vstore_part(panels, target, vload_part(source, place, min(left, end - i - j)), left)


@jit(inner=True)
def copy_panels(source, start, deep, count, depth, width, panels, p0, apart):
    """Whole panels of whole vectors, `apart` from each other: `count` numbers of each row, row by row.

    Memory is asked for long pieces of a row, of which a single panel has a line or two. (On one core of a Zen 3 the
    panels of 1024 x 4096 numbers took 1.8 instead of 7.2 ms, and 32 x 4096 x 4096 as a whole 17 instead of 20.)
    """
    step = lanes(source)
    for k in range(depth):
        row, target = start + k * deep, p0 + k * width
        for j in range(0, count, width):
            expect(source, row + SOON * deep + j)
            for i in range(0, width, step):
                vstore(panels, target + i, vload(source, row + j + i))
            target += apart
        expect(source, row + SOON * deep + count - 1)  # a row seldom begins where a line does


def make_tile(rows):
    """The micro-kernel: rows x (COLUMNS vectors) of C stay in registers while k runs.

        per k:  b0 b1   two vectors of B                    a[0]  -> broadcast -> acc[0,0] += a b0, acc[0,1] += a b1
                acc     rows x 2 accumulators               a[1]  -> broadcast -> acc[1,0] += a b0, ...

    With 14 rows, 28 of 32 registers accumulate: 28 multiply-adds a step need only two loads and 14 broadcasts, and
    enough of them are independent to hide the latency of each (4 cycles, two a cycle).

    A's element (i, k) is a[a0 + i * a_row + k * a_col], B's row k starts at b[b0 + k * b_row], C's row i at
    c[c0 + i * ldc]. `valid` columns of C exist. `keep`: add to what C holds (a later K block). `bias` (empty: none) is
    where the accumulators start. The activation is applied before the tile leaves for memory, or while it is in L1.

    Whole and partial rows of B have a function each: with both loops in one, LLVM keeps the accumulators on the stack.
    In a panel every row is whole, however many columns of C there are: `padded` takes only those. (B's rows are those
    of a panel where they are as far apart.) `ahead`, too, and asks for b[soon + k * pace] meanwhile. Each has a second
    tile, of one vector, for columns that are no more.
    """
    padded, part, ahead = _tile(rows, True, False), _tile(rows, False, False), _tile(rows, True, LOOKS_AHEAD)

    @jit(inline=True, name=f"{__name__}.tile-{rows}")
    def tile(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation):
        if valid == COLUMNS * lanes(c) or b_row == COLUMNS * lanes(c):
            padded(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation)
        else:
            part(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation)

    return tile, padded, ahead


@functools.cache
def _tile(rows, whole, looks_ahead):
    wide, narrow = _tile_of(rows, COLUMNS, whole, looks_ahead), _tile_of(rows, 1, whole, False)
    if not NARROW:
        return wide

    @jit(inline=True, name=f"{__name__}.tile-{rows}-{whole}-{looks_ahead}")
    def tile(
        a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation,
        soon=0, pace=0,
    ):  # fmt: skip
        if valid > lanes(c):
            wide(
                a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation,
                soon, pace,
            )  # fmt: skip
        else:
            narrow(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation)

    return tile


@functools.cache
def _tile_of(rows, columns, whole, looks_ahead):
    @jit(inner=True, name=f"{__name__}.tile-{rows}-{columns}-{whole}-{looks_ahead}")
    def tile(
        a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation,
        soon=0, pace=0,
    ):  # fmt: skip
        acc = tile_zeros(c, rows, columns)
        if bias.size > 0 and not keep:
            tile_fill_rows(acc, bias, j0, valid)
        for i in range(rows):  # read, or written: the line comes either way
            expect(c, c0 + i * ldc)
            if columns > 1:
                expect(c, c0 + i * ldc + lanes(c))
        if whole:
            for k in range(depth):
                if looks_ahead:
                    expect(b, soon + k * pace)
                tile_outer(acc, a, a0 + k * a_col, a_row, b, b0 + k * b_row)
        else:
            for k in range(depth):
                tile_outer_part(acc, a, a0 + k * a_col, a_row, b, b0 + k * b_row, valid)
        if keep:
            tile_add(acc, c, c0, ldc, height, valid)
        if activation == RELU:
            tile_relu(acc)
        tile_store(acc, c, c0, ldc, height, valid)
        if activation > RELU:
            for i in range(height):
                activate(c, c0 + i * ldc, valid, activation)

    return tile


# Rows that `packing_tile` asks for before it reads them: a row takes it six cycles, and what lies in the third-level
# cache takes 160 (16 x 4096 x 4096 ran at 38 GFLOP/s so, at 30 with 8 rows, and at 28 with 96, which drive each other
# out).
AHEAD = 24


@jit(inner=True)
def packing_tile(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, keep, bias, j0, activation, panel, p0):
    """The tall tile for whole rows of B where they are, which also copies them into a panel for the tiles to come.

    The copy is two stores a step, which the multiply-adds leave time for; by itself it takes a third of a product with
    24 rows. B's rows are too far apart for the hardware to see them coming, so they are asked for.
    """
    acc, width = tile_zeros(c, ROWS, COLUMNS), COLUMNS * lanes(c)
    if bias.size > 0 and not keep:
        tile_fill_rows(acc, bias, j0, width)
    for k in range(depth):
        row, target = b0 + k * b_row, p0 + k * width
        expect(b, row + AHEAD * b_row)
        expect(b, row + AHEAD * b_row + width - 1)
        for j in range(0, width, lanes(c)):
            vstore(panel, target + j, vload(b, row + j))
        tile_outer(acc, a, a0 + k * a_col, a_row, panel, target)
    if keep:
        tile_add(acc, c, c0, ldc, ROWS, width)
    if activation == RELU:
        tile_relu(acc)
    tile_store(acc, c, c0, ldc, ROWS, width)
    if activation > RELU:
        for i in range(ROWS):
            activate(c, c0 + i * ldc, width, activation)


@jit(inner=True)
def activate(c, start, count, activation):
    """c[start:start + count] = f(c[start:start + count])"""
    step = lanes(c)
    for j in range(0, count, step):
        z = vload_part(c, start + j, count - j)
        if activation == RELU:
            vstore_part(c, start + j, select(z < 0.0, 0.0, z), count - j)
        elif activation == SIGMOID:
            vstore_part(c, start + j, vsigmoid(z), count - j)
        else:
            vstore_part(c, start + j, vtanh(z), count - j)


tall_tile, tall_padded, tall_ahead = make_tile(ROWS)
short_tile, short_padded, _ = make_tile(SHORT)
single_tile, *_ = make_tile(1)
