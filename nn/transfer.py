"""Batches on their way to a GPU: one ahead, over page-locked memory, by a stream of their own.

    host      gather 1 | gather 2 | launch step 1 | gather 3 | wait for loss 1 | launch step 2 | gather 4 | ...
    copies             | copy 1   | copy 2        |          | copy 3                          |          | copy 4
    GPU                           | step 1 .................................. | step 2 ...

Memory that the system may move has to be copied twice on its way to a GPU, and the copy waits for it; from page-locked
memory the GPU fetches it by itself, while it computes. (Not yet run on a GPU.)
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from . import gpu
from .devices import on_cpu


def on_device_of(model, batches):
    """The batches' pairs (x, y), on a GPU already where the model is on one and they are NumPy arrays."""
    if on_cpu(model) or gpu.simulated() or type(batches.x) is not np.ndarray:
        return batches
    import cupy

    return Ahead(cupy, batches)


class Ahead:
    """Batches of NumPy arrays on a GPU, where there is room for two: one that is read, and the next."""

    def __init__(self, cupy, batches):
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._batches, self._number = batches, 0  # of the next one that is sent
        self._free = deque(_Slot(cupy, batches, self._copies) for _ in range(2))
        self._sent, self._read = deque(), None

    def __iter__(self):
        try:
            self.fetch()
            self.fetch()
            while self._sent:
                self._read = self._sent.popleft()
                yield self._read.receive()
                self.fetch()
        finally:
            self._copies.synchronize()  # who leaves early gives back memory into which batches are still copied

    def fetch(self):
        """Sends another batch, into the room of the one that was given out last. Who has launched all that reads that
        one may call this, and only then wait for the GPU; else it is done when the next one is asked for."""
        if self._read is not None:
            self._read.release()
            self._free.append(self._read)
            self._read = None
        if self._free and self._number < len(self._batches):
            slot = self._free.popleft()
            slot.send(self._batches, self._number)
            self._sent.append(slot)
            self._number += 1


class _Slot:
    """Room for one batch: page-locked on the host, and on the GPU."""

    def __init__(self, cupy, batches, copies):
        self.cupy, self.copies = cupy, copies
        self.arrays = []  # (page-locked, on the GPU), for x and for y
        for array in (batches.x, batches.y):
            if array is not None:
                shape = (batches.batch_size, *array.shape[1:])
                self.arrays.append((_page_locked(cupy, shape, array.dtype), cupy.empty(shape, array.dtype)))
        self.copied, self.used = cupy.cuda.Event(disable_timing=True), cupy.cuda.Event(disable_timing=True)
        self.used.record(cupy.cuda.get_current_stream())  # whoever had this memory before
        self.size = 0

    def send(self, batches, number):
        """Starts the copy, as soon as the step that last read from here is over; the host does not wait for it."""
        self.copied.synchronize()  # its previous one, two batches ago: the page-locked memory is free again
        self.copies.wait_event(self.used)
        self.size = batches.fill(number, [host for host, _ in self.arrays])
        for host, device in self.arrays:
            device[: self.size].set(host[: self.size], stream=self.copies)
        self.copied.record(self.copies)

    def receive(self):
        """The batch on the GPU; what is launched from now on waits for it."""
        self.cupy.cuda.get_current_stream().wait_event(self.copied)
        x, y = [device[: self.size] for _, device in self.arrays] + [None] * (2 - len(self.arrays))
        return x, y

    def release(self):
        """All that reads the batch has been launched."""
        self.used.record(self.cupy.cuda.get_current_stream())


def _page_locked(cupy, shape, dtype):
    memory = cupy.cuda.alloc_pinned_memory(math.prod(shape) * dtype.itemsize)
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)
