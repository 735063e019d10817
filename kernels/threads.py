"""Running a kernel over chunks: on the threads of Numba's pool, or one after another.

A kernel is a serial function over one chunk, `kernel(chunk, *args)`. `threaded(kernel)` adds two drivers made from
the same three lines: a parallel loop over the chunks and a plain one. The arithmetic of a chunk and the number of
chunks never depend on the number of threads, so the results are the same bits for any of them.

The plain loop runs where threads do not pay (little work: a parallel region costs 2 microseconds warm, and up to
milliseconds when its threads have fallen asleep), in a child process after a fork (OpenMP's threads do not survive
one), and while another Python thread is inside a parallel region (not every threading layer can be entered twice).
"""

import os
import threading

from numba import get_num_threads, prange

from .jit import jit

# Work, in floating-point operations or elements touched, from which threads pay.
THREADS_PAY = 1_000_000

_region = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _region
    _forked, _region = True, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def threaded(kernel):
    """A function launch(chunks, work, *args) that runs kernel(0, *args) ... kernel(chunks - 1, *args).

    work : about how many arithmetic operations all chunks need together; below THREADS_PAY they run one after another.
    Both drivers are compiled when they are first needed.
    """
    name = f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}"

    def drive(chunks, *args):
        for chunk in prange(chunks):
            kernel(chunk, *args)

    in_turn = jit(drive, name=f"{name}-in_turn")
    in_parallel = jit(drive, name=f"{name}-in_parallel", parallel=True)

    def launch(chunks, work, *args):
        if chunks > 1 and work >= THREADS_PAY and not _forked and get_num_threads() > 1 and _region.acquire(False):
            try:
                in_parallel(chunks, *args)
            finally:
                _region.release()
        else:
            in_turn(chunks, *args)

    launch.kernel, launch.in_turn, launch.in_parallel = kernel, in_turn, in_parallel
    return launch
