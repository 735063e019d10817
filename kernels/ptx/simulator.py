"""The instructions in Numba's CUDA simulator. Its blocks and warps are those of blocks.py."""

import math
from functools import cached_property
from operator import index as as_index
from typing import NamedTuple

import numpy as np
from greenlet import getcurrent

from .blocks import arrived, groups_of, together
from .sanitizer import ISSUED, SIZE, WRITE, watch

_views = watch.views
CHUNK_TO_PAIR = 1 << SIZE  # from an access of 16 bytes to one of 8


def _place4(memory, index):
    """16 bytes: (flat view, first number, how many, the access)."""
    _, flat, size, _, step, access = _views.get(id(memory)) or watch.look(memory)
    count = 16 // flat.itemsize
    at = _whole(index, count, size)
    return flat, at, count, access + at * step


def _whole(index, count, size):
    at = as_index(index)
    _check(at, count, size)
    if at % count:
        raise IndexError(f"{count} numbers at once from {index} on: not a multiple of {count}")
    return at


def _check(at, count, size):
    if at < 0 or at + count > size:
        raise IndexError(f"access at {at} to {at + count} of {size} numbers")


def load(memory, index):
    _, flat, size, access, step, _ = _views.get(id(memory)) or watch.look(memory)
    at = as_index(index)
    if not 0 <= at < size:
        _check(at, 1, size)
    watch.note(access + at * step)
    return flat[at]


def store(memory, index, value):
    _, flat, size, access, step, _ = _views.get(id(memory)) or watch.look(memory)
    at = as_index(index)
    if not 0 <= at < size:
        _check(at, 1, size)
    watch.note(access + at * step + WRITE)
    flat[at] = value


def store2(memory, index, values):
    _, flat, size, _, step, chunk = _views.get(id(memory)) or watch.look(memory)
    at = _whole(index, 2, size)
    watch.note(chunk - CHUNK_TO_PAIR + at * step + WRITE)
    flat[at : at + 2] = values


def load4(memory, index):
    flat, at, count, access = _place4(memory, index)
    watch.note(access)
    return tuple(flat[at : at + count])


def store4(memory, index, values):
    flat, at, count, access = _place4(memory, index)
    watch.note(access + WRITE)
    flat[at : at + count] = values


def _function(compute):
    """A function of numbers that keeps their dtype and, as on a GPU, never raises."""

    def function(x):
        with np.errstate(all="ignore"):
            return compute(x)

    return function


exp, expm1, log, log1p, sqrt, tanh = map(_function, (np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.tanh))


def larger(a, b):
    return a if a >= b or b != b else b


def erf(x):
    return type(x)(math.erf(x))


def erfc(x):
    return type(x)(math.erfc(x))


# Asynchronous copies: what was copied arrives when it is waited for, as late as a GPU may be.


class _Copy(NamedTuple):
    target: np.ndarray
    numbers: np.ndarray
    accesses: list
    site: str


def copy_async(shared, to, memory, index, count):
    _, flat, size, one, step, chunk = _views.get(id(memory)) or watch.look(memory)
    at, wide, whole = as_index(index), 16 // flat.itemsize, as_index(count) // flat.itemsize
    if at % wide:
        raise IndexError(f"{wide} numbers at once from {index} on: not a multiple of {wide}")
    numbers = np.zeros(wide, flat.dtype)
    if whole:
        _check(at, whole, size)
        numbers[:whole] = flat[at : at + whole]
    target, to, wide, write = _place4(shared, to)
    reads = [chunk + at * step] if whole == wide else range(one + at * step, one + (at + whole) * step, step)
    copy = _Copy(target[to : to + wide], numbers, [write + WRITE, *reads], watch.site())
    watch.note_all(copy.accesses, ISSUED, copy.site)
    groups_of("copies")[-1].append(copy)


def copy_async_commit():
    groups_of("copies").append([])


def copy_async_wait(groups):
    for copy in arrived(groups_of("copies"), groups):
        copy.target[...] = copy.numbers
        getcurrent().unseen = True


# Tensor cores. The layouts of the fragments: PTX ISA, "Matrix multiply-accumulate operation using mma instruction".


def _ldmatrix(transposed):
    def matrices(given):
        found = []
        for first in range(0, 32, 8):
            rows = [row.view(np.uint16) for row in given[first : first + 8]]
            matrix = np.stack(rows)
            matrix = np.ascontiguousarray(matrix.T) if transposed else matrix
            found.append(matrix.view(np.uint32).reshape(-1))  # lane l gets row l // 4, pair l % 4
        return found

    def ldmatrix(shared, index):
        flat, at, count, access = _place4(shared, index)
        watch.note(access)
        found, lane = together(flat[at : at + count], matrices)
        return tuple(matrix[lane] for matrix in found)

    return ldmatrix


ldmatrix_x4, ldmatrix_x4_transposed = _ldmatrix(False), _ldmatrix(True)

_GROUP, _IN_GROUP = np.arange(32) // 4, np.arange(32) % 4


def _fragments(given):
    return np.array([a for a, _ in given], np.uint32), np.array([b for _, b in given], np.uint32)


def _product_bf16(given):
    def halves(bits):
        pairs = np.stack([bits << 16, bits & 0xFFFF0000], axis=-1)  # lower half first
        return pairs.astype(np.uint32).view(np.float32)

    a, b = (halves(bits) for bits in _fragments(given))
    left, right = np.empty((16, 16), np.float32), np.empty((16, 8), np.float32)
    for half in (0, 1):
        column = 2 * _IN_GROUP + half
        left[_GROUP, column], left[_GROUP + 8, column] = a[:, 0, half], a[:, 1, half]
        left[_GROUP, column + 8], left[_GROUP + 8, column + 8] = a[:, 2, half], a[:, 3, half]
        right[column, _GROUP], right[column + 8, _GROUP] = b[:, 0, half], b[:, 1, half]
    return _sums(left, right)


