"""What a launch asks of CuPy and what a captured step is made of: with a CuPy that is not there (fake_cuda.py)."""

import struct
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import fake_cuda
import numpy as np
import pytest
from fake_cuda import CUDADriverError, Function, MemoryPool, Module, Stream, do, ones, synchronize
from numba import float32, int32, int64, uint16, uint64
from numba.core import config

from handloom import kernels, nn
from handloom.kernels import launch, threads
from handloom.kernels.graphs import GraphRecording
from handloom.kernels.launch import kernel, pointer
from handloom.kernels.recording import Launches, Recording, beforehand, is_recording, on_host, own_memory, refuse
from handloom.nn import steps

in_simulator = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator")
outside = pytest.mark.skipif(config.ENABLE_CUDASIM, reason="in the simulator nothing is launched through CuPy")
P = pointer(float32)


@pytest.fixture
def cupy(monkeypatch):
    return fake_cuda.install(monkeypatch)


def scale(x: P, n: int32, size: int64, factor: float32):
    pass


@pytest.fixture
def make():
    return lambda: kernel(threads=256)(scale)


@outside
class TestLaunch:
    def test_arrays_go_as_they_are_and_numbers_in_their_type(self, cupy, make):
        x = ones((3, 4))
        make()((7, 2), x, np.int64(-3), True, 2, shared=96)
        ((grid, block, args, shared),) = Function.launches
        assert (grid, block, shared) == ((7, 2, 1), (256, 1, 1), 96)
        assert struct.unpack("<Qi4xqf4x", args) == (x.data.ptr, -3, 1, 2.0)

    def test_floats_are_rounded_to_their_type(self, cupy, make):
        for factor in (0.1, np.float64(0.1), 3e-39, -np.inf, np.nan):
            make()((1,), ones(), 1, 1, factor)
            np.testing.assert_array_equal(np.frombuffer(Function.launches[-1][2], np.float32)[6], np.float32(factor))

    def test_threads_pack_for_themselves(self, cupy, make):
        scale, x = make(), ones()
        scale((1,), x, 1, 1, 1.0)
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(lambda: (scale((1,), x, 2, 1, 1.0), launch._here.packing)[1]).result()
        assert there[1] != launch._here.packing[1]
        assert launch._here.packing[0].raw[8:12] == b"\1\0\0\0"

    def test_no_block_is_no_launch(self, cupy, make):
        make()((0,), ones(), 1, 1, 1.0)
        make()((3, 0), ones(), 1, 1, 1.0)
        assert not Function.launches and not Module.loaded

    def test_each_gpu_loads_it_once(self, cupy, make):
        scale = make()
        for gpu in (0, 1, 0, 1):
            Stream.gpu = gpu
            scale((1,), ones(gpu=gpu), 1, 1, 1.0)
        assert Module.loaded == [(0, b"sm_90a.text.scale "), (1, b"sm_90a.text.scale ")]

    def test_more_shared_memory_is_asked_for_once(self, cupy, make):
        scale = make()
        for shared in (48 * 1024, 50_000, 49_500, 60_000, 60_000):
            scale((1,), ones(), 1, 1, 1.0, shared=shared)
        assert Function.allowed == [50_000, 60_000]
        with pytest.raises(RuntimeError, match="INVALID_VALUE.*shared 300000, x: float32 .4,., n: 1.*64 KB to 227 KB"):
            scale((1,), ones(), 1, 1, 1.0, shared=300_000)

    def test_bfloat16_goes_as_its_bits(self, cupy):
        ml_dtypes = pytest.importorskip("ml_dtypes")

        @kernel(threads=32)
        def halves(x: pointer(uint16)):
            pass

        x = ones(dtype=ml_dtypes.bfloat16)
        halves((1,), x)
        assert Function.launches[0][2][:8] == x.data.ptr.to_bytes(8, "little")


