"""The instructions in Numba's CUDA simulator, and what the simulator itself lacks.

Importing this teaches the simulator: warp shuffles, votes and `syncwarp`; `cuda.jit` options that it does not know;
`alignment=` of shared and local arrays. All lanes of a warp must reach a warp operation, as with a full mask.
"""

import math
import sys
import threading

import numpy as np
from numba import cuda
from numba.cuda.simulator import api, kernelapi

PATIENCE = 60.0  # seconds until lanes that wait for others give up: those went another way

_lock = threading.Lock()


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
    thread = threading.current_thread()
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


# Warps: every lane gives a value and receives those of all.


class _Warp:
    def __init__(self, lanes):
        self.barrier = threading.Barrier(lanes)
        self.given = [[None] * lanes, [None] * lanes]  # in turn, so that one barrier an exchange is enough
        self.turn = [0] * lanes
        self.computed = None


def _warp():
    thread = threading.current_thread()
    if not hasattr(thread, "warp"):
        manager, number = thread._manager, thread.thread_id // 32
        with _lock:
            warps = manager.__dict__.setdefault("warps", {})
            if number not in warps:
                warps[number] = _Warp(min(32, int(np.prod(manager._block_dim)) - 32 * number))
        thread.warp = warps[number]
    return thread.warp, thread.thread_id % 32


def _exchange(value):
    """(what all lanes gave, this lane's number)"""
    warp, lane = _warp()
    given = warp.given[warp.turn[lane]]
    warp.turn[lane] ^= 1
    given[lane] = value
    warp.barrier.wait(PATIENCE)
    return given, lane


def _together(value, compute):
    """(compute(what all lanes gave), this lane's number); one lane computes it for all."""
    warp, _ = _warp()
    given, lane = _exchange(value)
    if lane == 0:
        warp.computed = compute(given)
    warp.barrier.wait(PATIENCE)
    computed = warp.computed
    warp.barrier.wait(PATIENCE)  # nobody computes the next before all have taken this
    return computed, lane


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
        with _lock:
            if place not in self._allocations:
                self._allocations[place] = np.empty(shape, np.dtype(str(dtype)))
            return self._allocations[place]

    plain_local, plain_shared = kernelapi.FakeCUDALocal.array, kernelapi.FakeCUDAShared.array
    kernelapi.FakeCUDALocal.array, kernelapi.FakeCUDAShared.array = local_array, shared_array
    # The simulator's threads wait by looking again and again; the default slice of 5 ms makes barriers slow.
    sys.setswitchinterval(2e-4)


_teach()