def _product_tf32(given):
    # The hardware does not look at the lowest 13 bits.
    a, b = ((bits & 0xFFFFE000).astype(np.uint32).view(np.float32) for bits in _fragments(given))
    left, right = np.empty((16, 8), np.float32), np.empty((8, 8), np.float32)
    left[_GROUP, _IN_GROUP], left[_GROUP + 8, _IN_GROUP] = a[:, 0], a[:, 1]
    left[_GROUP, _IN_GROUP + 4], left[_GROUP + 8, _IN_GROUP + 4] = a[:, 2], a[:, 3]
    right[_IN_GROUP, _GROUP], right[_IN_GROUP + 4, _GROUP] = b[:, 0], b[:, 1]
    return _sums(left, right)


def _sums(left, right):
    with np.errstate(all="ignore"):
        return (left[:, :, None] * right[None]).sum(axis=1, dtype=np.float32)


def _mma(product):
    def mma(a, b, c):
        found, lane = together((a, b), product)
        row, column = lane // 4, lane % 4 * 2
        places = (row, column), (row, column + 1), (row + 8, column), (row + 8, column + 1)
        with np.errstate(all="ignore"):
            return tuple(found[place] + number for place, number in zip(places, c))

    return mma


mma_tf32, mma_bf16 = _mma(_product_tf32), _mma(_product_bf16)


# Products of warpgroups: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".

WARPGROUP, ROW_LENGTH, ROWS_OF_BLOCK = 128, 64, 64


class _Factors:
    """A and B of one instruction, whose product is made when it has to be there."""

    def __init__(self, flat, places, along):
        self.flat, self.places, self.along = flat, places, along

    @cached_property
    def product(self):
        left, right = (self._matrix(places, along) for places, along in zip(self.places, self.along))
        return _sums(left, right.T)

    def _matrix(self, places, along):
        """(Rows or columns, 16 terms), from chunks of 8 x 8 numbers, first by terms."""
        bits = self.flat[places[:, None] + np.arange(8)].reshape(-1, 2, 8, 8).astype(np.uint32) << 16
        order = (0, 2, 1, 3) if along else (0, 3, 1, 2)
        return bits.transpose(order).reshape(-1, 16).view(np.float32)


def _places(at, count, along):
    """Where the chunks of 16 terms of so many rows or columns lie: for each eight of these and each eight terms, eight
    lines of eight numbers."""
    if at % 512 not in ((0, 16, 32, 48) if along else (0,)):
        raise IndexError(f"an operand from {at} on: not a whole 16 terms within 64")
    eight, half, line = np.indices((count // 8, 2, 8))
    if along:
        place = (8 * eight + line) * ROW_LENGTH + 8 * half
    else:
        place = (eight // 8 * ROWS_OF_BLOCK + 8 * half + line) * ROW_LENGTH + eight % 8 * 8
    place += at
    return (place ^ (place // ROW_LENGTH % 8 * 8)).reshape(-1)


class _Product(NamedTuple):
    """A thread's part of one."""

    acc: np.ndarray
    factors: _Factors
    accesses: list
    site: str


def wgmma_bf16(acc, shared, a, b, a_along, b_along):
    _, flat, size, _, step, chunk = _views.get(id(shared)) or watch.look(shared)
    thread = getcurrent()
    if not thread.fenced:
        raise RuntimeError("a product of a warpgroup without wgmma_fence before its group")
    if thread.block.unseen:
        raise RuntimeError("a product of a warpgroup without fence_async between the wait for a copy and the barrier")
    places = _places(as_index(a), 64, a_along), _places(as_index(b), 256, b_along)
    for some in places:
        _check(int(some.min()), int(some.max() - some.min()) + 8, size)
    meeting = thread.block.meet((WARPGROUP, thread.thread_id // WARPGROUP), None)
    if not hasattr(meeting, "factors"):
        meeting.factors = _Factors(flat, places, (a_along, b_along))
    mine = np.concatenate([some[thread.thread_id % WARPGROUP :: WARPGROUP] for some in places]).tolist()
    product = _Product(acc, meeting.factors, [chunk + at * step for at in mine], watch.site())
    watch.note_all(product.accesses, ISSUED, product.site)
    groups_of("products")[-1].append(product)


def fence_async():
    getcurrent().unseen = False


def wgmma_fence():
    getcurrent().fenced = True


def wgmma_commit():
    getcurrent().fenced = False
    groups_of("products").append([])


def wgmma_wait(groups):
    warp, lane = divmod(getcurrent().thread_id % WARPGROUP, 32)
    row, column = np.arange(2)[:, None] * 8 + 16 * warp + lane // 4, np.arange(2) + lane % 4 * 2
    for product in arrived(groups_of("products"), groups):
        mine = product.factors.product[row, np.arange(0, 256, 8)[:, None, None] + column]
        with np.errstate(all="ignore"):
            product.acc[:] += mine.reshape(-1)


def multiply_high(a, b):
    return np.uint32(int(np.uint32(a)) * int(np.uint32(b)) >> 32)


def shift_right(a, b):
    return np.uint32(int(np.uint32(a)) >> int(b))


def to_tf32(x):
    if x != x:
        return np.uint32(0x7FFFFFFF)
    return np.uint32((int(np.float32(x).view(np.uint32)) + 0x1000) & 0xFFFFE000)


def to_bf16(x):
    if x != x:
        return np.uint16(0x7FFF)
    bits = int(np.float32(x).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def from_bf16(bits):
    return as_float(int(bits) << 16)


def as_float(bits):
    return np.uint32(bits).view(np.float32)
