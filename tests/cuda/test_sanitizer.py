"""What kernels/ptx/sanitizer.py finds in simulated launches: in small kernels with one fault each, which pass without
it, and in the package's kernels when one of their barriers is left out."""

import inspect
import re
from array import array
from functools import cache

import numpy as np
import pytest
from ml_dtypes import bfloat16
from numba import cuda, float32, float64, int32, int64, uint8, uint16
from numba.core import config

from handloom import kernels
from handloom.kernels import arrays as device_arrays
from handloom.kernels.launch import kernel, pointer

if not config.ENABLE_CUDASIM:
    pytest.skip("not in the simulator: make test-cuda runs these", allow_module_level=True)
# Without the toolkit it cannot be imported.
from handloom.kernels.ptx import (  # noqa: E402
    copy_async,
    copy_async_commit,
    copy_async_wait,
    fence_async,
    load,
    load4,
    sanitizer,
    store,
    store2,
    store4,
    wgmma_bf16,
    wgmma_commit,
    wgmma_fence,
    wgmma_wait,
)

P = pointer(float32)
NOTHING, SYNCWARP, BARRIER = range(3)


def on_device(array):
    return None if array is None else device_arrays.simulated(array)


def zeros(size, dtype=np.float32):
    return on_device(np.zeros(size, dtype))


def place(made, text):
    """test_sanitizer.py:LINE of the line of a kernel that has the text."""
    lines, first = inspect.getsourcelines(getattr(made, "function", made))
    (number,) = (number for number, line in enumerate(lines) if text in line)
    return f"test_sanitizer.py:{first + number}"


def found(made, message, **places):
    """The error that says so, with the places of lines for {names}."""
    places = {name: place(made, text) for name, text in places.items()}
    return pytest.raises(RuntimeError, match=f"^{re.escape(message.format(**places))}$")


# ---------------------------------------------------------------------------------------------------------------------
# In a block


@cache
def turn(threads, sync):
    @kernel(threads=threads)
    def turn_around(x: P, y: P):
        """y = x from its end, through shared memory."""
        tile = cuda.shared.array(threads, float32)
        i = cuda.threadIdx.x
        store(tile, i, load(x, i))
        if sync == SYNCWARP:
            cuda.syncwarp()
        elif sync == BARRIER:
            cuda.syncthreads()
        store(y, i, load(tile, threads - 1 - i))

    return turn_around


