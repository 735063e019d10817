"""What Numba's CUDA simulator lacks: threads that are fast and come together, warp operations, options of `cuda.jit`.

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
from types import SimpleNamespace

import numpy as np
from greenlet import getcurrent, greenlet
from numba import cuda
from numba.cuda.simulator import api, kernel, kernelapi
from numba.cuda.simulator.cudadrv import devicearray

from .sanitizer import READ, UNDER_WAY, WAITED, WRITE, Hazard, watch

# What a thread does asynchronously: copies and products, in groups, until it waits for them.


def groups_of(kind):
    """This thread's, of "copies" or "products"; the last one is open."""
    return getcurrent().__dict__.setdefault(kind, [[]])


def arrived(waiting, groups):
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


def together(value, compute):
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