@outside
class TestFaults:
    @pytest.mark.parametrize(
        "args, error, text",
        [
            ((ones(dtype=np.float64), 1, 1, 1.0), TypeError, "x is float64: must be float32, cast it with astype"),
            (
                (np.ones(4, np.float32), 1, 1, 1.0),
                TypeError,
                "x is a ndarray: must be an array on the GPU",
            ),
            ((None, 1, 1, 1.0), TypeError, "x is a NoneType: must be an array"),
            (
                (fake_cuda.Array(np.ones((4, 4), np.float32).T[1:]), 1, 1, 1.0),
                ValueError,
                r"x is \(3, 4\) with strides \(4, 16\): must be C-contiguous",
            ),
            ((ones(gpu=1), 1, 1, 1.0), ValueError, "x is on GPU 1 and CuPy's current GPU is 0: .*cupy.cuda.Device.1."),
            ((ones(), 2**31, 1, 1.0), ValueError, "n is 2147483648: must be a number that int32 can hold"),
            ((ones(), "3", 1, 1.0), TypeError, "n is '3': must be a number that int32 can hold"),
            ((ones(), 1, 1, 1e39), ValueError, "factor is 1e[+]39: must be a number that float32 can hold"),
            ((ones(), 1, 1, "much"), ValueError, "factor is 'much': must be a number that float32 can hold"),
            ((ones(), 1.5, 1, 1.0), TypeError, "n is 1.5: must be a number that int32 can hold"),
            ((ones(), 1, 1), TypeError, "got 3 arguments: must be x, n, size, factor"),
        ],
    )
    def test_arguments_are_named_and_nothing_is_launched(self, cupy, make, args, error, text):
        with pytest.raises(error, match=rf"scale: ({text})"):
            make()((1,), *args)
        assert not Function.launches

    def test_a_grid_beyond_all_bounds(self, cupy, make):
        with pytest.raises(ValueError, match=r"scale: grid is \(2147483648,\): it must have at most 2147483647 blocks"):
            make()((2**31,), ones(), 1, 1, 1.0)

    @pytest.mark.parametrize(
        "status, error, text",
        [
            (1, RuntimeError, "a grid may be 2147483647 x 65535 x 65535"),
            (701, RuntimeError, "a grid may be 2147483647 x 65535 x 65535"),
            (2, MemoryError, "the GPU's memory is full: take smaller batches"),
            (209, RuntimeError, "it was compiled for another GPU"),
            (700, RuntimeError, "a kernel that ran before failed, .*CUDA_LAUNCH_BLOCKING=1"),
            (719, RuntimeError, "CUDA does nothing more for this process: start it again"),
            (900, RuntimeError, "a stream that is being captured does not allow it"),
            (999, RuntimeError, "see the CUDA driver's manual"),
        ],
    )
    def test_the_driver_s_errors_name_kernel_and_arguments(self, cupy, make, status, error, text):
        scale = make()
        Function.error = CUDADriverError(status, "CUDA_ERROR_SO_AND_SO: so and so")
        expected = (
            r"scale: cannot be launched \(CUDA_ERROR_SO_AND_SO: so and so\); grid \(2,\), block \(256,\), shared 0, "
            rf"x: float32 \(4,\), n: 1, size: 5, factor: 1.0: .*{text}"
        )
        with pytest.raises(error, match=expected) as found:
            scale((2,), ones(), 1, 5, 1.0)
        assert found.value.__cause__ is Function.error
        Function.error = None
        scale((2,), ones(), 1, 5, 1.0)
        assert len(Function.launches) == 1

    def test_a_toolkit_that_is_missing(self, cupy, make, monkeypatch):
        def fail(kernel, arch):
            raise ImportError("No module named 'cuda.core'")

        monkeypatch.setattr(launch, "kept_cubin", fail)
        with pytest.raises(
            RuntimeError, match=r"scale: cannot be compiled for sm_90a, .*'cuda.core'.*handloom\[cuda12"
        ):
            make()((1,), ones(), 1, 1, 1.0)

    def test_an_error_of_the_compiler_comes_as_it_is(self, cupy, make, monkeypatch):
        def fail(kernel, arch):
            raise RuntimeError(f"{kernel.name}: cannot be compiled for {arch}: no")

        monkeypatch.setattr(launch, "kept_cubin", fail)
        with pytest.raises(RuntimeError, match=r"scale: cannot be compiled for sm_90a: no$"):
            make()((1,), ones(), 1, 1, 1.0)

    @pytest.mark.parametrize("capability, arch", [("80", "sm_80"), ("90", "sm_90a"), ("120", "sm_120a")])
    def test_the_architecture_of_an_array(self, capability, arch):
        array = SimpleNamespace(device=SimpleNamespace(compute_capability=capability))
        assert launch.architecture_of(array) == arch
        assert launch.architecture_of(np.ones(2)) is None

    def test_declarations_that_cannot_be_launched(self):
        with pytest.raises(ValueError, match="scale: threads is 2048: a block must have 1 to 1024"):
            kernel(threads=2048)(scale)

        def wide(n: uint64):
            pass

        with pytest.raises(TypeError, match="wide: numbers must be floats, signed integers or uint32 and smaller"):
            kernel(threads=32)(wide)


