"""The rungs with register tiles: a thread computes 8 x 8 elements of C.

A block has `side` x `side` threads: 16, or 8 where C is so small that larger blocks would leave processors idle.

One launch computes a stack of products. Number z of them starts z times `apart` further on in A and in B, adds up the
terms z * share to (z + 1) * share, as far as there are k, and is the z-th matrix of C. So a batch is one launch, and so
is one product whose sums are cut into shares, to be added up afterwards. Blocks are numbered along x, products along y.
"""

from functools import cache

from numba import cuda, int32, int64, uint32

from ...launch import kernel, pointer
from ...ptx import load, load4, store, store4
from ...wide import vector_of
from .epilogue import at_least

# Each thread computes ROWS x COLUMNS elements of C. Of float64, half as many columns fill as many registers.
ROWS = 8
LARGE, SMALL = 16, 8  # sides of a block
DEPTH = 8  # terms of a tile of `vectors`, and what shares of the terms are multiples of
NEVER = 0x7FFFFFFF


def block_of(T, side):
    """(rows, columns) of C that a block computes."""
    return ROWS * side, 256 // T.bitwidth * side


def resident(T, side):
    """Blocks that shall fit on a processor at once: large ones with 128 registers a thread. Threads of small ones bring
    twice as much of the tiles and have more, and of float64 as many as they want."""
    if T.bitwidth == 32:
        return 2 if side == LARGE else 6
    return 1 if side == LARGE else 4


