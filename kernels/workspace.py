"""Scratch memory that is kept between calls.

A fresh large array costs a page fault every 4 KB when it is first written, which can take longer than the kernel that
writes it. Each thread keeps one buffer a name and dtype, as large as the largest request so far.
"""

import threading

import numpy as np

_local = threading.local()


def scratch(name: str, size: int, dtype) -> np.ndarray:
    """A 1-D array of `size` elements with undefined contents, valid until this thread asks for `name` again."""
    try:
        buffers = _local.buffers
    except AttributeError:
        buffers = _local.buffers = {}
    key = name, dtype
    buffer = buffers.get(key)
    if buffer is None or buffer.size < size:
        buffer = buffers[key] = np.empty(size, dtype)
    return buffer[:size]
