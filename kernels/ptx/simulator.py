"""The instructions in Numba's CUDA simulator, and what the simulator itself lacks.

Importing this teaches the simulator: warp shuffles, votes and `syncwarp`; `cuda.jit` options that it does not know;
`alignment=` of shared and local arrays. All lanes of a warp must reach a warp operation, as with a full mask.

It also gives it other threads. Its own are the operating system's, and whoever waits looks again and again whether the
others have come. Here each is a greenlet, which runs until it has to wait: a tenth of the time, always in the same
order, and threads that wait for ever are an error at once. What this order hides sanitizer.py looks for, to which all
accesses to memory are told.
"""

import math
import sys
from collections import deque
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from operator import index as as_index
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda.simulator import api, kernel, kernelapi
from numba.cuda.simulator.cudadrv import devicearray

from .sanitizer import ISSUED, READ, SIZE, UNDER_WAY, WAITED, WRITE, Hazard, watch

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


def _groups(name="copies"):
    """This thread's, of copies or products; the last one is open."""
    return getcurrent().__dict__.setdefault(name, [[]])


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
    _groups()[-1].append(copy)


def copy_async_commit():
    _groups().append([])


def copy_async_wait(groups):
    for copy in _arrived(_groups(), groups):
        copy.target[...] = copy.numbers
        getcurrent().unseen = True


def _arrived(waiting, groups):
    """All of the oldest groups, but for so many and the open one."""
    while len(waiting) - 1 > groups:
        for one in waiting.pop(0):
            watch.note_all(one.accesses, WAITED, one.site)
            yield one


def _note_under_way(thread):
    """What a thread has under way after a barrier or a syncwarp."""
    for one in chain(*thread.__dict__.get("copies", ()), *thread.__dict__.get("products", ())):
        watch.note_all(one.accesses, UNDER_WAY, one.site)


# Blocks and warps: their threads come together, each with a value, and receive those of all.


class _Meeting:
    def __init__(self):
        self.given = {}  # by the thread's number in the block

    @cached_property
    def values(self):
        """What all gave, in the threads' order."""
        return [self.given[number] for number in sorted(self.given)]


class _Block:
    """The threads of a block, of which one runs at a time."""

    unseen = False  # whether a thread was so at the last barrier

    def __init__(self, manager, place, args):
        points = sorted(np.ndindex(*manager._block_dim), key=lambda point: point[::-1])  # x runs fastest
        self.threads = [_Thread(self, number, place, point, manager._f, args) for number, point in enumerate(points)]
        self.living, self.ready = len(self.threads), deque(self.threads)
        self.meetings = {}  # those that wait for somebody: of the block (None), or of a group (its threads, number)
        watch.begin_block(place, math.prod(manager._grid_dim), args)

    def run(self):
        while self.ready:
            thread = self.ready.popleft()
            watch.go_on(thread)
            thread.switch()
            if thread.dead:
                self.living -= 1
                self._close(None)
        if self.living:
            raise RuntimeError(f"{self.living} of {len(self.threads)} threads wait for others, which went another way")
        watch.end_interval()

    def meet(self, group, value):
        """The meeting of a group, when all have come; the threads that have ended count for a block as if they had."""
        meeting = self.meetings.setdefault(group, _Meeting())
        thread = getcurrent()
        meeting.given[thread.thread_id] = value
        self._close(group)
        thread.parent.switch()
        return meeting

    def _close(self, group):
        meeting = self.meetings.get(group)
        members = self.living if group is None else min(group[0], len(self.threads) - group[0] * group[1])
        if meeting is not None and len(meeting.given) == members:
            del self.meetings[group]
            self.ready.extend(self.threads[number] for number in meeting.given)
            if group is None:
                self._next_interval()

    def _next_interval(self):
        watch.end_interval()
        self.unseen = any(thread.unseen for thread in self.threads)
        for thread in self.threads:
            if thread.__dict__.keys() & {"copies", "products"}:
                watch.go_on(thread)
                _note_under_way(thread)


class _Thread(greenlet):
    """What `threading.current_thread()` is to the simulator."""

    unseen = False  # whether it has put something into shared memory that products of warpgroups may not see
    fenced = False  # whether it may begin such a product

    def __init__(self, block, number, place, point, kernel_function, args):
        self.block, self.thread_id, self.syncwarps = block, number, 0
        self.blockIdx, self.threadIdx = kernel.Dim3(*place), kernel.Dim3(*point)
        super().__init__(lambda: self._run(kernel_function, args))

    def _run(self, kernel_function, args):
        try:
            kernel_function(*args)
        except Hazard:
            raise
        except Exception as error:
            watch.end_interval()  # a hazard before that would explain it
            where = f"tid={list(self.threadIdx)} ctaid={list(self.blockIdx)}"
            raise type(error)(f"{where}: {error}") from error

    def syncthreads(self):
        self.block.meet(None, None)

    def syncthreads_count(self, value):
        return sum(map(bool, self.block.meet(None, value).values))

    def syncthreads_and(self, value):
        return int(all(self.block.meet(None, value).values))

    def syncthreads_or(self, value):
        return int(any(self.block.meet(None, value).values))


