"""Matrix products on a CPU, C[M, N] = A[M, K] B[K, N], from the textbook to the register file.

    naive     three loops
    blocked   the loops cut into blocks that stay in the caches, the innermost one running along rows
    packed    the blocks copied into panels first, in exactly the order in which they will be read
    simd      a register tile of vectors on the packed panels: one broadcast and two loads feed 28 multiply-adds
    threaded  the same over several threads, and small or thin products without packing

Every launcher is called as gemm_x(a, b, c, bias=None, activation=None): `a` and `b` 2-D with any strides, `c` 2-D and
C-contiguous. In the kernels, element (i, k) of A is a[i * a_row + k * a_col] of a flat array, so that a transposed
operand is the same array with its strides swapped. The order of the terms of each sum depends on K alone.
"""

import numpy as np

from .. import simd
from ..jit import jit
from ..simd import (
    at,
    fma,
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
    vload,
    vload_part,
    vstore,
    vstore_part,
)
from ..threads import threaded
from ..vecmath import vsigmoid, vtanh
from ..workspace import scratch

NONE, RELU, SIGMOID, TANH = range(4)
CODES = {None: NONE, "relu": RELU, "sigmoid": SIGMOID, "tanh": TANH}

ROWS, COLUMNS = simd.TILE_ROWS, simd.TILE_COLUMNS
# Rows of the tile for what is left over.
SHORT = max(2, ROWS * 2 // 7)
# Bytes of one row of a K block: 2048 float32. Each further block reads and writes all of C once more: 2 % of the time
# of a 2048^3 product. Long panels cost less, although only the second-level cache holds them: a tile needs no more than
# 7 bytes a cycle.
BLOCK_BYTES = 8192
# Bytes of the panels of A that stay in the second-level cache while one of B is multiplied with all of them.
GROUP_BYTES = 1 << 18
# The rungs below the register tile: edge of a cache block, columns of a panel.
BLOCK, WIDTH = 64, 32


def operand(x):
    """(flat array, stride of rows, stride of columns) of a 2-D array; copied if neither orientation is contiguous."""
    if x.flags.c_contiguous:
        return x.reshape(-1), x.shape[1], 1
    if x.flags.f_contiguous:
        return x.T.reshape(-1), 1, x.shape[0]
    return np.ascontiguousarray(x).reshape(-1), x.shape[1], 1


# ---------------------------------------------------------------------------------------------------------------------
# naive


@jit
def multiply_naive(a, a_row, a_col, b, b_row, b_col, c, m, n, k):
    """One dot product for each element of C."""
    for i in range(m):
        for j in range(n):
            total = c.dtype.type(0)
            for p in range(k):
                total += at(a, i * a_row + p * a_col) * at(b, p * b_row + j * b_col)
            c[i * n + j] = total


def gemm_naive(a, b, c, bias=None, activation=None):
    m, n = c.shape
    multiply_naive(*operand(a), *operand(b), c.reshape(-1), m, n, a.shape[1])
    _finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------
# blocked


@jit
def multiply_blocked(a, a_row, a_col, b, b_row, b_col, c, m, n, k):
    """Blocks of 64 x 64 x 64 stay in the caches; each innermost loop adds a multiple of a row of B to a row of C.

    Why it is faster: B's block is read from the cache instead of from memory, and along rows, so that the compiler
    can use vectors where B's columns are neighbours.
    """
    for i in range(m * n):
        c[i] = 0
    for k0 in range(0, k, BLOCK):
        for i0 in range(0, m, BLOCK):
            for j0 in range(0, n, BLOCK):
                for i in range(i0, min(i0 + BLOCK, m)):
                    for p in range(k0, min(k0 + BLOCK, k)):
                        factor = at(a, i * a_row + p * a_col)
                        for j in range(j0, min(j0 + BLOCK, n)):
                            c[i * n + j] += factor * at(b, p * b_row + j * b_col)


def gemm_blocked(a, b, c, bias=None, activation=None):
    m, n = c.shape
    multiply_blocked(*operand(a), *operand(b), c.reshape(-1), m, n, a.shape[1])
    _finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------
# packed


@jit(inner=True)
def pack_panel(source, start, across, deep, available, depth, width, panel, p0):
    """panel[p0 + k * width + i] = source[start + i * across + k * deep]: `width` rows (or columns), turned k-major.

            source                      panel
        i0  k0 k1 k2 ..                 i0 i1 .. i13   at k0
        i1  k0 k1 k2 ..       ->        i0 i1 .. i13   at k1
        ..                              ..

    The product then reads both operands strictly forward, without holes: no cache line is fetched for a few of its
    numbers, and rows a power of two apart do not fall into the same set of the cache. Of `width` rows only
    `available` exist; the rest of the panel is undefined (those rows of C are never stored).
    """
    step = lanes(source)
    rows = min(width, available)
    if deep == 1 and depth >= step:
        for i in range(0, rows, step):
            for k in range(0, depth, step):
                k = min(k, depth - step)
                first = start + i * across + k
                transpose_block(source, first, across, rows - i, panel, p0 + k * width + i, width, width - i)
    elif across == 1:
        for k in range(depth):
            for i in range(0, rows, step):
                if i + step <= rows:
                    vstore(panel, p0 + k * width + i, vload(source, start + k * deep + i))
                else:
                    rest = vload_part(source, start + k * deep + i, rows - i)
                    vstore_part(panel, p0 + k * width + i, rest, width - i)
    else:
        for k in range(depth):
            for i in range(rows):
                panel[p0 + k * width + i] = at(source, start + i * across + k * deep)


@jit
def multiply_packed(a, a_row, a_col, b, b_row, b_col, c, m, n, k, a_panel, b_panels):
    """B packed once into panels of 32 columns, A panel by panel, and 4 x 4 numbers of C at a time in scalars.

    Why it is faster: every number that is loaded is used four times before it leaves the registers.
    """
    for j0 in range(0, n, WIDTH):
        pack_panel(b, j0 * b_col, b_col, b_row, n - j0, k, WIDTH, b_panels, j0 * k)
    for i0 in range(0, m, 4):
        pack_panel(a, i0 * a_row, a_row, a_col, m - i0, k, 4, a_panel, 0)
        for j0 in range(0, n, WIDTH):
            for j in range(j0, min(j0 + WIDTH, n)):
                s0 = s1 = s2 = s3 = c.dtype.type(0)
                for p in range(k):
                    factor = at(b_panels, j0 * k + p * WIDTH + j - j0)
                    s0 += at(a_panel, 4 * p) * factor
                    s1 += at(a_panel, 4 * p + 1) * factor
                    s2 += at(a_panel, 4 * p + 2) * factor
                    s3 += at(a_panel, 4 * p + 3) * factor
                for i, total in enumerate((s0, s1, s2, s3)):
                    if i0 + i < m:
                        c[(i0 + i) * n + j] = total


def gemm_packed(a, b, c, bias=None, activation=None):
    m, n = c.shape
    k = a.shape[1]
    a_panel = scratch("gemm.a", 4 * k, c.dtype)
    b_panels = scratch("gemm.b", -(-n // WIDTH) * WIDTH * k, c.dtype)
    multiply_packed(*operand(a), *operand(b), c.reshape(-1), m, n, k, a_panel, b_panels)
    _finish(c, bias, activation)


# ---------------------------------------------------------------------------------------------------------------------
# simd


def make_tile(rows):
    """The micro-kernel: rows x (COLUMNS vectors) of C stay in registers while k runs.

        per k:  b0 b1   two vectors of B                    a[0]  -> broadcast -> acc[0,0] += a b0, acc[0,1] += a b1
                acc     rows x 2 accumulators               a[1]  -> broadcast -> acc[1,0] += a b0, ...

    With 14 rows, 28 of 32 registers accumulate: 28 multiply-adds a step need only two loads and 14 broadcasts, and
    enough of them are independent to hide the latency of each (4 cycles, two a cycle).

    A's element (i, k) is a[a0 + i * a_row + k * a_col], B's row k starts at b[b0 + k * b_row], C's row i at
    c[c0 + i * ldc]. `valid` columns of C exist. `keep`: add to what C holds (a later K block). `bias` (empty: none) is
    where the accumulators start. The activation is applied before the tile leaves for memory, or while it is in L1.
    """

    @jit(inner=True, name=f"{__name__}.tile-{rows}")
    def tile(a, a0, a_row, a_col, b, b0, b_row, depth, c, c0, ldc, height, valid, keep, bias, j0, activation):
        acc = tile_zeros(c, rows, COLUMNS)
        if bias.size > 0 and not keep:
            tile_fill_rows(acc, bias, j0, valid)
        if not simd.FREE_MASKS and valid == COLUMNS * lanes(c):
            for k in range(depth):
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


@jit(inner=True)
def activate(c, start, count, activation):
    """c[start:start + count] = f(c[start:start + count]) for the activations that need an exponential."""
    step = lanes(c)
    for j in range(0, count, step):
        z = vload_part(c, start + j, count - j)
        if activation == SIGMOID:
            vstore_part(c, start + j, vsigmoid(z), count - j)
        else:
            vstore_part(c, start + j, vtanh(z), count - j)


tall_tile, short_tile, single_tile = make_tile(ROWS), make_tile(SHORT), make_tile(1)


@jit(inner=True)
def pack_block(chunk, a, a_row, a_col, m, a_panels, b, b_row, b_col, n, b_panels, k0, depth):
    """One chunk is one panel. Those of B are spread evenly among those of A: where a thread takes the first half of
    the chunks, here and in `multiply_panels`, it has packed the half of B itself that it will read."""
    width = COLUMNS * lanes(a)
    count_a, count_b = (m + ROWS - 1) // ROWS, (n + width - 1) // width
    before = chunk * count_b // (count_a + count_b)
    if (chunk + 1) * count_b // (count_a + count_b) > before:
        source, panels, across, deep, size, number = b, b_panels, b_col, b_row, n, before
    else:
        source, panels, across, deep, width, size, number = a, a_panels, a_row, a_col, ROWS, m, chunk - before
    first = number * width
    pack_panel(source, first * across + k0 * deep, across, deep, size - first, depth, width, panels, first * depth)


@jit(inner=True)
def multiply_panels(chunk, a_panels, b_panels, depth, c, m, n, row_groups, column_groups, keep, bias, activation):
    """One chunk is a group of neighbouring panels of A times one of B; chunks that follow each other share B."""
    width = COLUMNS * lanes(c)
    rows, columns = (m + ROWS - 1) // ROWS, (n + width - 1) // width
    row_group, column_group = chunk % row_groups, chunk // row_groups
    for j in range(column_group * columns // column_groups, (column_group + 1) * columns // column_groups):
        j0 = j * width
        valid = min(width, n - j0)
        for i in range(row_group * rows // row_groups, (row_group + 1) * rows // row_groups):
            i0 = i * ROWS
            height = min(ROWS, m - i0)
            if height > SHORT:
                tall_tile(
                    a_panels, i0 * depth, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                )  # fmt: skip
            else:  # the rest of a panel would be multiplied for nothing
                short_tile(
                    a_panels, i0 * depth, 1, ROWS, b_panels, j0 * depth, width, depth,
                    c, i0 * n + j0, n, height, valid, keep, bias, j0, activation,
                )  # fmt: skip


_pack_block = threaded(pack_block)
_multiply_panels = threaded(multiply_panels)


def _multiply(a, b, c, bias, activation, pack, multiply):
    """The packed product, one K block after another; `pack` and `multiply` say how the chunks are run.

    Workspace: (M + N) * min(K, 2048) numbers, in panels; half as many with float64.
    """
    m, n = c.shape
    k = a.shape[1]
    width = COLUMNS * simd.VECTOR_BYTES // c.itemsize
    panels_a, panels_b = -(-m // ROWS), -(-n // width)
    blocks = max(1, -(-k * c.itemsize // BLOCK_BYTES))
    a_panels = scratch("gemm.a", panels_a * ROWS * (k // blocks + 1), c.dtype)
    b_panels = scratch("gemm.b", panels_b * width * (k // blocks + 1), c.dtype)
    group = max(1, GROUP_BYTES // (ROWS * (k // blocks + 1) * c.itemsize))
    row_groups, column_groups = -(-panels_a // group), min(panels_b, 8)
    a, a_row, a_col = operand(a)
    b, b_row, b_col = operand(b)
    flat = c.reshape(-1)
    bias = _NO_BIAS[c.dtype] if bias is None else bias
    for block in range(blocks):
        k0, k1 = block * k // blocks, (block + 1) * k // blocks
        depth, last = k1 - k0, block == blocks - 1
        pack(
            panels_a + panels_b, (m + n) * depth * 4,
            a, a_row, a_col, m, a_panels, b, b_row, b_col, n, b_panels, k0, depth,
        )  # fmt: skip
        multiply(
            row_groups * column_groups, 2 * m * n * depth,
            a_panels, b_panels, depth, flat, m, n, row_groups, column_groups,
            block > 0, bias, CODES[activation] if last else NONE,
        )  # fmt: skip


_NO_BIAS = {np.dtype(dtype): np.empty(0, dtype) for dtype in (np.float32, np.float64)}


def _one_after_another(launch):
    return lambda chunks, work, *args: launch.in_turn(chunks, *args)


def gemm_simd(a, b, c, bias=None, activation=None):
    _multiply(a, b, c, bias, activation, _one_after_another(_pack_block), _one_after_another(_multiply_panels))


# ---------------------------------------------------------------------------------------------------------------------
# threaded


@jit(inner=True)
def multiply_direct(chunk, a, a_row, a_col, b, b_row, depth, c, m, n, rows, columns, bias, activation):
    """One chunk is `rows` x `columns` of C, straight from the operands: B's rows must be contiguous.

    The last tile is moved back so that it ends at the last row: a few rows are computed twice, with the same bits.
    """
    width = COLUMNS * lanes(c)
    groups = (n + columns - 1) // columns
    i_first, j_first = chunk // groups * rows, chunk % groups * columns
    i_end, j_end = min(m, i_first + rows), min(n, j_first + columns)
    for j0 in range(j_first, j_end, width):
        valid = min(width, j_end - j0)
        i = i_first
        while i < i_end:
            left = i_end - i
            if left > 2 * SHORT and i_end - i_first >= ROWS:
                i = min(i, i_end - ROWS)
                tall_tile(
                    a, i * a_row, a_row, a_col, b, j0, b_row, depth,
                    c, i * n + j0, n, ROWS, valid, False, bias, j0, activation,
                )  # fmt: skip
                i += ROWS
            elif i_end - i_first >= SHORT:
                i = min(i, i_end - SHORT)
                short_tile(
                    a, i * a_row, a_row, a_col, b, j0, b_row, depth,
                    c, i * n + j0, n, SHORT, valid, False, bias, j0, activation,
                )  # fmt: skip
                i += SHORT
            else:
                single_tile(
                    a, i * a_row, a_row, a_col, b, j0, b_row, depth,
                    c, i * n + j0, n, 1, valid, False, bias, j0, activation,
                )  # fmt: skip
                i += 1


_multiply_direct = threaded(multiply_direct)


def gemm_threaded(a, b, c, bias=None, activation=None):
    """Packing pays when each packed number is used often; small and thin products read the operands where they are."""
    m, n = c.shape
    k = a.shape[1]
    if b.size <= 4096:  # to lay it out anew costs less than a second launch for packing
        b = np.ascontiguousarray(b)
    if b.flags.c_contiguous and (m <= 4 * ROWS or k <= 128 or m * n * k <= 100_000):
        a, a_row, a_col = operand(a)
        width = COLUMNS * simd.VECTOR_BYTES // c.itemsize
        rows, columns = (8 * ROWS, n) if m > 8 * ROWS else (m, width)
        _multiply_direct(
            -(-m // rows) * -(-n // columns) if m and n else 0, 2 * m * n * k,
            a, a_row, a_col, b.reshape(-1), n, k, c.reshape(-1), m, n, rows, columns,
            _NO_BIAS[c.dtype] if bias is None else bias, CODES[activation],
        )  # fmt: skip
    else:
        _multiply(a, b, c, bias, activation, _pack_block, _multiply_panels)


# ---------------------------------------------------------------------------------------------------------------------
# bias and activation outside the tile


@jit
def add_bias_and_activate(c, m, n, bias, activation):
    step = lanes(c)
    for i in range(m):
        for j in range(0, n, step):
            z = vload_part(c, i * n + j, n - j)
            if bias.size > 0:
                z = z + vload_part(bias, j, n - j)
            if activation == RELU:
                z = select(z < 0.0, 0.0, z)
            vstore_part(c, i * n + j, z, n - j)
        if activation > RELU:
            activate(c, i * n, n, activation)


def _finish(c, bias, activation):
    if bias is not None or activation is not None:
        add_bias_and_activate(c.reshape(-1), *c.shape, _NO_BIAS[c.dtype] if bias is None else bias, CODES[activation])


@jit(inner=True)
def epilogue_backward(chunk, dy, y, dz, partial, m, n, rows, activation):
    """One chunk: `rows` rows of dz = dy f'(z), f' taken from y, and their sum in partial[chunk]."""
    step = lanes(dy)
    end = min(m, (chunk + 1) * rows)
    for j in range(0, n, step):
        count = n - j
        total = vload_part(partial, 0, 0)
        for i in range(chunk * rows, end):
            g = vload_part(dy, i * n + j, count)
            if activation != NONE:
                out = vload_part(y, i * n + j, count)
                if activation == RELU:
                    g = select(out == 0.0, 0.0, g)
                elif activation == SIGMOID:
                    g = g * (out * (1.0 - out))
                else:
                    g = g * fma(-out, out, 1.0)
                vstore_part(dz, i * n + j, g, count)
            total = total + g
        vstore_part(partial, chunk * n + j, total, count)


@jit
def add_rows(partial, chunks, n, total):
    """total[j] = partial[0, j] + partial[1, j] + ..., in this order."""
    step = lanes(total)
    for j in range(0, n, step):
        value = vload_part(partial, j, n - j)
        for chunk in range(1, chunks):
            value = value + vload_part(partial, chunk * n + j, n - j)
        vstore_part(total, j, value, n - j)


_epilogue_backward = threaded(epilogue_backward)


def dense_epilogue_backward(dy, y, activation):
    """(dz, db) for y = f(z + b): dz = dy f'(z), and db, the sum of dz's rows; dy and y are (M, N).

    With no activation dz is dy itself. Rows are cut into at most 16 chunks by their number alone, and the chunks'
    sums are added in order. Workspace: one row a chunk.
    """
    m, n = dy.shape
    dy, y = np.ascontiguousarray(dy), np.ascontiguousarray(y)
    rows = max(64, -(-m // 16))
    chunks = max(1, -(-m // rows))
    dz = dy if activation is None else np.empty_like(dy)
    db = np.empty(n, dy.dtype)
    partial = db if chunks == 1 else scratch("gemm.partial", chunks * n, dy.dtype)
    flat = dy.reshape(-1)
    _epilogue_backward(chunks, 4 * m * n, flat, y.reshape(-1), dz.reshape(-1), partial, m, n, rows, CODES[activation])
    if chunks > 1:
        add_rows(partial, chunks, n, db)
    return dz, db