class TestShared:
    @pytest.mark.parametrize("threads, sync", [(32, SYNCWARP), (32, BARRIER), (64, BARRIER)])
    def test_what_is_ordered_passes(self, threads, sync):
        x, y = on_device(np.arange(threads, dtype=np.float32)), zeros(threads)
        turn(threads, sync)((1,), x, y)
        np.testing.assert_array_equal(y, x[::-1])

    @pytest.mark.parametrize("sync", [NOTHING, SYNCWARP])
    def test_a_barrier_is_missing_before_others_read(self, sync):
        made = turn(64, sync)
        message = (
            "turn_around: block (0, 0, 0): thread 31 reads shared memory at byte 128 of tile ({read}) and thread 32 "
            "writes it ({write}) with no barrier between them"
        )
        if sync == SYNCWARP:  # all have written before anybody reads
            message = (
                "turn_around: block (0, 0, 0): thread 63 writes shared memory at byte 252 of tile ({write}) and "
                "thread 0 reads it ({read}) with no barrier between them"
            )
        with found(made, message, read="load(tile", write="store(tile"):
            made((1,), zeros(64), zeros(64))

    def test_a_warp_needs_a_syncwarp(self):
        made = turn(32, NOTHING)
        message = (
            "turn_around: block (0, 0, 0): thread 15 reads shared memory at byte 64 of tile ({read}) and thread 16 "
            "writes it ({write}) with no barrier or syncwarp between them"
        )
        with found(made, message, read="load(tile", write="store(tile"):
            made((1,), zeros(32), zeros(32))

    def test_a_shuffle_orders_no_memory(self):
        @kernel(threads=32)
        def shuffled(x: P):
            tile = cuda.shared.array(32, float32)
            i = cuda.threadIdx.x
            store(tile, i, load(x, i))
            cuda.shfl_xor_sync(0xFFFFFFFF, i, 1)
            store(x, i, load(tile, 31 - i))

        message = (
            "shuffled: block (0, 0, 0): thread 31 writes shared memory at byte 124 of tile ({write}) and thread 0 "
            "reads it ({read}) with no barrier or syncwarp between them"
        )
        with found(shuffled, message, read="load(tile", write="store(tile"):
            shuffled((1,), zeros(32))

    def test_a_barrier_is_missing_before_the_tile_is_written_again(self):
        def make(again):
            @kernel(threads=64)
            def add_neighbours(x: P, y: P):
                tile = cuda.shared.array(64, float32)
                i, total = cuda.threadIdx.x, float32(0)
                for k in range(2):
                    store(tile, i, load(x, k * 64 + i))
                    cuda.syncthreads()
                    total += load(tile, (i + 32) % 64)
                    if again:
                        cuda.syncthreads()
                store(y, i, total)

            return add_neighbours

        make(True)((1,), zeros(128), zeros(64))
        made = make(False)
        message = (
            "add_neighbours: block (0, 0, 0): thread 0 writes shared memory at byte 0 of tile ({write}) and thread 32 "
            "reads it ({read}) with no barrier between them"
        )
        with found(made, message, read="load(tile", write="store(tile"):
            made((1,), zeros(128), zeros(64))

    def test_the_same_number_twice_is_no_excuse(self):
        @kernel(threads=64)
        def mark(x: P):
            store(x, 0, float32(1))

        message = (
            "mark: block (0, 0, 0): thread 0 writes x at byte 0 ({write}) and thread 1 writes it ({write}) with no "
            "barrier or syncwarp between them"
        )
        with found(mark, message, write="store(x"):
            mark((1,), zeros(1))

    def test_threads_that_have_ended_have_written(self):
        def make(barrier):
            @kernel(threads=64)
            def end_early(y: P):
                tile = cuda.shared.array(32, float32)
                i = cuda.threadIdx.x
                if i >= 32:
                    store(tile, i - 32, float32(i))
                    return
                if barrier:
                    cuda.syncthreads()
                store(y, i, load(tile, i))

            return end_early

        make(True)((1,), y := zeros(32))
        np.testing.assert_array_equal(y, np.arange(32, 64))
        made = make(False)
        message = (
            "end_early: block (0, 0, 0): thread 0 reads shared memory at byte 0 of tile ({read}) and thread 32 "
            "writes it ({write}) with no barrier between them"
        )
        with found(made, message, read="load(tile", write="store(tile"):
            made((1,), zeros(32))

    @pytest.mark.parametrize("sync", ["syncthreads_count", "syncthreads_and", "syncthreads_or"])
    def test_barriers_that_count_are_barriers(self, sync):
        @kernel(threads=64)
        def counted(y: P):
            tile = cuda.shared.array(64, float32)
            i = cuda.threadIdx.x
            store(tile, i, float32(1))
            getattr(cuda, sync)(1)
            store(y, i, load(tile, 63 - i))

        counted((1,), zeros(64))

    def test_nobody_has_written_it(self):
        def make(written):
            @kernel(threads=32)
            def beyond(y: P):
                tile = cuda.shared.array(64, float32)
                other = cuda.shared.array(64, float32)
                i = cuda.threadIdx.x
                for k in range(written // 32):
                    store(tile, k * 32 + i, float32(1))
                    store(other, k * 32 + i, float32(1))
                cuda.syncthreads()
                store(y, i, load(other, i + 8))

            return beyond

        make(64)((1,), zeros(32))
        made = make(32)
        message = (
            "beyond: block (0, 0, 0): thread 24 reads shared memory at byte 128 of other ({read}), which no thread of "
            "the block has written before"
        )
        with found(made, message, read="load(other"):
            made((1,), zeros(32))

    def test_what_another_block_has_written_is_gone(self):
        @kernel(threads=32)
        def first_block(y: P):
            tile = cuda.shared.array(32, float32)
            i = cuda.threadIdx.x
            if cuda.blockIdx.x == 0:
                store(tile, i, float32(1))
            store(y, cuda.blockIdx.x * 32 + i, load(tile, i))

        first_block((1,), zeros(32))
        message = (
            "first_block: block (1, 0, 0): thread 0 reads shared memory at byte 0 of tile ({read}), which no thread of "
            "the block has written before"
        )
        with found(first_block, message, read="load(tile"):
            first_block((2,), zeros(64))

    def test_two_dtypes_over_dynamic_memory(self):
        def make(barrier):
            @kernel(threads=32)
            def two_views(y: P):
                bits = cuda.shared.array(0, uint16)
                stage = cuda.shared.array(0, float32)
                i = cuda.threadIdx.x
                for k in range(2):
                    store(bits, 2 * i + k, uint16(0x3F80 * k))
                cuda.syncthreads()
                x = load(bits, (2 * i + 5) % 64)
                if barrier:
                    cuda.syncthreads()
                store(stage, i, float32(x))
                store(y, i, load(stage, i))

            return two_views

        make(True)((1,), y := zeros(32), shared=128)
        assert (np.asarray(y) == 0x3F80).all()
        made = make(False)
        message = (
            "two_views: block (0, 0, 0): thread 0 reads shared memory at byte 10 of the dynamic array ({read}) and "
            "thread 2 writes it ({write}) with no barrier or syncwarp between them"
        )
        with found(made, message, read="load(bits", write="store(stage"):
            made((1,), zeros(32), shared=128)

    @pytest.mark.parametrize("write, numbers", [(store4, (1, 2, 3, 4)), (store2, (1, 2))], ids=["store4", "store2"])
    def test_what_is_written_at_once_meets_each_of_its_numbers(self, write, numbers):
        def make(barrier):
            @kernel(threads=64)
            def spread(y: P):
                tile = cuda.shared.array(64, float32)
                i, count = cuda.threadIdx.x, len(numbers)
                if i < 64 // count:
                    write(tile, count * i, numbers)
                if barrier:
                    cuda.syncthreads()
                store(y, i, load(tile, i))

            return spread

        make(True)((1,), zeros(64))
        with pytest.raises(RuntimeError, match="thread 0 writes shared memory at byte 4 of tile .* thread 1 reads it"):
            make(False)((1,), zeros(64))

    def test_neighbouring_bytes_are_not_the_same(self):
        @kernel(threads=64)
        def number(x: pointer(uint8), y: pointer(float64)):
            i = cuda.threadIdx.x
            store(x, i, uint8(i))
            store(y, i, float64(i))

        number((1,), x := zeros(64, np.uint8), zeros(64, np.float64))
        np.testing.assert_array_equal(x, np.arange(64))

    def test_there_is_an_end_to_shared_memory(self):
        @kernel(threads=32)
        def much():
            cuda.shared.array(60000, float32)

        with pytest.raises(MemoryError, match="much: 240000 bytes of shared memory: a GPU has 232448 at most$"):
            much((1,))


class TestGlobal:
    """The arguments: what is shared memory's within a block holds for them too, and no block waits for another."""

    def test_in_a_block(self):
        def make(barrier):
            @kernel(threads=64)
            def through_memory(x: P, y: P):
                i = cuda.threadIdx.x
                store(x, i, float32(i))
                if barrier:
                    cuda.syncthreads()
                store(y, i, load(x, 63 - i))

            return through_memory

        make(True)((1,), zeros(64), zeros(64))
        made = make(False)
        message = (
            "through_memory: block (0, 0, 0): thread 31 reads x at byte 128 ({read}) and thread 32 writes it ({write}) "
            "with no barrier between them"
        )
        with found(made, message, read="load(x", write="store(x"):
            made((1,), zeros(64), zeros(64))

    def test_two_blocks_write(self):
        @kernel(threads=32)
        def write(y: P, n: int32):
            store(y, (cuda.blockIdx.x * 32 + cuda.threadIdx.x) % n, float32(1))

        write((2,), zeros(64), 64)
        message = (
            "write: block (0, 0, 0): thread 0 writes y at byte 0 ({line}) and block (1, 0, 0): thread 8 writes it "
            "({line}): nothing orders blocks"
        )
        with found(write, message, line="store(y"):
            write((2,), zeros(64), 40)

    def test_a_block_reads_what_another_writes(self):
        @kernel(threads=32)
        def pass_on(x: P, y: P, step: int32):
            i = cuda.blockIdx.x * 32 + cuda.threadIdx.x
            store(x, i, float32(i))
            cuda.syncthreads()
            if 0 <= i + step < 64:
                store(y, i, load(x, i + step))

        pass_on((2,), zeros(64), zeros(64), 0)
        before = (
            "pass_on: block (0, 0, 0): thread 31 reads x at byte 128 ({read}) and block (1, 0, 0): thread 0 writes it "
            "({write}): nothing orders blocks"
        )
        after = (
            "pass_on: block (0, 0, 0): thread 31 writes x at byte 124 ({write}) and block (1, 0, 0): thread 0 reads it "
            "({read}): nothing orders blocks"
        )
        for step, message in ((1, before), (-1, after)):
            with found(pass_on, message, read="load(x", write="store(x"):
                pass_on((2,), zeros(64), zeros(64), step)

    def test_two_arguments_may_be_one_array(self):
        @kernel(threads=64)
        def shift(x: P, y: P):
            i = cuda.threadIdx.x
            store(y, i, load(x, (i + 1) % 64))

        shift((1,), zeros(64), zeros(64))
        memory = zeros(80)
        with pytest.raises(RuntimeError, match="thread 0 reads x at byte 4 .* and thread 1 writes it"):
            shift((1,), memory[:64], memory[:64])
        with pytest.raises(RuntimeError, match="thread 0 writes x at byte 64 .* and thread 15 reads it"):
            shift((1,), memory[:64], memory[16:])

    def test_arguments_are_put_back_for_the_second_run(self):
        @kernel(threads=64)
        def count_up(x: P, y: P):
            i = cuda.threadIdx.x
            store(x, i, load(x, i) + float32(1))
            store(y, 0, load(x, i))

        with pytest.raises(RuntimeError, match="writes y at byte 0"):
            count_up((1,), x := zeros(64), zeros(1))
        assert (np.asarray(x) == 1).all()

    def test_what_the_second_run_does_not_show_comes_without_lines(self):
        runs = []

        @cuda.jit
        def once(x):
            if cuda.threadIdx.x == 0:
                runs.append(None)
            if len(runs) == 1:
                x[0] = 1

        message = (
            "once: block (0, 0, 0): thread 0 writes x at byte 0 and thread 1 writes it with no barrier or syncwarp"
        )
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)} between them$"):
            once[1, 2](np.zeros(1))


