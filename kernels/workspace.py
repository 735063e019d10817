"""Scratch memory that is kept between calls, and memory that starts on a cache line.

A fresh large array costs a page fault every 4 KB when it is first written, which can take longer than the kernel that
writes it. Each thread keeps one buffer a name and dtype, as large as the largest request so far.

NumPy's arrays start on 16 bytes. A vector of 64 that straddles two cache lines costs two accesses: a kernel that
mostly stores (a 1x1 convolution) gains a tenth from an output that starts on a line.
"""

import ctypes
import os
import threading

import numpy as np

LINE = 64  # bytes
SMALL = 4096  # elements
# Bytes that a last-level cache is taken to hold.
CACHES = 8 << 20
# Bytes from which an array always gets memory from the system, which never was used before: glibc allows no more.
KEPT = 32 << 20

# While launches are recorded, who gives scratch memory instead: a recording keeps its own (recording.py).
recorder = None

_local = threading.local()


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next array instead of handing it back to the system.

    By default every array above 128 KB is mapped anew and its pages are faulted in one by one: a training step of the
    CNN example spent two thirds of its time there (7.3 ms a step became 2.6 ms). This holds for the whole process;
    up to 256 MB stay with it after they were freed. Settings of the user's own (MALLOC_..., GLIBC_TUNABLES) win, and
    where there is no glibc nothing happens.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(trim_threshold, 256 << 20)
    mallopt(mmap_threshold, KEPT)


keep_freed_memory()


def scratch(name: str, size: int, dtype) -> np.ndarray:
    """A 1-D array of `size` elements with undefined contents, valid until this thread asks for `name` again."""
    buffers = None if (asked := recorder) is None else asked.scratch()
    if buffers is None:
        try:
            buffers = _local.buffers
        except AttributeError:
            buffers = _local.buffers = {}
    key = name, dtype
    buffer = buffers.get(key)
    if buffer is None or buffer.size < size:
        buffer = buffers[key] = aligned(size, dtype)
    return buffer[:size]


def past_caches(y, nbytes: int) -> bool:
    """Whether a kernel that reads and writes so many bytes should write y, part of them, past the caches.

    Lines that are written are read first, and if more is moved than the caches hold, they are gone before anybody
    wants them. An array beyond KEPT is different: the system fills its pages with zeros as they are first touched,
    and so they are in the caches. (tanh's gradient, 16 million numbers, took 14.1 ms, and 15.8 past the caches.)
    """
    return nbytes >= CACHES and y.nbytes < KEPT


def aligned(size: int, dtype) -> np.ndarray:
    """A fresh 1-D array of `size` elements with undefined contents that starts on a cache line.

    A small one does not: finding the line would take longer than it saves.
    """
    if size < SMALL:
        return np.empty(size, dtype)
    itemsize = np.dtype(dtype).itemsize
    buffer = np.empty(size + LINE // itemsize, dtype)
    start = -buffer.ctypes.data % LINE // itemsize
    return buffer[start : start + size]