@cuda.jit(device=True, forceinline=True)
def split(number, by):
    """(number // by, number % by) of 32-bit numbers that are not negative."""
    quotient = int32(uint32(number) // uint32(by))
    return quotient, int32(number - quotient * by)


@cuda.jit(device=True, forceinline=True)
def tile_of(block, n, rows, columns):
    """(first row, first column) of the tile of C that a block computes."""
    across = int32((n + columns - 1) // columns)
    return int32(block // across * rows), int32(block % across * columns)


@cuda.jit(device=True, forceinline=True)
def terms_of(number, k, share):
    """How many of the k terms belong to a product of the stack."""
    return int32(min(int64(share), k - number * share))


@cache
def registers(T, side):
    columns = 256 // T.bitwidth
    block_rows, block_columns = block_of(T, side)
    depth, accumulators = side, ROWS * columns
    # Rows of the tiles in shared memory, longer so that `side` terms of a row or column go to different banks.
    longer = 1024 // T.bitwidth // side
    wide_a, wide_b = block_rows + longer, block_columns + longer
    size_a, size_b = depth * wide_a, depth * wide_b

    @kernel(threads=side * side, blocks=resident(T, side))
    def multiply_registers(
        a: pointer(T), a_row: int64, a_col: int64, a_apart: int64, b: pointer(T), b_row: int64, b_col: int64,
        b_apart: int64, c: pointer(T), bias: pointer(T), m: int32, n: int32, k: int64, share: int32, has_bias: int32,
        floor: T,
    ):  # fmt: skip
        """One block: 128 x 128 elements of C (128 x 64 of float64), or a quarter of them; one thread: rows y,
        y + side ... and columns x, x + side ... of them, in registers. 16 KB of shared memory (24 with float64), or a
        quarter.

        Why it is faster: for each k a thread reads 16 numbers of shared memory for 64 multiply-adds, not 2 for one.
        Neighbouring threads read neighbouring columns: no bank of shared memory is asked twice at once. And they bring
        neighbours in memory, terms or rows (for B columns), whichever way an operand lies.
        """
        tile_a = cuda.shared.array(size_a, T)  # [k, row]
        tile_b = cuda.shared.array(size_b, T)  # [k, column]
        acc = cuda.local.array(accumulators, T)
        left = cuda.local.array(ROWS, T)
        right = cuda.local.array(columns, T)
        thread = cuda.threadIdx.x
        y, x = thread // side, thread % side
        row0, col0 = tile_of(cuda.blockIdx.x, n, block_rows, block_columns)
        number = int64(cuda.blockIdx.y)
        terms = terms_of(number, k, share)
        from_a, from_b, to = number * a_apart, number * b_apart, number * m * n
        p_a, y_a = (x, y) if a_col == 1 else (y, x)
        p_b, x_b = (x, y) if b_row == 1 else (y, x)
        for j in range(columns):
            start, col = T(0), col0 + x + j * side
            if has_bias and col < n:
                start = load(bias, col)
            for i in range(ROWS):
                acc[i * columns + j] = start
        for k0 in range(0, terms, depth):
            for i in range(ROWS):
                p, row = k0 + p_a, row0 + y_a + i * side
                value = T(0)
                if row < m and p < terms:
                    value = load(a, from_a + row * a_row + p * a_col)
                store(tile_a, p_a * wide_a + y_a + i * side, value)
            for j in range(columns):
                p, col = k0 + p_b, col0 + x_b + j * side
                value = T(0)
                if col < n and p < terms:
                    value = load(b, from_b + p * b_row + col * b_col)
                store(tile_b, p_b * wide_b + x_b + j * side, value)
            cuda.syncthreads()
            for p in range(depth):
                for i in range(ROWS):
                    left[i] = load(tile_a, p * wide_a + y + i * side)
                for j in range(columns):
                    right[j] = load(tile_b, p * wide_b + x + j * side)
                for i in range(ROWS):
                    for j in range(columns):
                        acc[i * columns + j] += left[i] * right[j]
            cuda.syncthreads()
        for i in range(ROWS):
            for j in range(columns):
                row, col = row0 + y + i * side, col0 + x + j * side
                if row < m and col < n:
                    store(c, to + int64(row) * n + col, at_least(acc[i * columns + j], floor))

    return multiply_registers


@cache
def vectors(T, a_by_rows, b_by_rows, side, whole):
    """The kernel for A and B that each lie in memory by rows, or by columns. whole: C's rows start on 16 bytes."""
    V = 128 // T.bitwidth  # numbers in 16 bytes
    columns, depth, threads = 256 // T.bitwidth, DEPTH, side * side
    block_rows, block_columns = block_of(T, side)
    accumulators = ROWS * columns
    # Rows of the tiles in shared memory, longer by one vector: what is turned on the way in goes to other banks.
    wide_a, wide_b = block_rows + V, block_columns + V
    size_a, size_b = depth * wide_a, depth * wide_b
    both_a, both_b = 2 * size_a, 2 * size_b
    # Vectors of a tile that each thread brings, and the numbers in them.
    fetches_a, fetches_b = depth * block_rows // (V * threads), depth * block_columns // (V * threads)
    numbers_a, numbers_b = fetches_a * V, fetches_b * V
    turned_a, turned_b = a_by_rows, not b_by_rows  # k runs along their rows, and shall run along columns
    vector = vector_of(V)

    @cuda.jit(device=True, forceinline=True)
    def place(f, block, turned):
        """Where vector f of this thread lies in a tile: (its k, its row or column)."""
        if turned:
            outer, p = split(cuda.threadIdx.x + f * threads, depth // V)
            return int32(p * V), outer
        p, outer = split(cuda.threadIdx.x + f * threads, block // V)
        return p, int32(outer * V)

    @cuda.jit(device=True, forceinline=True)
    def aim(start, stride, outer_left, block, turned, fetches, at, limit):
        """Where this thread's vectors of the first tile lie in memory, and how many terms must be left for each to be
        in the matrix. Rows are whole vectors, so that a vector lies in the matrix or beyond it."""
        for f in range(fetches):
            p, outer = place(f, block, turned)
            at[f] = start + (int64(outer) * stride + p if turned else int64(p) * stride + outer)
            limit[f] = p if outer < outer_left else int32(NEVER)

    @cuda.jit(device=True, forceinline=True)
    def fetch(memory, at, step, limit, k_left, fetches, numbers):
        """This thread's vectors of a tile, into registers, and on to the next; zeros beyond the matrix."""
        for f in range(fetches):
            if limit[f] < k_left:
                vector = load4(memory, at[f])
                for v in range(V):
                    numbers[f * V + v] = vector[v]
            else:
                for v in range(V):
                    numbers[f * V + v] = T(0)
            at[f] += step

    @cuda.jit(device=True, forceinline=True)
    def put(tile, start, wide, block, turned, fetches, numbers):
        """What `fetch` brought, to shared memory: tile[start + k * wide + row or column]."""
        for f in range(fetches):
            p, outer = place(f, block, turned)
            if turned:
                for v in range(V):
                    store(tile, start + (p + v) * wide + outer, numbers[f * V + v])
            else:
                store4(tile, start + p * wide + outer, vector(numbers, f * V))

    @cuda.jit(device=True, forceinline=True)
    def multiply_step(tile_a, from_a, tile_b, from_b, right, acc):
        """acc += one column of A's tile times one row of B's."""
        for g in range(columns // V):
            vector = load4(tile_b, from_b + g * side * V)
            for v in range(V):
                right[g * V + v] = vector[v]
        for g in range(ROWS // V):
            vector = load4(tile_a, from_a + g * side * V)
            for v in range(V):
                for j in range(columns):
                    acc[(g * V + v) * columns + j] += vector[v] * right[j]

    @cuda.jit(device=True, forceinline=True)
    def write(c, to, rows_left, cols_left, n, acc, first, floor):
        """Half of a thread's rows: not every LLVM unrolls a loop over all of them."""
        for i in range(first, first + ROWS // 2):
            row = i // V * side * V + i % V
            for j in range(0, columns, V):
                col, t = j * side, i * columns + j
                if row < rows_left and col < cols_left:
                    at = to + int64(row) * n + col
                    for v in range(V):
                        acc[t + v] = at_least(acc[t + v], floor)
                    if whole:
                        store4(c, at, vector(acc, t))
                    else:
                        for v in range(V):
                            if col + v < cols_left:
                                store(c, at + v, acc[t + v])

    @kernel(threads=threads, blocks=resident(T, side))
    def multiply_vectors(
        a: pointer(T), a_stride: int64, a_apart: int64, b: pointer(T), b_stride: int64, b_apart: int64, c: pointer(T),
        bias: pointer(T), m: int32, n: int32, k: int64, share: int32, has_bias: int32, floor: T,
    ):  # fmt: skip
        """One block: 128 x 128 elements of C (128 x 64 of float64), or a quarter of them; one thread: 8 x 8 (8 x 4), in
        groups of V neighbouring rows and columns. 17 KB of shared memory (25 with float64), or half of that.

        Why it is faster: a quarter of the loads; and while one pair of tiles is multiplied, the next is on its way
        from memory into registers, to be put into the other pair, so that one barrier a tile is enough.
        """
        tile_a = cuda.shared.array(both_a, T, alignment=16)
        tile_b = cuda.shared.array(both_b, T, alignment=16)
        acc = cuda.local.array(accumulators, T)
        right = cuda.local.array(columns, T)
        at_a, limit_a = cuda.local.array(fetches_a, int64), cuda.local.array(fetches_a, int32)
        at_b, limit_b = cuda.local.array(fetches_b, int64), cuda.local.array(fetches_b, int32)
        ahead_a = cuda.local.array(numbers_a, T)
        ahead_b = cuda.local.array(numbers_b, T)
        y, x = split(cuda.threadIdx.x, side)
        y, x = int32(y * V), int32(x * V)
        row0, col0 = tile_of(cuda.blockIdx.x, n, block_rows, block_columns)
        number = int64(cuda.blockIdx.y)
        terms = terms_of(number, k, share)
        begin_a, begin_b = number * a_apart + row0, number * b_apart + col0
        step_a, step_b = int64(depth) * a_stride, int64(depth) * b_stride
        if turned_a:
            begin_a, step_a = number * a_apart + int64(row0) * a_stride, int64(depth)
        if turned_b:
            begin_b, step_b = number * b_apart + int64(col0) * b_stride, int64(depth)
        for j in range(columns):
            start, col = T(0), col0 + j // V * side * V + x + j % V
            if has_bias and col < n:
                start = load(bias, col)
            for i in range(ROWS):
                acc[i * columns + j] = start
        aim(begin_a, a_stride, m - row0, block_rows, turned_a, fetches_a, at_a, limit_a)
        aim(begin_b, b_stride, n - col0, block_columns, turned_b, fetches_b, at_b, limit_b)
        fetch(a, at_a, step_a, limit_a, terms, fetches_a, ahead_a)
        fetch(b, at_b, step_b, limit_b, terms, fetches_b, ahead_b)
        put(tile_a, 0, wide_a, block_rows, turned_a, fetches_a, ahead_a)
        put(tile_b, 0, wide_b, block_columns, turned_b, fetches_b, ahead_b)
        cuda.syncthreads()
        now = int32(0)  # which pair is read
        for k_left in range(int32(terms - depth), int32(-depth), int32(-depth)):
            if k_left > 0:
                fetch(a, at_a, step_a, limit_a, k_left, fetches_a, ahead_a)
                fetch(b, at_b, step_b, limit_b, k_left, fetches_b, ahead_b)
            # LLVM does not unroll a loop over 64 multiply-adds by itself.
            from_a, from_b = now * size_a + y, now * size_b + x
            multiply_step(tile_a, from_a, tile_b, from_b, right, acc)
            multiply_step(tile_a, from_a + wide_a, tile_b, from_b + wide_b, right, acc)
            multiply_step(tile_a, from_a + 2 * wide_a, tile_b, from_b + 2 * wide_b, right, acc)
            multiply_step(tile_a, from_a + 3 * wide_a, tile_b, from_b + 3 * wide_b, right, acc)
            multiply_step(tile_a, from_a + 4 * wide_a, tile_b, from_b + 4 * wide_b, right, acc)
            multiply_step(tile_a, from_a + 5 * wide_a, tile_b, from_b + 5 * wide_b, right, acc)
            multiply_step(tile_a, from_a + 6 * wide_a, tile_b, from_b + 6 * wide_b, right, acc)
            multiply_step(tile_a, from_a + 7 * wide_a, tile_b, from_b + 7 * wide_b, right, acc)
            now = 1 - now
            if k_left > 0:
                put(tile_a, now * size_a, wide_a, block_rows, turned_a, fetches_a, ahead_a)
                put(tile_b, now * size_b, wide_b, block_columns, turned_b, fetches_b, ahead_b)
                cuda.syncthreads()
        to = (int64(cuda.blockIdx.y) * m + row0 + y) * n + col0 + x
        for half in range(0, ROWS, ROWS // 2):
            write(c, to, m - row0 - y, n - col0 - x, n, acc, half, floor)

    return multiply_vectors