# ---------------------------------------------------------------------------------------------------------------------
# Asynchronous copies


class TestCopies:
    @staticmethod
    def make(*steps):
        """A kernel of 64 threads; each copies 16 bytes and reads those of thread `i ^ other`, in the order of steps."""
        other = 1 if "own" not in steps else 0
        first, second, third = (steps + ("", "", ""))[:3]

        @cuda.jit(device=True, forceinline=True)
        def step(what):
            if what == "wait":
                copy_async_wait(0)
            if what == "barrier":
                cuda.syncthreads()

        @kernel(threads=64)
        def fetch(x: P, y: P):
            tile = cuda.shared.array(256, float32, alignment=16)
            i = cuda.threadIdx.x
            copy_async(tile, 4 * i, x, 4 * i, int32(16))
            copy_async_commit()
            step(first)
            step(second)
            store4(y, 4 * i, load4(tile, 4 * (i ^ other)))
            step(third)

        return fetch

    def run(self, made):
        made((1,), on_device(np.arange(256, dtype=np.float32)), y := zeros(256))
        return y

    def test_a_wait_and_then_a_barrier(self):
        found = self.run(self.make("wait", "barrier"))
        np.testing.assert_array_equal(found.reshape(32, 2, 4)[:, ::-1].reshape(-1), np.arange(256))

    def test_for_what_a_thread_copied_itself_a_wait_is_enough(self):
        np.testing.assert_array_equal(self.run(self.make("wait", "own")), np.arange(256))

    def test_others_need_the_barrier(self):
        made = self.make("wait")
        message = (
            "fetch: block (0, 0, 0): thread 0 reads shared memory at byte 16 of tile ({read}) and thread 1 copies to "
            "it ({copy}) with no barrier or syncwarp between them; a copy lasts until it has been waited for"
        )
        with found(made, message, read="load4(tile", copy="copy_async(tile"):
            self.run(made)

    def test_a_barrier_is_no_wait(self):
        made = self.make("barrier", "", "wait")
        message = (
            "fetch: block (0, 0, 0): thread 1 copies to shared memory at byte 16 of tile ({copy}) and thread 0 reads "
            "it ({read}) with no barrier or syncwarp between them; a copy lasts until it has been waited for"
        )
        with found(made, message, read="load4(tile", copy="copy_async(tile"):
            self.run(made)

    def test_nor_is_a_barrier_before_the_wait_enough(self):
        with pytest.raises(RuntimeError, match="copies to shared memory .* reads it"):
            self.run(self.make("barrier", "wait"))

    def test_its_own_thread_has_to_wait(self):
        made = self.make("", "own")
        message = (
            "fetch: block (0, 0, 0): thread 0 copies to shared memory at byte 0 of tile ({copy}) and thread 0 reads it "
            "({read}) without waiting for the copy"
        )
        with found(made, message, read="load4(tile", copy="copy_async(tile"):
            self.run(made)

    @pytest.mark.parametrize("barrier", [False, True])
    def test_into_a_tile_that_others_still_read(self, barrier):
        @kernel(threads=64)
        def again(x: P, y: P):
            tile = cuda.shared.array(256, float32, alignment=16)
            i = cuda.threadIdx.x
            copy_async(tile, 4 * i, x, 4 * i, int32(16))
            copy_async_commit()
            copy_async_wait(0)
            cuda.syncthreads()
            store(y, i, load(tile, 4 * ((i + 32) % 64)))
            if barrier:
                cuda.syncthreads()
            copy_async(tile, 4 * i, x, 4 * i + 256, int32(16))  # again
            copy_async_commit()
            copy_async_wait(0)

        if barrier:
            again((1,), zeros(512), zeros(64))
            return
        with pytest.raises(RuntimeError, match="^again: .* thread 0 copies to shared memory .* thread 32 reads it"):
            again((1,), zeros(512), zeros(64))

    @pytest.mark.parametrize("wait", [False, True])
    def test_what_is_copied_must_stay(self, wait):
        @kernel(threads=32)
        def overwrite(x: P):
            tile = cuda.shared.array(128, float32, alignment=16)
            i = cuda.threadIdx.x
            copy_async(tile, 4 * i, x, 4 * i, int32(12))
            copy_async_commit()
            if wait:
                copy_async_wait(0)
            store(x, 4 * i + 3, float32(1))  # not copied
            store(x, 4 * i + 2, float32(1))

        if wait:
            overwrite((1,), zeros(128))
            return
        message = (
            "overwrite: block (0, 0, 0): thread 0 copies from x at byte 8 ({copy}) and thread 0 writes it ({write}) "
            "without waiting for the copy"
        )
        with found(overwrite, message, copy="copy_async(tile", write="4 * i + 2"):
            overwrite((1,), zeros(128))

    def test_copies_go_on_through_barriers_and_syncwarps(self):
        """Two copies into one place, the first of which only the last wait completes."""

        def make(sync):
            @kernel(threads=32)
            def late(x: P, y: P):
                tile = cuda.shared.array(128, float32, alignment=16)
                i = cuda.threadIdx.x
                copy_async(tile, 4 * i, x, 4 * i, int32(16))
                copy_async_commit()
                for _ in range(2):
                    if sync == BARRIER:
                        cuda.syncthreads()
                    else:
                        cuda.syncwarp()
                if i == 5:
                    store(tile, 0, float32(0))
                for _ in range(2):
                    if sync == BARRIER:
                        cuda.syncthreads()
                    else:
                        cuda.syncwarp()
                copy_async_wait(0)

            return late

        for sync in (BARRIER, SYNCWARP):
            with pytest.raises(RuntimeError, match="thread 0 copies to shared memory at byte 0 .* thread 5 writes it"):
                make(sync)((1,), zeros(128), zeros(128))


