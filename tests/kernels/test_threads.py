"""Kernels on many threads: Python's own beside Numba's, forks, pools of processes, every threading layer."""

import threading

import numba
import numpy as np
import pytest
from processes import run

from handloom.kernels import threads
from handloom.kernels.jit import jit
from handloom.kernels.threads import threaded

CHUNK = 1000


@jit
def add_chunk(chunk, x, y):
    for i in range(chunk * 1000, chunk * 1000 + 1000):
        y[i] = x[i] + 1


add = threaded(add_chunk)


def check(chunks=8, work=10**9):
    x, y = np.arange(chunks * CHUNK, dtype=np.float64), np.zeros(chunks * CHUNK)
    add(chunks, work, x, y)
    np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize("chunks", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("work", [0, threads.THREADS_PAY - 1, threads.THREADS_PAY])
def test_every_chunk_runs_once(chunks, work):
    check(chunks, work)


def test_in_turn_runs_every_chunk_too():
    x, y = np.arange(3.0 * CHUNK), np.zeros(3 * CHUNK)
    add.in_turn(3, x, y)
    np.testing.assert_array_equal(y, x + 1)


def test_any_number_of_threads():
    before = numba.get_num_threads()
    try:
        for count in range(1, before + 1):
            numba.set_num_threads(count)
            check(chunks=13)
    finally:
        numba.set_num_threads(before)


def test_a_second_thread_does_not_wait_for_the_first():
    """While one thread is in a parallel region, another takes the plain loop."""
    with threads._region:
        check()


def test_an_error_leaves_the_parallel_region():
    with pytest.raises(numba.TypingError):
        add(8, 10**9, "no array", np.zeros(8 * CHUNK))
    assert not threads._region.locked()


def test_python_threads_at_once():
    failures = []

    def work():
        try:
            for _ in range(200):
                check()
        except BaseException as error:
            failures.append(error)

    crowd = [threading.Thread(target=work) for _ in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert not failures


# In processes of their own from here on. matmul(256) is above THREADS_PAY: the parent and spawned children run it on
# threads; forked children may not.
PRODUCT = """
import os, sys, warnings
import numpy as np
from handloom import kernels
from handloom.kernels import threads

A = np.random.default_rng(0).integers(-8, 8, (256, 256)).astype(np.float32)
EXPECTED = A.astype(np.int64) @ A.astype(np.int64)

def product(_=None):
    return bool((kernels.matmul(A, A) == EXPECTED).all())
"""
FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks of a process with threads: that is the test
assert product()
child = os.fork()
if child == 0:
    os._exit(0 if threads._forked and all(product() for _ in range(5)) else 1)
assert product()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

def main(method):
    warnings.simplefilter("ignore", DeprecationWarning)
    assert product()
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as processes, ThreadPoolExecutor(2) as pool:
        results = [*processes.map(product, range(8)), *pool.map(product, range(8))]
    print(all(results))

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_a_forked_child_after_parallel_use(tmp_path, layer):
    out, _ = run(PRODUCT + FORK, tmp_path, NUMBA_THREADING_LAYER=layer, HANDLOOM_CACHE_DIR=None)
    assert out == "0\n"


@pytest.mark.parametrize(
    "method, layer", [("fork", "omp"), ("fork", "workqueue"), ("forkserver", "omp"), ("spawn", "omp")]
)
def test_a_pool_of_processes_and_a_pool_of_threads_at_once(tmp_path, method, layer):
    (tmp_path / "pools.py").write_text(PRODUCT + POOL)
    code = "import runpy, sys\nsys.argv[1:] = [{!r}]\nrunpy.run_module('pools', run_name='__main__', alter_sys=True)"
    out, _ = run(code.format(method), tmp_path, NUMBA_THREADING_LAYER=layer, HANDLOOM_CACHE_DIR=None)
    assert out == "True\n"