@in_simulator
class TestSimulated:
    def test_arrays_of_any_shape_are_changed_in_place(self):
        import warps

        x, y = np.random.default_rng(5).uniform(-1, 1, (4, 32)).astype(np.float32), np.zeros((2, 64), np.float32)
        warps.copy((1,), x, y, 16)
        np.testing.assert_array_equal(y.reshape(-1), x.reshape(-1))

    @pytest.mark.parametrize(
        "x, error, text",
        [
            (np.ones(128), TypeError, "copy: x is float64: must be float32"),
            (np.ones((128, 2), np.float32)[:, 0], ValueError, "copy: x is .* must be C-contiguous"),
        ],
    )
    def test_arguments_are_held_to_their_types(self, x, error, text):
        import warps

        with pytest.raises(error, match=text):
            warps.copy((1,), x, np.zeros(128, np.float32), 16)


@outside
class TestGraphRecording:
    @pytest.fixture(autouse=True)
    def fake(self, cupy):
        self.outer = Stream.current
        self.said = []

    def say(self, what):
        """A function on the host, which may read arrays."""
        synchronize()
        assert Stream.current is self.outer and MemoryPool.current == "the default pool's" and not is_recording()
        self.said.append(what if np.isscalar(what) else what.tolist())

    def test_graphs_and_functions_take_turns(self):
        x, y, z = np.array([1, 2]), np.zeros(2, int), np.zeros(2, int)
        with GraphRecording() as recording:
            do(lambda: np.add(x, 1, out=y))
            assert not y.any(), "captured, and not run"
            on_host(self.say, y)
            do(lambda: np.multiply(y, 2, out=z))
        assert recording.refused is None and self.said == [[2, 3]] and z.tolist() == [4, 6]
        x[:] = 5, 6
        with Stream() as self.outer:  # the current one at the replay
            recording.replay()
        assert self.said[1:] == [[6, 7]] and z.tolist() == [12, 14]
        assert not is_recording() and threads.recorder is None

    def test_memory_of_graphs_belongs_to_the_recording(self):
        with GraphRecording() as recording:
            chunk = weakref.ref(MemoryPool.current(512).mem)
            on_host(self.say, 1)
            assert MemoryPool.current is recording._pool.malloc
            with own_memory():
                assert MemoryPool.current(512).mem.size == 512 and len(recording._chunks) == 2
        assert MemoryPool.current == "the default pool's"
        assert chunk().size == 512, "although nobody but the recording needs it"
        del recording
        assert chunk() is None

    def test_arrays_that_were_launched_with_live_as_long(self, make):
        x = ones()
        alive = weakref.ref(x)
        with GraphRecording() as recording:
            make()((1,), x, 1, 1, 1.0)
        del x
        Function.launches.clear()
        assert alive() is not None
        del recording
        assert alive() is None

    def test_launches_are_made_again_with_other_numbers(self, make):
        with Launches() as recording:
            make()((3,), ones(), 1, 5, 0.5)
        recording.replay(0.25, 7.0)
        first, again = Function.launches
        assert again[0] == first[0] == (3, 1, 1) and again[2][:24] == first[2][:24]
        assert struct.unpack("<f", again[2][24:28]) == (0.25,)
        assert recording.refused is None
        with Launches() as recording:
            on_host(self.say, 1)
        assert recording.refused == "a function was called" and self.said == [1]

    def test_launches_of_functions_and_of_other_recordings_are_not_kept(self, make):
        with GraphRecording() as recording:
            on_host(make(), (1,), ones(), 1, 1, 1.0)
        assert not recording._kept and len(Function.launches) == 1

    def test_reading_an_array_while_it_is_captured_refuses_the_recording(self):
        recording = GraphRecording()
        with pytest.raises(CUDADriverError, match="Unsupported"), recording:
            synchronize()
        assert recording.refused == "an error ended it"
        assert Stream.current is self.outer and MemoryPool.current == "the default pool's" and not is_recording()
        with GraphRecording() as another:
            on_host(self.say, 3)
        assert another.refused is None and self.said == [3]

    @pytest.mark.parametrize("where", ["function", "end"])
    def test_a_capture_that_was_lost_is_an_error_of_the_recording(self, where):
        recording = GraphRecording()
        with pytest.raises(CUDADriverError, match="Invalidated"), recording:
            with pytest.raises(CUDADriverError, match="Unsupported"):
                synchronize()  # and somebody caught it
            if where == "function":
                on_host(self.say, 1)
        assert recording.refused == "an error ended it" and not self.said
        assert Stream.current is self.outer and MemoryPool.current == "the default pool's" and not is_recording()

    def test_an_error_of_a_function_leaves_nothing_captured(self):
        recording = GraphRecording()
        with pytest.raises(ZeroDivisionError), recording:
            on_host(divmod, 1, 0)
        assert recording.refused and Stream.current is self.outer and recording._stream.operations is None

    def test_what_the_other_device_does_is_refused(self, make):
        with GraphRecording() as recording:
            kernels.relu(np.ones(3, np.float32))
        assert recording.refused == "a kernel ran on the CPU"
        with Recording() as recording:
            make()((1,), ones(), 1, 1, 1.0)
        assert recording.refused == "a kernel ran on a GPU"

    def test_reasons_may_be_given(self):
        with GraphRecording() as recording:
            refuse("because")
        assert recording.refused == "because"

    def test_what_needs_nothing_of_a_graph_is_called_before_it(self):
        x, y = np.zeros(1, int), np.zeros(1, int)
        numbers = iter(range(7, 9))

        def number(x):
            assert Stream.current is self.outer and not is_recording()
            x[0] = next(numbers)

        with GraphRecording() as recording:
            do(lambda: np.add(x, 1, out=y))
            beforehand(number, x)
            do(lambda: np.add(y, x, out=y))
            assert x == [7] and y == [0]
        assert y == [15] and len(recording._parts) == 1 and recording.refused is None
        recording.replay()
        assert x == [8] and y == [17]

    def test_an_error_of_a_function_before_leaves_nothing_captured(self):
        recording = GraphRecording()
        with pytest.raises(ZeroDivisionError), recording:
            beforehand(divmod, 1, 0)
        assert recording.refused and Stream.current is self.outer and recording._stream.operations is None
        assert not is_recording()