class TestProductsOfWarpgroups:
    """They read their operands until they have been waited for."""

    def make(self, left_out):
        @kernel(threads=128)
        def overwrite(x: pointer(uint16), y: P):
            tiles = cuda.shared.array(384 * 64, uint16, alignment=1024)
            acc = cuda.local.array(128, float32)
            thread = int32(cuda.threadIdx.x)
            for i in range(24):
                copy_async(tiles, (i * 128 + thread) * 8, x, 0, int32(16))
            copy_async_commit()
            copy_async_wait(0)
            if left_out != "fence_async":
                fence_async()
            cuda.syncthreads()
            if left_out != "wgmma_fence":
                wgmma_fence()
            wgmma_bf16(acc, tiles, 0, 128 * 64, True, True)
            wgmma_commit()
            if left_out != "wgmma_wait":
                wgmma_wait(0)
            if left_out != "barrier":
                cuda.syncthreads()
            store(tiles, (thread + 32) % 128 * 64, uint16(0))  # again
            wgmma_wait(0)
            store(y, thread, acc[0])

        return overwrite

    @pytest.mark.parametrize(
        "left_out, error",
        [
            ("wgmma_fence", "a product of a warpgroup without wgmma_fence before its group$"),
            ("fence_async", "without fence_async between the wait for a copy and the barrier$"),
            ("wgmma_wait", "multiplies shared memory .* writes it .* a product lasts until it has been waited for$"),
            ("barrier", "writes shared memory .* multiplies it .* with no barrier between them"),
        ],
    )
    def test_what_must_not_be_left_out(self, left_out, error):
        with pytest.raises(RuntimeError, match=error):
            self.make(left_out)((1,), zeros(8, np.uint16), zeros(128))

    def test_a_kernel_with_all_of_it(self):
        self.make(None)((1,), zeros(8, np.uint16), zeros(128))


