"""The register tiles of the rung "implicit": a block's part of C = A B, whose A each kernel gathers in its own way.

A block has 256 threads, side_y by side_x, and computes 8 * side_y rows and columns * side_x columns of C, 8 x columns
a thread, in groups of V neighbouring ones (V numbers are 16 bytes): 128 x 128, 128 x 64 or 256 x 32 numbers, of float64
128 x 64 or 128 x 32. Eight terms of the sums at a time lie in shared memory, as tile_a[term, row] and tile_b[term,
column]; of both there are two, one being read while the other is filled.
"""

from functools import cache

from numba import cuda, int32

from ...gemm.cuda import at_least, split
from ...ptx import load, load4, store, store4
from ...wide import vector_of

ROWS, DEPTH, THREADS = 8, 8, 256


def shapes(T):
    """(side_x, columns of a thread) of all tiles, the widest first."""
    return [(16, 8), (16, 4), (8, 4)] if T.bitwidth == 32 else [(16, 4), (16, 2)]


def shape_for(columns, T):
    """The widest tile of those that leave fewest columns unused."""
    return min(shapes(T), key=lambda shape: -(-columns // (shape[0] * shape[1])) * shape[0] * shape[1])


def resident(T):
    """Blocks that shall fit on a processor at once. Of float64 one: a multiply-add of these takes longer, so that fewer
    warps hide the way to memory, and with twice the registers nothing is spilled."""
    return 2 if T.bitwidth == 32 else 1


def sizes(T, side_x, columns):
    """(V, rows of a block, its columns, length of a row of tile_a)

    A row of tile_a is longer by one vector than it need be: what is turned on the way in goes to other banks.
    """
    V, block_rows = 128 // T.bitwidth, ROWS * THREADS // side_x
    return V, block_rows, columns * side_x, block_rows + V


@cache
def operations(T, side_x, columns, whole):
    """(place_b, fetch_b, put_b, multiply, write_row) for one tile. whole: rows of B and C are aligned vectors."""
    V, _, block_columns, wide = sizes(T, side_x, columns)
    vectors, groups, spread_x, spread_y = block_columns // V, columns // V, side_x * V, THREADS // side_x * V
    vector = vector_of(V)

    @cuda.jit(device=True, forceinline=True)
    def place_b(columns_left):
        """(row of this thread's vector in B's tile, its first column, columns from there to the matrix's end)"""
        row, vector = split(cuda.threadIdx.x, vectors)
        col = int32(vector * V)
        # The narrow tiles have fewer vectors than threads.
        return row, col, int32(columns_left - col) if row < DEPTH else int32(0)

    @cuda.jit(device=True, forceinline=True)
    def fetch_b(memory, at, columns_left, inside, ahead):
        """This thread's vector, from memory[at] on, into registers; zeros beyond the matrix."""
        for v in range(V):
            ahead[v] = T(0)
        if inside:
            if whole:
                if columns_left > 0:
                    numbers = load4(memory, at)
                    for v in range(V):
                        ahead[v] = numbers[v]
            else:
                for v in range(V):
                    if v < columns_left:
                        ahead[v] = load(memory, at + v)

    @cuda.jit(device=True, forceinline=True)
    def put_b(tile, start, ahead):
        if cuda.threadIdx.x < DEPTH * vectors:
            store4(tile, int32(start + cuda.threadIdx.x * V), vector(ahead, 0))

    @cuda.jit(device=True, forceinline=True)
    def multiply_term(tile_a, from_a, tile_b, from_b, right, acc):
        for g in range(groups):
            numbers = load4(tile_b, from_b + g * spread_x)
            for v in range(V):
                right[g * V + v] = numbers[v]
        for g in range(ROWS // V):
            numbers = load4(tile_a, from_a + g * spread_y)
            for v in range(V):
                for j in range(columns):
                    acc[(g * V + v) * columns + j] += numbers[v] * right[j]

    @cuda.jit(device=True, forceinline=True)
    def multiply(tile_a, a, tile_b, b, right, acc):
        """acc += tile_a tile_b, from the thread's places a and b on. LLVM does not unroll such a loop by itself."""
        multiply_term(tile_a, a, tile_b, b, right, acc)
        multiply_term(tile_a, a + wide, tile_b, b + block_columns, right, acc)
        multiply_term(tile_a, a + 2 * wide, tile_b, b + 2 * block_columns, right, acc)
        multiply_term(tile_a, a + 3 * wide, tile_b, b + 3 * block_columns, right, acc)
        multiply_term(tile_a, a + 4 * wide, tile_b, b + 4 * block_columns, right, acc)
        multiply_term(tile_a, a + 5 * wide, tile_b, b + 5 * block_columns, right, acc)
        multiply_term(tile_a, a + 6 * wide, tile_b, b + 6 * block_columns, right, acc)
        multiply_term(tile_a, a + 7 * wide, tile_b, b + 7 * block_columns, right, acc)

    @cuda.jit(device=True, forceinline=True)
    def write_row(memory, at, columns_left, acc, i, floor):
        """Row i of the thread's results from memory[at] on."""
        for g in range(groups):
            for v in range(V):
                acc[i * columns + g * V + v] = at_least(acc[i * columns + g * V + v], floor)
            if whole:
                if g * spread_x < columns_left:
                    store4(memory, at + g * spread_x, vector(acc, i * columns + g * V))
            else:
                for v in range(V):
                    if g * spread_x + v < columns_left:
                        store(memory, at + g * spread_x + v, acc[i * columns + g * V + v])

    return place_b, fetch_b, put_b, multiply, write_row
