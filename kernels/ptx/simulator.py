"""The instructions in Numba's CUDA simulator, and what the simulator itself lacks.

Importing this teaches the simulator: warp shuffles, votes and `syncwarp`; `cuda.jit` options that it does not know;
`alignment=` of shared and local arrays. All lanes of a warp must reach a warp operation, as with a full mask.

It also gives it other threads. Its own are the operating system's, and whoever waits looks again and again whether the
others have come. Here each is a greenlet, which runs until it has to wait: a tenth of the time, always in the same
order, and threads that wait for ever are an error at once.
"""

import math
import sys
from collections import deque
from functools import cached_property
from types import SimpleNamespace

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda.simulator import api, kernel, kernelapi


def _flat(memory):
    """A shared array or an argument as a 1-D NumPy view."""
    memory = getattr(memory, "_item", memory)
    return np.asarray(getattr(memory, "_ary", memory)).reshape(-1)


def _place(memory, index, size):
    flat = _flat(memory)
    if index < 0 or index + size > flat.size:
        raise IndexError(f"access at {index} to {index + size} of {flat.size} numbers")
    return flat


def _place4(memory, index):
    """16 bytes: (flat view, how many numbers)."""
    size = 16 // _flat(memory).itemsize
    flat = _place(memory, index, size)
    if index % size:
        raise IndexError(f"16 bytes at {index}: not a multiple of {size}")
    return flat, size


def load(memory, index):
    return _place(memory, index, 1)[index]


def store(memory, index, value):
    _place(memory, index, 1)[index] = value


def load4(memory, index):
    flat, size = _place4(memory, index)
    return tuple(flat[index : index + size])


def store4(memory, index, values):
    flat, size = _place4(memory, index)
    flat[index : index + size] = values


def _function(compute):
    """A function of numbers that keeps their dtype and, as on a GPU, never raises."""

    def function(x):
        with np.errstate(all="ignore"):
            return compute(x)

    return function


exp, expm1, log, log1p, sqrt, tanh = map(_function, (np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.tanh))


def erf(x):
    return type(x)(math.erf(x))


def erfc(x):
    return type(x)(math.erfc(x))


# Asynchronous copies: what was copied arrives when it is waited for, as late as a GPU may be.


def _groups():
    thread = getcurrent()
    if not hasattr(thread, "copies"):
        thread.copies = [[]]  # the last group is open
    return thread.copies


def copy_async(shared, to, memory, index, count):
    size = 16 // _flat(memory).itemsize
    whole = count // _flat(memory).itemsize
    if index % size:
        raise IndexError(f"16 bytes from {index}: not a multiple of {size}")
    numbers = np.zeros(size, _flat(memory).dtype)
    if whole:
        numbers[:whole] = _place(memory, index, whole)[index : index + whole]
    _groups()[-1].append((shared, to, numbers))


def copy_async_commit():
    _groups().append([])


def copy_async_wait(groups):
    waiting = _groups()
    while len(waiting) - 1 > groups:
        for shared, to, numbers in waiting.pop(0):
            store4(shared, to, numbers)


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

    def __init__(self, manager, place, args):
        points = sorted(np.ndindex(*manager._block_dim), key=lambda point: point[::-1])  # x runs fastest
        self.threads = [_Thread(self, number, place, point, manager._f, args) for number, point in enumerate(points)]
        self.living, self.ready = len(self.threads), deque(self.threads)
        self.meetings = {}  # those that wait for somebody: "block", or a warp's number

    def run(self):
        while self.ready:
            thread = self.ready.popleft()
            thread.switch()
            if thread.dead:
                self.living -= 1
                self._close("block")
        if self.living:
            raise RuntimeError(f"{self.living} of {len(self.threads)} threads wait for others, which went another way")

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
        members = self.living if group == "block" else min(32, len(self.threads) - 32 * group)
        if meeting is not None and len(meeting.given) == members:
            del self.meetings[group]
            self.ready.extend(self.threads[number] for number in meeting.given)


class _Thread(greenlet):
    """What `threading.current_thread()` is to the simulator."""

    def __init__(self, block, number, place, point, kernel_function, args):
        self.block, self.thread_id = block, number
        self.blockIdx, self.threadIdx = kernel.Dim3(*place), kernel.Dim3(*point)
        super().__init__(lambda: self._run(kernel_function, args))

    def _run(self, kernel_function, args):
        try:
            kernel_function(*args)
        except Exception as error:
            where = f"tid={list(self.threadIdx)} ctaid={list(self.blockIdx)}"
            raise type(error)(f"{where}: {error}") from error

    def syncthreads(self):
        self.block.meet("block", None)

    def syncthreads_count(self, value):
        return sum(map(bool, self.block.meet("block", value).values))

    def syncthreads_and(self, value):
        return int(all(self.block.meet("block", value).values))

    def syncthreads_or(self, value):
        return int(any(self.block.meet("block", value).values))


def _meet_warp(value):
    thread = getcurrent()
    return thread.block.meet(thread.thread_id // 32, value), thread.thread_id % 32


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


WARP_OPERATIONS = {
    "syncwarp": lambda mask=0xFFFFFFFF: _exchange(None) and None,
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
            rows = [flat[i : i + 16 // flat.itemsize].view(np.uint16) for flat, i in given[first : first + 8]]
            matrix = np.stack(rows)
            matrix = np.ascontiguousarray(matrix.T) if transposed else matrix
            found.append(matrix.view(np.uint32).reshape(-1))  # lane l gets row l // 4, pair l % 4
        return found

    def ldmatrix(shared, index):
        flat, _ = _place4(shared, index)
        found, lane = _together((flat, int(index)), matrices)
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
        for unknown in ("launch_bounds", "lineinfo", "max_registers"):
            options.pop(unknown, None)
        return plain_jit(function, **options)

    plain_jit, cuda.jit, api.jit = cuda.jit, jit, jit

    def local_array(self, shape, dtype, alignment=None):
        return plain_local(self, shape, dtype)

    def shared_array(self, shape, dtype, alignment=None):
        """One array for each place in the code: two on the same line would otherwise be the same one."""
        if shape == 0:
            return plain_shared(self, shape, dtype)
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lasti
        if place not in self._allocations:
            self._allocations[place] = np.empty(shape, np.dtype(str(dtype)))
        return self._allocations[place]

    plain_local, plain_shared = kernelapi.FakeCUDALocal.array, kernelapi.FakeCUDAShared.array
    kernelapi.FakeCUDALocal.array, kernelapi.FakeCUDAShared.array = local_array, shared_array
    kernel.BlockManager.run = lambda manager, place, *args: _Block(manager, place, args).run()
    kernelapi.threading = SimpleNamespace(current_thread=getcurrent)


_teach()