class OnTheHost(GraphRecording):
    """Graphs of the CPU's kernels: they also run while they are captured, which changes nothing, since each writes
    anew what it computes; what counts is whether graphs and functions together are the whole step."""

    made = []
    lost = 0  # which of its functions shall find the capture lost

    def __init__(self):
        super().__init__()
        self.buffers, self.functions = {}, 0
        OnTheHost.made.append(self)

    def launched(self, drive, rounds, chunks, parallel, args):
        memory, function, block = threads.keep(drive, args)
        self._kept.append((memory, args))
        do(lambda: threads.run_kept(np.array([(function, block, rounds, chunks, parallel)], np.int64), parallel))

    def scratch(self):
        return self.buffers

    def afterwards(self, function, args):
        self.functions += 1
        if self.functions == OnTheHost.lost:
            self._stream.fault = CUDADriverError(901, "cudaErrorStreamCaptureInvalidated")
        super().afterwards(function, args)


def gather(optimizer):
    """`Optimizer.gather` with copies that are captured, as CuPy's are."""
    for group in optimizer._groups:
        for parameter, _, g in group.parts:
            do(partial(np.copyto, g, parameter.grad))
            parameter.grad = g


@outside
class TestSteps:
    """`fit` with captured steps, whose kernels are the CPU's."""

    @pytest.fixture(autouse=True)
    def captured(self, cupy, monkeypatch):
        monkeypatch.setattr(steps, "GraphRecording", OnTheHost)
        monkeypatch.setattr(steps, "_kind", lambda model, x: OnTheHost)
        monkeypatch.setattr(OnTheHost, "made", [])
        monkeypatch.setattr(nn.optimizers.Optimizer, "gather", gather)

    def fit(self, run_eagerly, *layers):
        rng = np.random.default_rng(3)
        x = rng.uniform(-1, 1, (70, 9)).astype(np.float32)
        y = nn.utils.to_categorical(rng.integers(0, 4, 70), 4)
        nn.utils.set_random_seed(5)
        model = nn.Sequential(
            [
                nn.Dense(12, activation="relu", input_dim=9),
                *(make() for make in layers),
                nn.Dense(4, activation="softmax"),
            ]
        )
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy", "mse"], run_eagerly=run_eagerly)
        return model, model.fit(x, y, batch_size=16, epochs=3, verbose=0).history

    def assert_alike(self, layers=()):
        (eager, expected), (model, found) = self.fit(True, *layers), self.fit(False, *layers)
        assert found == expected
        for one, other in zip(model.get_weights(), eager.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        return model._steps._by_shape.values()

    def test_the_same_bits_as_eager_steps(self):
        found = self.assert_alike([lambda: nn.Dropout(0.3)])
        assert len(found) == 2 and all(step.verified for step in found)
        # One graph, which also copies the gradients to where one launch reads them; then the metrics.
        assert all(len(step.recording._parts) == 1 and len(step.recording._after) == 2 for step in found)
        assert all(len({id(gradient.base) for _, gradient in step.gradients}) == 1 for step in found)

    def test_a_capture_that_was_lost_costs_speed_alone(self, monkeypatch):
        monkeypatch.setattr(OnTheHost, "lost", 1)
        assert list(self.assert_alike([lambda: nn.Dropout(0.3)])) == ["refused"] * 2
        assert len(OnTheHost.made) == 2 and threads.recorder is None

    def test_memory_that_does_not_suffice_costs_speed_alone(self, monkeypatch):
        def fail(recording):
            raise MemoryError("out of memory")

        monkeypatch.setattr(OnTheHost, "_begin", fail)
        assert list(self.assert_alike()) == ["refused"] * 2
        assert threads.recorder is None

    def test_a_loss_that_is_not_finite_is_found_in_every_kind_of_step(self):
        for batch in range(4):
            x = np.ones((70, 9), np.float32)
            x[16 * batch] = np.nan
            with pytest.raises(ValueError, match=f"the loss is NaN in batch {batch + 1} of 5"):
                self.fit_in_order(x)
            assert threads.recorder is None

    def fit_in_order(self, x):
        model = nn.Sequential([nn.Dense(4, activation="softmax", input_dim=9)])
        model.compile("sgd", "categorical_crossentropy")
        y = nn.utils.to_categorical(np.arange(70) % 4, 4)
        model.fit(x, y, batch_size=16, verbose=0, shuffle=False)


def test_what_is_asked_of_cupy_is_there():
    """By name, and on arrays over the host's memory: the real CuPy needs no GPU for that."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    driver = cupy.cuda.driver
    assert driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8 and callable(driver.funcSetAttribute)
    assert callable(driver.launchKernel) and hasattr(cupy.cuda.function.Function, "ptr")
    assert {"begin_capture", "end_capture"} <= set(dir(cupy.cuda.Stream)) and hasattr(cupy.cuda.graph.Graph, "launch")
    assert callable(cupy.cuda.Memory) and callable(cupy.cuda.MemoryPointer) and callable(cupy.cuda.using_allocator)
    assert callable(cupy.cuda.get_current_stream)
    assert cupy.cuda.MemoryPool(lambda size: None).malloc and cupy.get_default_memory_pool().free_all_blocks
    memory = np.zeros(4, np.float32)
    owner = cupy.cuda.UnownedMemory(memory.ctypes.data, memory.nbytes, memory, device_id=0)
    x = cupy.ndarray((2, 2), np.float32, cupy.cuda.MemoryPointer(owner, 0))
    assert x._c_contiguous and not x.T._c_contiguous and x.data.device_id == 0 and x.dtype is np.dtype(np.float32)
