"""The CUDA kernels against the references, in Numba's simulator: few tiny cases, every operation x variant x dtype.

The simulator is chosen when a process starts, so these are tests of a run of their own: `make test-cuda`.
"""

import numpy as np
import pytest
from harness import DTYPES, arrays, as_float64, assert_close, flat, load_cases, reference, run_backward
from numba import cuda
from numba.core import config

from handloom import kernels
from handloom.kernels import arrays as device_arrays

pytestmark = [
    pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator: make test-cuda runs these"),
    pytest.mark.usefixtures("nan_filled_memory"),
]

SIMULATED = [case for case in load_cases() if case.simulate]
# Rungs whose sums are less exact than their dtype have tests of their own: test_gemm.py, test_convolution.py.
ELSEWHERE = {("matmul", "tensor"), ("dense", "tensor"), ("conv2d", "tensor"), ("conv2d", "winograd")}
POINTS = [
    pytest.param(case, variant, dtype, id=f"{case}-{variant}-{dtype}")
    for case in SIMULATED
    for variant in (kernels.VARIANTS[case.op]["cuda"] if case.op in kernels.VARIANTS else (None,))
    if (case.op, variant) not in ELSEWHERE
    for dtype in DTYPES
]


def on_device(array):
    return None if array is None else device_arrays.simulated(array)


def options(case, variant):
    return case.options if variant is None else {**case.options, "variant": variant}


def assert_on_device(results):
    assert all(isinstance(result, device_arrays.SimulatedArray) for result in results if result is not None)


@pytest.mark.parametrize("case, variant, dtype", POINTS)
def test_kernels_follow_the_reference(case, variant, dtype):
    """Forward and, where there is one, backward; inputs stay as they were.

    Where there is a backward, the operation is called without `_forward` in float32 alone: the simulator is slow.
    """
    alone = dtype == "float32" or not case.wrt
    given = {name: on_device(array) for name, array in arrays(case, dtype).items()}
    before = {name: None if array is None else array.copy() for name, array in given.items()}
    on_host = {name: None if array is None else np.asarray(array) for name, array in before.items()}
    expected = flat(reference(case.op)(*as_float64(on_host).values(), **case.options))
    run = getattr(kernels, case.op if alone else f"{case.op}_forward")
    try:
        outputs = run(*given.values(), **options(case, variant))
    except ValueError as error:
        assert variant in case.unsuited, error
        assert f"variant is '{variant}'" in str(error)
        return
    assert variant not in case.unsuited
    if not alone:
        outputs, saved = outputs
    found = flat(outputs) if not case.inplace else [given[name] for name in case.inplace]
    assert_on_device(found)
    for number, (got, want) in enumerate(zip(found, expected, strict=True)):
        assert_close(np.asarray(got), want, case.length, f"{case} output {number}")
    if case.wrt:
        if alone:
            outputs, saved = getattr(kernels, f"{case.op}_forward")(*given.values(), **options(case, variant))
        rng = np.random.default_rng(11)
        douts = [on_device(np.asarray(rng.uniform(-1, 1, output.shape), dtype)) for output in flat(outputs)]
        wide = [np.asarray(dout, np.float64) for dout in douts]
        expected = reference(case.op, "_backward")(*wide, *as_float64(on_host).values(), **case.options)
        gradients = run_backward(case, douts, saved)
        assert_on_device(gradients)
        for name, got, want in zip(case.wrt, gradients, expected, strict=True):
            if given[name] is not None:
                assert_close(np.asarray(got), want, case.length, f"{case} gradient of {name}")
    for name, array in before.items():
        if name not in case.inplace:
            np.testing.assert_array_equal(given[name], array, err_msg=f"{case} changed its input {name}")


class TestInstructions:
    """The twins of kernels/ptx against NumPy; test_code.py looks for the instructions themselves."""

    @pytest.fixture(autouse=True)
    def rng(self):
        self.rng = np.random.default_rng(5)

    def test_an_asynchronous_copy_ends_in_zeros(self):
        import warps

        x, y = self.rng.uniform(-1, 1, 128).astype(np.float32), np.full(128, np.nan, np.float32)
        warps.copy((1,), x, y, 8)
        np.testing.assert_array_equal(y[:126], x[:126])
        assert (y[126:] == 0).all()

    def test_an_asynchronous_copy_arrives_when_it_is_waited_for(self):
        from handloom.kernels.ptx import simulator

        shared, x = np.zeros(8, np.float32), np.ones(8, np.float32)
        simulator.copy_async(shared, 4, x, 0, 16)
        simulator.copy_async_commit()
        simulator.copy_async_wait(1)
        assert (shared == 0).all()
        simulator.copy_async_wait(0)
        np.testing.assert_array_equal(shared, [0] * 4 + [1] * 4)

    def test_accesses_are_held_to_the_array_and_to_whole_pairs_and_chunks(self):
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

    def test_bfloat16_is_float32_rounded_to_its_upper_half(self):
        from ml_dtypes import bfloat16

        from handloom.kernels.ptx import simulator

        odd = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-40, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-23]
        for x in np.concatenate([odd, self.rng.normal(0, 1, 100)]).astype(np.float32):
            with np.errstate(over="ignore"):
                rounded = np.asarray(x).astype(bfloat16)
            found = simulator.from_bf16(simulator.to_bf16(x))
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, rounded.astype(np.float32))

    def test_nan_stays_nan_in_tf32(self):
        from handloom.kernels.ptx import simulator

        for bits in (0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001):
            nan = simulator.as_float(np.uint32(bits))
            assert np.isnan(simulator.as_float(simulator.to_tf32(nan)))

    def test_a_product_in_tf32(self):
        import warps

        a, b, c = (self.rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
        found = c.copy()
        warps.multiply_tf32((1,), a.reshape(-1), b.reshape(-1), found.reshape(-1))
        np.testing.assert_allclose(found, c + a.astype(float) @ b, rtol=2e-3, atol=2e-3)
        assert not np.allclose(found, c + a.astype(float) @ b, rtol=1e-6, atol=1e-6), "TF32 keeps ten bits"

    def test_a_product_in_bfloat16(self):
        import warps

        bits = [
            (self.rng.uniform(-1, 1, shape).astype(np.float32).view(np.uint32) >> 16) for shape in ((16, 16), (16, 8))
        ]
        a, b = ((part << 16).astype(np.uint32).view(np.float32) for part in bits)
        found = np.full((16, 8), np.nan, np.float32)
        warps.multiply_bf16((1,), *(part.astype(np.uint16).reshape(-1) for part in bits), found.reshape(-1))
        np.testing.assert_allclose(found, a.astype(float) @ b, rtol=1e-5, atol=1e-5)


class TestThreads:
    """What kernels/ptx/simulator.py makes of blocks and warps."""

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
