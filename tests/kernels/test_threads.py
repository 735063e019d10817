"""Kernels on many threads: Python's own beside Numba's, forks, pools of processes, every threading layer."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from processes import run

from handloom import kernels
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


class Region:
    """The lock of the parallel region; the first thread that gets it waits inside until another one was refused."""

    def __init__(self):
        self.lock, self.refused, self.entered = threading.Lock(), threading.Event(), 0
        self.release = self.lock.release

    def acquire(self, blocking):
        if not self.lock.acquire(blocking):
            self.refused.set()
            return False
        self.entered += 1
        return self.refused.wait(60)


def train(seed):
    """What layers compute in a step, above THREADS_PAY each, which differs with the seed."""
    rng = np.random.default_rng(seed)

    def uniform(*shape):
        return rng.uniform(-1, 1, shape).astype(np.float32)

    y, saved = kernels.conv2d_forward(uniform(4, 20, 20, 8), uniform(3, 3, 8, 40), uniform(40), activation="tanh")
    yield y
    yield from kernels.conv2d_backward(uniform(*y.shape), saved)
    y, saved = kernels.dense_forward(uniform(200, 150), uniform(150, 130), uniform(130), activation="sigmoid")
    yield y
    yield from kernels.dense_backward(uniform(*y.shape), saved)
    (y, _), saved = kernels.lstm_forward(uniform(32, 20, 10), uniform(10, 160), uniform(40, 160), uniform(160))
    yield y
    yield from kernels.lstm_backward(uniform(*y.shape), saved)[:4]


def test_kernels_in_two_python_threads_give_the_bits_of_one(monkeypatch):
    """While one thread is in the parallel region the other one computes the same beside it, in memory of its own."""
    with monkeypatch.context() as serial:
        serial.setattr(threads, "THREADS_PAY", math.inf)
        expected = [list(train(seed)) for seed in (1, 2)]
    region = Region()
    monkeypatch.setattr(threads, "_region", region)
    start = threading.Barrier(2)

    def work(seed):
        start.wait()
        return [list(train(seed)) for _ in range(5)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, (1, 2)))
    assert region.entered > 1 and region.refused.is_set()
    for steps, wanted in zip(found, expected, strict=True):
        for step in steps:
            for got, want in zip(step, wanted, strict=True):
                np.testing.assert_array_equal(got, want)


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