def _meet_warp(value):
    thread = getcurrent()
    return thread.block.meet((32, thread.thread_id // 32), value), thread.thread_id % 32


def _exchange(value):
    """(what all lanes gave, this lane's number)"""
    meeting, lane = _meet_warp(value)
    return meeting.values, lane


def _together(value, compute):
    """(compute(what all lanes gave), this lane's number); one lane computes it for all."""
    meeting, lane = _meet_warp(value)
    if not hasattr(meeting, "computed"):
        meeting.computed = compute(meeting.values)
    return meeting.computed, lane


def _shuffle(source):
    def shuffle(mask, value, by):
        given, lane = _exchange(value)
        other = source(lane, by)
        return given[other] if 0 <= other < len(given) else value

    return shuffle


def _vote(decide):
    def vote(mask, predicate):
        given, _ = _exchange(bool(predicate))
        return decide([lane for lane in range(len(given)) if mask >> lane & 1], given)

    return vote


def _syncwarp(mask=0xFFFFFFFF):
    thread = getcurrent()
    thread.syncwarps += 1
    _meet_warp(None)
    _note_under_way(thread)


WARP_OPERATIONS = {
    "syncwarp": _syncwarp,
    "shfl_sync": _shuffle(lambda lane, by: by % 32),
    "shfl_up_sync": _shuffle(lambda lane, by: lane - by),
    "shfl_down_sync": _shuffle(lambda lane, by: lane + by),
    "shfl_xor_sync": _shuffle(lambda lane, by: lane ^ by),
    "all_sync": _vote(lambda lanes, given: all(given[lane] for lane in lanes)),
    "any_sync": _vote(lambda lanes, given: any(given[lane] for lane in lanes)),
    "ballot_sync": _vote(lambda lanes, given: sum(1 << lane for lane in lanes if given[lane])),
}


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
        found, lane = _together(flat[at : at + count], matrices)
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
        found, lane = _together((a, b), product)
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
    _groups("products")[-1].append(product)


def fence_async():
    getcurrent().unseen = False


def wgmma_fence():
    getcurrent().fenced = True


def wgmma_commit():
    getcurrent().fenced = False
    _groups("products").append([])


def wgmma_wait(groups):
    warp, lane = divmod(getcurrent().thread_id % WARPGROUP, 32)
    row, column = np.arange(2)[:, None] * 8 + 16 * warp + lane // 4, np.arange(2) + lane % 4 * 2
    for product in _arrived(_groups("products"), groups):
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


# What the simulator lacks.


def _teach():
    for name, operation in WARP_OPERATIONS.items():
        if not hasattr(kernelapi.FakeCUDAModule, name):
            setattr(kernelapi.FakeCUDAModule, name, staticmethod(operation))

    def jit(function=None, **options):
        for unknown in ("forceinline", "launch_bounds", "lineinfo", "max_registers"):
            options.pop(unknown, None)
        return plain_jit(function, **options)

    plain_jit, cuda.jit, api.jit = cuda.jit, jit, jit

    def local_array(self, shape, dtype, alignment=None):
        return plain_local(self, shape, dtype)

    def shared_array(self, shape, dtype, alignment=None):
        """One array for each place in the code: two on the same line would otherwise be the same one."""
        return watch.allocate(sys._getframe(1), shape, dtype, self._dynshared_size)

    def read(self, index):
        watch.note_plain(self, index, READ)
        return plain_read(self, index)

    def write(self, index, value):
        watch.note_plain(self, index, WRITE)
        plain_write(self, index, value)

    plain_local, array = kernelapi.FakeCUDALocal.array, devicearray.FakeWithinKernelCUDAArray
    plain_read, plain_write = array.__getitem__, array.__setitem__
    array.__getitem__, array.__setitem__ = read, write
    kernelapi.FakeCUDALocal.array, kernelapi.FakeCUDAShared.array = local_array, shared_array
    kernel.BlockManager.run = lambda manager, place, *args: _Block(manager, place, args).run()
    kernelapi.threading = SimpleNamespace(current_thread=getcurrent)
    kernel.FakeCUDAKernel.__call__ = _calls(kernel.FakeCUDAKernel.__call__)


def _calls(plain_call):
    """What it is to call a kernel, which launches it, or a device function."""
    modules, seen = ExitStack(), set()

    def call(self, *args):
        def launch():
            seen.clear()
            with modules:
                plain_call(self, *args)

        context = kernel._kernel_context
        if context is None:
            return plain_call(self, *args) if self._device else watch.launch(self.fn, args, launch)
        # Device functions see the simulator's `cuda` from their first call to the end of the launch: to change it for
        # each call takes longer than the call.
        module = self.fn.__globals__
        if id(module) not in seen:
            seen.add(id(module))
            modules.enter_context(kernelapi.swapped_cuda_module(self.fn, context))
        return self.fn(*args)

    return call


_teach()
