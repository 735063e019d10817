"""The launchers: from arrays with any strides to flat pointers, the right kernel, and how the work is cut."""

import math
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numba import float32, float64, uint16

from ...arrays import address, is_contiguous, namespace
from ...launch import architecture_of, element_of
from . import warpgroups
from .epilogue import CODES, activate, add_up
from .fragments import BLOCK, SHARED_BYTES
from .simple import TILE, naive, shared
from .tensor_cores import tensor
from .tiles import LARGE, SMALL, block_of, registers, vectors

# What the rungs multiply: bfloat16 goes to kernels as its bits.
PLAIN, FOR_TENSOR_CORES, FOR_WARPGROUPS = (float32, float64), (float32, uint16), (uint16,)

# ---------------------------------------------------------------------------------------------------------------------
# How the work is cut, by the sizes alone: sums are the same on every GPU.

# Blocks that keep a large GPU busy: it has some 130 processors, of which each takes two large ones at once. A C of
# fewer, or one that would leave them half empty, is computed in small blocks, and where these are fewer than twice as
# many, its sums are cut into parts.
BLOCKS = 256
# A part has no less than so many terms, and a multiple of GRAIN: whole tiles of every rung.
FEWEST, GRAIN = 128, 32
# Products of a launch: what CUDA allows along the second axis of a grid.
MOST = 65535


class Cut(NamedTuple):
    side: int  # of a block's threads
    parts: int  # of the sums
    share: int  # terms in each part


