"""The simulator itself: its asynchronous copies, the accesses that it allows, and what it makes of blocks and warps."""

import numpy as np
import pytest
from numba import cuda
from numba.core import config

pytestmark = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator: make test-cuda runs these")


def test_an_asynchronous_copy_arrives_when_it_is_waited_for():
    from handloom.kernels.ptx import simulator

    shared, x = np.zeros(8, np.float32), np.ones(8, np.float32)
    simulator.copy_async(shared, 4, x, 0, 16)
    simulator.copy_async_commit()
    simulator.copy_async_wait(1)
    assert (shared == 0).all()
    simulator.copy_async_wait(0)
    np.testing.assert_array_equal(shared, [0] * 4 + [1] * 4)


def test_accesses_are_held_to_the_array_and_to_whole_pairs_and_chunks():
    from handloom.kernels.ptx import simulator

    for access in (
        lambda x: simulator.load(x, 8),
        lambda x: simulator.load4(x, 2),
        lambda x: simulator.load4(x, 8),
        lambda x: simulator.store2(x, 3, (1, 2)),
        lambda x: simulator.store2(x, 8, (1, 2)),
    ):
        with pytest.raises(IndexError):
            access(np.ones(8, np.float32))


class TestThreads:
    """What kernels/ptx/blocks.py makes of blocks and warps."""

    def test_they_are_numbered_along_x_first(self):
        @cuda.jit
        def number(out):
            out[cuda.threadIdx.x, cuda.threadIdx.y] = cuda.shfl_sync(0xFFFFFFFF, 10 * cuda.threadIdx.y, 1) + cuda.laneid

        number[1, (3, 2)](out := np.zeros((3, 2), int))
        np.testing.assert_array_equal(out, [[0, 3], [1, 4], [2, 5]])

    def test_a_barrier_waits_for_all_and_those_that_have_ended_do_not_count(self):
        @cuda.jit
        def turn(x, out):
            i = cuda.threadIdx.x
            if i == 4:
                return
            x[i] = i + 1
            cuda.syncthreads()
            out[i] = x[3 - i]
            assert cuda.syncthreads_count(i > 1) == 2
            assert cuda.syncthreads_or(i == 3)
            assert not cuda.syncthreads_and(i == 3)

        turn[1, 5](np.zeros(5), out := np.zeros(5))
        np.testing.assert_array_equal(out, [4, 3, 2, 1, 0])

    def test_threads_that_wait_for_others_for_ever_are_an_error(self):
        @cuda.jit
        def part():
            if cuda.threadIdx.x % 2:
                cuda.syncwarp()

        with pytest.raises(RuntimeError, match="^16 of 32 threads wait for others, which went another way$"):
            part[1, 32]()

    def test_an_error_says_in_which_thread(self):
        @cuda.jit
        def fail():
            cuda.syncthreads()
            if cuda.threadIdx.x == 3:
                raise ValueError("no")

        with pytest.raises(ValueError, match=r"^tid=\[3, 0, 0\] ctaid=\[0, 0, 0\]: no$"):
            fail[2, 5]()