# ---------------------------------------------------------------------------------------------------------------------
# Other ways to memory, and how it is told


class TestPlainKernels:
    """cuda.jit, and arrays indexed in Python's way."""

    @pytest.mark.parametrize("barrier", [False, True])
    def test_indices(self, barrier):
        @cuda.jit
        def turn_square(x, y):
            tile = cuda.shared.array((8, 8), int64)
            i, j = cuda.threadIdx.y, cuda.threadIdx.x
            tile[i, j] = x[i, j]
            if barrier:
                cuda.syncthreads()
            y[i, j] = tile[j, i]

        x = np.arange(64).reshape(8, 8)
        if barrier:
            turn_square[1, (8, 8)](x, y := np.zeros((8, 8), int))
            np.testing.assert_array_equal(y, x.T)
            return
        message = (
            "turn_square: block (0, 0, 0): thread 1 reads shared memory at byte 64 of tile ({read}) and thread 8 "
            "writes it ({write}) with no barrier or syncwarp between them"
        )
        with found(turn_square, message, read="tile[j, i]", write="tile[i, j] ="):
            turn_square[1, (8, 8)](x, np.zeros((8, 8), int))

    def test_negative_indices_rows_and_slices(self):
        @cuda.jit
        def fill(x):
            i = cuda.threadIdx.x
            row = x[i]
            row[-1] = 1
            x[:2, i] = 0

        with pytest.raises(RuntimeError, match="thread 0 writes x at byte 24 .* thread 3 writes it"):
            fill[1, 4](np.zeros((4, 4), np.int64))

    def test_memory_of_a_thread_s_own_is_not_for_load_and_store(self):
        @kernel(threads=32)
        def own(x: P):
            numbers = cuda.local.array(4, float32)
            numbers[0] = 1
            store(x, cuda.threadIdx.x, load(numbers, 0))

        with pytest.raises(
            TypeError, match="own: access to memory that is neither shared nor an argument without gaps$"
        ):
            own((1,), zeros(32))