def tiles_of(m, n, rows, columns):
    return -(-m // rows) * -(-n // columns)


@lru_cache(4096)
def cut_of(m, n, k, T, count=1):
    """The Cut of `count` products of (M, K) and (K, N) that are launched together, in register tiles."""
    large, small = (count * tiles_of(m, n, *block_of(T, side)) for side in (LARGE, SMALL))
    if large >= BLOCKS and 3 * large <= small:
        return Cut(LARGE, 1, k)
    return Cut(SMALL, *((1, k) if count > 1 else shares(k, small, 2 * BLOCKS)))


def shares(k, blocks, room=BLOCKS):
    """(parts, terms of each) for sums over k terms in a result of so many blocks, where there is room for more."""
    parts = max(min(room // max(blocks, 1), k // FEWEST), 1)
    share = share_of(k, parts)
    return -(-k // share) if k else 1, share


def share_of(k, parts):
    """Terms of each of so many parts; the last may have fewer, or none."""
    return k if parts == 1 else -(-k // (parts * GRAIN)) * GRAIN


# ---------------------------------------------------------------------------------------------------------------------
# Operands


class Operand(NamedTuple):
    """One matrix, or a stack of them, in memory."""

    array: object
    row: int  # strides
    column: int
    apart: int  # from one matrix to the next; 0 where there is one

    @property
    def stride(self):
        """From row to row or, where numbers lie by columns, from column to column."""
        return max(self.row, self.column)


def settled(x):
    """An array whose matrices are contiguous in one orientation: itself, or a copy."""
    if is_contiguous(x) or is_contiguous(x.swapaxes(-1, -2)):
        return x
    return namespace(x).ascontiguousarray(x)


def operand(x):
    """The Operand of an array; copied if its matrices are contiguous in neither orientation."""
    x, (rows, columns) = settled(x), x.shape[-2:]
    apart = rows * columns if x.ndim > 2 else 0
    if is_contiguous(x):
        return Operand(x, columns, 1, apart)
    return Operand(x.swapaxes(-1, -2), 1, rows, apart)


def in_vectors(x, copy=False):
    """The Operand of an array whose rows, or columns, start on whole 16 bytes, and None of another one; with `copy` one
    with longer rows."""
    found, size = operand(x), x.itemsize
    if x.size == 0 or (found.stride * size % 16 == 0 == address(found.array) % 16):
        return found
    if not copy:
        return None
    turned = found.row == 1 < found.column
    rows, step = x.swapaxes(-1, -2) if turned else x, 16 // size
    *front, length = rows.shape
    pitch = -(-length // step) * step
    longer = namespace(x).zeros((*front, pitch), x.dtype)
    longer[..., :length] = rows
    apart = front[-1] * pitch if x.ndim > 2 else 0
    return Operand(longer, *((1, pitch) if turned else (pitch, 1)), apart)


def both_in_vectors(a, b):
    """Two Operands; None where `in_vectors` has none of one of them."""
    left = in_vectors(a)
    right = None if left is None else in_vectors(b)
    return None if right is None else (left, right)


def in_chunks(c):
    """Whether the rows of a C-contiguous array start on whole 16 bytes."""
    return c.shape[-1] * c.itemsize % 16 == 0 and address(c) % 16 == 0


# ---------------------------------------------------------------------------------------------------------------------
# Launchers


def _element(variant, c, elements):
    """The type of C's numbers, which must be one that the variant multiplies."""
    if (T := element_of(c)) in elements:
        return T
    if elements is PLAIN:
        rule = "must be 'tensor' or 'warpgroup', those for bfloat16"
    elif elements is FOR_WARPGROUPS:
        rule = "takes bfloat16; 'tensor' takes float32 too, as TF32, and the others float32 and float64"
    else:
        rule = "takes float32, as TF32, and bfloat16; 'naive', 'shared', 'registers' and 'vectors' take float64"
    raise ValueError(f"matmul: variant is '{variant}' and the arrays are {c.dtype}: {rule}")


def _plain(multiply, grid, left, right, c, *sizes, bias, activation):
    """Launch a kernel that knows no activation but ReLU, and then the activation. `left` and `right` are what it takes
    of the operands, the arrays first."""
    some = left[0] if bias is None else bias
    floor = 0.0 if activation == "relu" else -math.inf
    multiply(grid, *left, *right, c, some, *sizes, bias is not None, floor)
    if activation in ("sigmoid", "tanh"):
        activate(element_of(c))((-(-c.size // 256),), c, c.size, CODES[activation])


def gemm_naive(a, b, c, bias=None, activation=None):
    T, (m, n) = _element("naive", c, PLAIN), c.shape
    operands = operand(a)[:3], operand(b)[:3]
    _plain(naive(T), (-(-m * n // 256),), *operands, c, m, n, a.shape[1], bias=bias, activation=activation)


def gemm_shared(a, b, c, bias=None, activation=None):
    T, (m, n) = _element("shared", c, PLAIN), c.shape
    operands = operand(a)[:3], operand(b)[:3]
    _plain(shared(T), (tiles_of(m, n, TILE, TILE),), *operands, c, m, n, a.shape[1], bias=bias, activation=activation)


def _batches(launch):
    """Gives a launcher its `stack`, which computes a batch at once and says whether it does: an operand must have as
    many matrices as the batch, or one for all of it."""

    def stack(a, b, c):
        batch, operands = c.shape[:-2], []
        count = math.prod(batch)
        for x in (a, b):
            if x.shape[:-2] != batch and math.prod(x.shape[:-2]) != 1:
                return False
            operands.append(x.reshape(*((count,) if x.shape[:-2] == batch else ()), *x.shape[-2:]))
        c = c.reshape(count, *c.shape[-2:])
        for first in range(0, count, MOST):
            some = slice(first, first + MOST)
            launch(*(x if x.ndim == 2 else x[some] for x in operands), c[some])
        return True

    launch.stack = stack
    return launch


def _count(c):
    """Products that C is made of."""
    return c.shape[0] if c.ndim > 2 else 1


def _stack(multiply, cut, left, right, c, k, bias, activation):
    """C by multiply(left, right, results, terms, share, bias, activation), which computes a stack of products: all of a
    batch, or the shares of one, which are then added up."""
    if cut.parts == 1:
        terms = k * _count(c)  # so many that each product has its share
        multiply(left, right, c, terms, k, bias, activation)
    else:
        left = left._replace(apart=cut.share * left.column)
        right = right._replace(apart=cut.share * right.row)
        partial = namespace(c).empty((cut.parts, *c.shape), np.float32 if element_of(c) is uint16 else c.dtype)
        multiply(left, right, partial, k, cut.share, None, None)
        add_up(partial, c, bias, activation)


def _in_tiles(make, take, left, right, c, k, bias, activation):
    """C from register tiles. make(T, side, results) gives the kernel, take(operand) what it takes of one."""
    T, (m, n), count = element_of(c), c.shape[-2:], _count(c)
    cut = cut_of(m, n, k, T, count)
    grid = tiles_of(m, n, *block_of(T, cut.side)), count * cut.parts

    def multiply(left, right, results, terms, share, bias, activation):
        kernel, operands = make(T, cut.side, results), (take(left), take(right))
        _plain(kernel, grid, *operands, results, m, n, terms, share, bias=bias, activation=activation)

    _stack(multiply, cut, left, right, c, k, bias, activation)


@_batches
def gemm_registers(a, b, c, bias=None, activation=None):
    _element("registers", c, PLAIN)
    _in_tiles(
        lambda T, side, results: registers(T, side), tuple, operand(a), operand(b), c, a.shape[-1], bias, activation
    )


@_batches
def gemm_vectors(a, b, c, bias=None, activation=None):
    """The one rung that does not suit every shape."""
    _element("vectors", c, PLAIN)
    operands = both_in_vectors(a, b)
    if operands is None:
        raise ValueError(
            f"matmul: variant is 'vectors', a is {a.shape} and b is {b.shape}: its rows must be whole 16 bytes; "
            "'naive', 'shared' and 'registers' take any"
        )
    _multiply_vectors(*operands, c, a.shape[-1], bias, activation)


def _multiply_vectors(left, right, c, k, bias, activation):
    def make(T, side, results):
        return vectors(T, left.column == 1, right.column == 1, side, in_chunks(results))

    _in_tiles(make, lambda x: (x.array, x.stride, x.apart), left, right, c, k, bias, activation)


def _on_tensor_cores(make, block, shared, a, b, c, bias, activation):
    """C in blocks of so many rows and columns, with so many bytes of shared memory. Any shape, since an operand that
    does not suit is copied. make(type of the results, whether A's terms run along its rows, B's along its columns)
    gives the kernel."""
    (m, n), k, count = c.shape[-2:], a.shape[-1], _count(c)
    tiles = tiles_of(m, n, *block)
    cut = Cut(LARGE, *((1, k) if count > 1 else shares(k, tiles)))

    def multiply(left, right, results, terms, share, bias, activation):
        make(element_of(results), left.column == 1, right.row == 1)(
            (tiles, count * cut.parts), left.array, left.stride, left.apart, right.array, right.stride, right.apart,
            results, left.array if bias is None else bias, m, n, terms, share, bias is not None,
            CODES[activation], in_chunks(results), shared=shared,
        )  # fmt: skip

    _stack(multiply, cut, in_vectors(a, copy=True), in_vectors(b, copy=True), c, k, bias, activation)


@_batches
def gemm_tensor(a, b, c, bias=None, activation=None):
    """float32 as TF32, or bfloat16."""
    E = _element("tensor", c, FOR_TENSOR_CORES)
    _on_tensor_cores(partial(tensor, E), (BLOCK, BLOCK), SHARED_BYTES, a, b, c, bias, activation)


@_batches
def gemm_warpgroup(a, b, c, bias=None, activation=None):
    """bfloat16, on GPUs of compute capability 9.0."""
    _element("warpgroup", c, FOR_WARPGROUPS)
    if (arch := architecture_of(c)) not in (None, warpgroups.ONLY):
        raise ValueError(
            f"matmul: variant is 'warpgroup' and the GPU is {arch}: must be {warpgroups.ONLY}, an H100 or H200; "
            "'tensor' runs on all"
        )
    block = warpgroups.ROWS, warpgroups.COLUMNS
    _on_tensor_cores(warpgroups.warpgroup, block, warpgroups.SHARED_BYTES, a, b, c, bias, activation)


def gemm_rule(a, b):
    """(The variant that `gemm_default` takes for these operands, why)."""
    if element_of(a) is uint16:
        return "tensor", "the default for bfloat16"
    if both_in_vectors(a, b) is not None:
        return "vectors", "the default where the rows of both operands are whole 16 bytes"
    return "registers", "the default where the rows of an operand are not whole 16 bytes"


@_batches
def gemm_default(a, b, c, bias=None, activation=None):
    """`tensor` for bfloat16; else `vectors` where it suits, else `registers`. TF32 is for those who ask for it."""
    if element_of(c) is uint16:
        gemm_tensor(a, b, c, bias, activation)
        return
    a, b = settled(a), settled(b)
    operands = both_in_vectors(a, b)
    if operands is None:
        gemm_registers(a, b, c, bias, activation)
    else:
        _multiply_vectors(*operands, c, a.shape[-1], bias, activation)