@cuda.jit(device=True, forceinline=True)
def put(tile, i, number):
    store(tile, i, number)


def test_a_line_in_a_device_function_comes_with_that_of_the_kernel():
    @kernel(threads=64)
    def use(y: P):
        put(y, cuda.threadIdx.x % 32, float32(1))

    message = (
        f"use: block (0, 0, 0): thread 0 writes y at byte 0 ({place(put, 'store(')}, called at {{line}}) and thread 32 "
        f"writes it ({place(put, 'store(')}, called at {{line}}) with no barrier between them"
    )
    with found(use, message, line="put(y"):
        use((1,), zeros(32))


def test_a_hazard_explains_an_error_that_follows_from_it():
    @kernel(threads=64)
    def look_up(x: P, y: P):
        places = cuda.shared.array(64, int64)
        i = cuda.threadIdx.x
        store(places, i, int64(i))
        store(y, i, load(x, load(places, 63 - i)))

    with found(
        look_up,
        "look_up: block (0, 0, 0): thread 0 reads shared memory at byte 504 of places ({line}), which no thread of the "
        "block has written before",
        line="store(y",
    ):
        look_up((1,), zeros(64), zeros(64))


def test_whole_intervals_and_single_accesses_agree():
    """The check of whole arrays against the search for a pair, on random accesses to few places."""
    rng, owner, clashes = np.random.default_rng(3), np.full(64, sanitizer.NOBODY, np.int32), 0
    for _ in range(2000):
        accesses, runs, copies = array("q"), array("q"), {}
        syncwarps = np.zeros(3, int)
        for thread in rng.choice([0, 1, 40], 4):
            syncwarps[thread // 32] += rng.random() < 0.5
            runs.extend((len(accesses), int(thread), int(syncwarps[thread // 32])))
            for _ in range(rng.integers(4)):
                size = int(rng.integers(2, 5))
                at = (int(rng.integers(48)) >> size << size) << sanitizer.ADDRESS | size << sanitizer.SIZE
                kind = int(rng.choice([sanitizer.READ, sanitizer.READ, sanitizer.WRITE]))
                accesses.append(at | kind)
                if rng.random() < 0.3:
                    copies[thread] = at | kind
                    accesses.append(copies[thread] | sanitizer.ISSUED)
                if thread in copies and rng.random() < 0.5:
                    accesses.append(copies.pop(thread) | sanitizer.WAITED)
        if not accesses:
            continue
        interval = sanitizer.Interval(accesses, runs, 2)
        pair = interval.pair()
        assert interval.has_no_order(owner) == (pair is not None)
        clashes += pair is not None
        assert (owner == sanitizer.NOBODY).all()
    assert 200 < clashes < 1800


# ---------------------------------------------------------------------------------------------------------------------
# The package's kernels without one of their barriers


def uniform(*shape, dtype=np.float32):
    return on_device(np.random.default_rng(4).uniform(-1, 1, shape).astype(dtype))


def matmul(variant, m, n, k, dtype=np.float32):
    return lambda: kernels.matmul(uniform(m, k).astype(dtype), uniform(k, n).astype(dtype), variant=variant)


def conv2d(variant, x, w):
    return lambda: kernels.conv2d(uniform(*x), uniform(*w), variant=variant)


def weight_gradient(variant, x, w):
    def run():
        y, saved = kernels.conv2d_forward(uniform(*x), uniform(*w), variant=variant)
        kernels.conv2d_backward(y, saved, needs=(False, True, False))

    return run


def lstm(steps, hidden, backward=False):
    def run():
        x, w, u = (
            uniform(*shape, dtype=np.float64) for shape in ((1, steps, 1), (1, 4 * hidden), (hidden, 4 * hidden))
        )
        (y, _), saved = kernels.lstm_forward(x, w, u, variant="fused")
        if backward:
            kernels.lstm_backward(y, saved)

    return run


def sparse_loss():
    kernels.sparse_softmax_cross_entropy(uniform(9, 5), on_device(np.arange(9) % 5))


# Kernel, a call that launches it, and how many of a block's last barriers may be left out: those at the end of a loop
# or a function whose other turns need them.
WITHOUT_BARRIERS = [
    ("multiply_shared", matmul("shared", 3, 5, 33), 1),
    ("multiply_registers", matmul("registers", 3, 5, 33), 1),
    ("multiply_vectors", matmul("vectors", 4, 8, 20), 0),
    ("multiply_tensor", matmul("tensor", 68, 8, 72), 0),
    ("multiply_warpgroup", matmul("warpgroup", 68, 8, 330, bfloat16), 0),
    ("convolve_implicit", conv2d("implicit", (1, 4, 4, 3), (3, 3, 3, 4)), 0),
    ("correlate_implicit", weight_gradient("implicit", (1, 6, 6, 3), (2, 2, 3, 4)), 0),
    ("convolve_tensor", conv2d("tensor", (1, 11, 11, 8), (3, 3, 8, 8)), 0),
    ("correlate_tensor", weight_gradient("tensor", (1, 9, 9, 12), (3, 3, 12, 4)), 0),
    ("take_shared_maxima", lambda: kernels.max_pool2d(uniform(1, 6, 6, 4), 6), 1),
    ("take_shared_means", lambda: kernels.avg_pool2d(uniform(1, 6, 6, 4), 6), 1),
    ("step_forward", lstm(1, 65), 0),
    ("step_backward", lstm(2, 33, backward=True), 0),
    ("merge_near", lambda: kernels.permutation(100, seed=1, like=zeros(1)), 0),
    ("add_up_chunk", lambda: kernels.mean_squared_error(uniform(9, 5), uniform(9, 5)), 1),
    ("lose_softmax", sparse_loss, 1),
]


def intervals_of(name, run, monkeypatch):
    """[(accesses, runs)] of the first block of a kernel's last launch, from barrier to barrier; the units' shift."""
    seen, shift, watch = [], [], sanitizer.Watch
    begin_block, end_interval = watch.begin_block, watch.end_interval

    def begin(watch, *args):
        begin_block(watch, *args)
        if watch.number == 0 and watch.function.__name__ == name:
            seen.clear()

    def end(watch):
        if watch.number == 0 and watch.function.__name__ == name:
            seen.append((array("q", watch.accesses), array("q", watch.runs)))
            shift[:] = [watch.shift]
        end_interval(watch)

    monkeypatch.setattr(watch, "begin_block", begin)
    monkeypatch.setattr(watch, "end_interval", end)
    run()
    return seen, *shift


def joined(first, second):
    """Two intervals as one."""
    runs = np.array(second[1]).reshape(-1, 3) + (len(first[0]), 0, 0)
    return first[0] + second[0], first[1] + array("q", runs.reshape(-1).tolist())


@pytest.mark.parametrize("name, run, more", WITHOUT_BARRIERS, ids=[name for name, *_ in WITHOUT_BARRIERS])
def test_a_barrier_less_is_found(name, run, more, monkeypatch):
    """As if each barrier in turn had been left out: what was done before and after it is one interval."""
    seen, shift = intervals_of(name, run, monkeypatch)
    barriers, owner = len(seen) - 1, np.full(1 << 20, sanitizer.NOBODY, np.int32)
    assert barriers > more
    for n in range(barriers - more):
        interval = sanitizer.Interval(*joined(*seen[n : n + 2]), shift)
        assert interval.has_no_order(owner), f"barrier {n + 1} of {barriers}"
