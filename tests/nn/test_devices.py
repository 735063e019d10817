"""Devices by name, and where arrays, tensors, layers and optimizers' states live; with a CuPy that is made up."""

import copy
import pickle
import threading

import fake_gpu
import numpy as np
import pytest
from fake_gpu import Array, Device, Driver

from handloom import nn
from handloom.kernels.arrays import SimulatedArray, simulated
from handloom.nn import Parameter, Tensor, devices, training

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def two_gpus(monkeypatch):
    fake_gpu.install(monkeypatch, Driver(gpus=2))
    return fake_gpu.install_cupy(monkeypatch)


@pytest.fixture
def in_simulator(monkeypatch):
    """As under NUMBA_ENABLE_CUDASIM=1, as long as no kernel runs."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    monkeypatch.setattr("handloom.nn.gpu.find", lambda: nn.gpu.Gpus(("a GPU",)))


def on(device, data=X):
    return nn.to_device(data, device)


class TestNames:
    def test_the_list(self, two_gpus):
        assert nn.list_devices() == ["cpu", "cuda:0", "cuda:1"]

    def test_short_and_full_names(self, two_gpus):
        assert nn.device("cuda").name == "cuda:0"
        assert nn.device("cuda:01").name == "cuda:1"
        assert nn.device().name == nn.device("cpu").name == "cpu"
        assert repr(nn.device("cuda:1")) == "device('cuda:1')"
        assert nn.Dense(1, device=nn.device("cuda:1")).device == "cuda:1"

    def test_errors(self, two_gpus):
        with pytest.raises(ValueError, match=r"^device: device 'cuda:2': there is none .*'cpu', 'cuda:0', 'cuda:1'\]$"):
            nn.device("cuda:2")
        for name in ("cuda:", "cuda:-1", "cuda:x", "CUDA", "cudas", ""):
            with pytest.raises(
                ValueError, match=f"^device: device: unknown name {name!r}: it must be one of cpu, cuda"
            ):
                nn.device(name)
        with pytest.raises(TypeError, match="^to_device: device must be a name such as 'cpu' or 'cuda', got 0$"):
            nn.to_device(X, 0)


class TestDefault:
    def test_layers_and_lists_go_there(self, two_gpus):
        with nn.device("cuda:1"):
            layer, tensor, inner = nn.Dense(2), Tensor([1.0, 2.0]), nn.to_device([1.0])
            assert nn.Dense(2, device="cpu").device == "cpu"
            assert Tensor(X).data is X  # an array is where it is
            assert nn.device().name == "cuda:1"
        assert layer.device == tensor.device == devices.device_of(inner) == "cuda:1"
        assert nn.Dense(2).device == Tensor([1.0]).device == "cpu"

    def test_it_is_cupys_device_too_and_what_cuda_means(self, two_gpus):
        with nn.device("cuda:1"):
            assert Device.current == 1 and nn.device("cuda").name == "cuda:1"
            with nn.device("cpu"):
                assert Device.current == 1 and nn.device("cuda").name == "cuda:1" and nn.device().name == "cpu"
            with nn.device("cuda:0"):
                assert Device.current == 0
            assert Device.current == 1 and nn.device().name == "cuda:1"
        assert Device.current == 0 and nn.device("cuda").name == "cuda:0" and nn.device().name == "cpu"

    def test_it_ends_with_an_error_and_can_be_entered_again(self, two_gpus):
        place = nn.device("cuda:1")
        with pytest.raises(KeyError), place, place:
            raise KeyError
        assert Device.current == 0 and nn.device().name == "cpu"
        assert place(lambda: nn.device().name)() == "cuda:1"  # as a decorator

    def test_threads_have_their_own(self, two_gpus):
        seen = []
        with nn.device("cuda:1"):
            thread = threading.Thread(target=lambda: seen.append((nn.device().name, nn.device("cuda").name)))
            thread.start()
            thread.join()
        assert seen == [("cpu", "cuda:0")]


class TestArrays:
    def test_to_and_fro(self, two_gpus):
        there = on("cuda:1")
        assert type(there) is Array and there.device.id == 1 and Device.current == 0
        assert on("cuda:1", there) is there
        assert on("cuda:0", there).device.id == 0
        back = on("cpu", there)
        assert type(back) is np.ndarray and back.tolist() == X.tolist()
        assert on("cpu") is X
        assert on("cuda", [1, 2]).get().tolist() == [1, 2]

    def test_in_the_simulator(self, in_simulator):
        there = on("cuda")
        assert type(there) is SimulatedArray and not np.shares_memory(there, X)
        assert on("cuda:0", there) is there
        back = on("cpu", there)
        assert type(back) is np.ndarray and not np.shares_memory(back, there) and (back == X).all()

    def test_beside(self, two_gpus):
        assert devices.beside(X, X) is X
        assert devices.beside([1], X).tolist() == [1]
        assert devices.beside(X, on("cuda:1")).device.id == 1
        assert type(devices.beside(on("cuda:1"), X)) is np.ndarray


class TestTensors:
    def test_where_it_is(self, two_gpus):
        tensor = Tensor(on("cuda:1"))
        assert tensor.device == "cuda:1" and Tensor(X).device == "cpu"
        assert repr(tensor).endswith("dtype=float32, device='cuda:1')")
        assert repr(Tensor(X)).endswith("dtype=float32)")

    def test_numpy_copies_from_a_gpu(self, two_gpus):
        tensor = Tensor(on("cuda:1"))
        for found in (tensor.numpy(), np.asarray(tensor), np.array(tensor)):
            assert type(found) is np.ndarray and found.tolist() == X.tolist()
        assert np.asarray(tensor, np.float64).dtype == np.float64
        assert Tensor(X).numpy() is X
        with pytest.raises(ValueError, match="^__array__: the tensor is on cuda:1: NumPy can only have a copy of it"):
            tensor.__array__(copy=False)

    def test_numpy_copies_from_the_simulator(self, in_simulator):
        tensor = Tensor(on("cuda"))
        assert type(tensor.numpy()) is np.ndarray and not np.shares_memory(tensor.numpy(), tensor.data)

    def test_to(self, two_gpus):
        tensor = Tensor(X)
        assert tensor.to("cpu") is tensor and nn.to_device(tensor, "cpu") is tensor
        there = nn.to_device(tensor, "cuda:1")
        assert there.device == "cuda:1" and there.to("cpu").numpy().tolist() == X.tolist()
        assert not there.requires_grad
        with pytest.raises(ValueError, match="^to: device 'cuda:2': there is none of this name"):
            tensor.to("cuda:2")

    def test_gradients_find_their_way_back(self, in_simulator):
        x = Tensor(X, requires_grad=True)
        y = ((x * 2).to("cuda") * 3).sum()
        y.backward()
        assert type(x.grad) is np.ndarray and (x.grad == 6).all()
        x.zero_grad()
        x.to("cuda").backward(X)  # from the device of the caller
        assert type(x.grad) is np.ndarray and (x.grad == X).all()
        with nn.no_grad():
            assert not x.to("cuda").requires_grad

    def test_a_mixture_is_an_error_that_names_both(self, two_gpus):
        there = Tensor(on("cuda"))
        for name, mix in {
            "add": lambda: there + X,
            "subtract": lambda: there - Tensor(X),
            "multiply": lambda: there * np.array(2.0),
            "lt": lambda: there < X,
        }.items():
            with pytest.raises(TypeError, match=f"^{name}: b is a NumPy array and a a CuPy array: move one"):
                mix()
        with pytest.raises(TypeError, match="^divide: a is a NumPy array and b a CuPy array"):
            X / there
        with pytest.raises(TypeError, match="^Unsupported type <class 'str'>"):
            there + "text"

    def test_a_gradient_is_brought_to_its_tensor(self, two_gpus):
        x = Tensor(on("cuda:0"), requires_grad=True)
        x.backward(X.astype(np.float64))
        assert x.grad.device.id == 0 and x.grad.dtype == np.float32
        x.backward(np.ones((2, 3)).tolist())
        x.backward(Tensor(np.ones((2, 3))))
        assert x.grad.get().tolist() == (X + 2).tolist()

    def test_assign_crosses_devices(self, two_gpus):
        here, there = Parameter(np.zeros((2, 3), np.float32)), Parameter(on("cuda:1", np.zeros((2, 3), np.float32)))
        memory = there.data
        for value in (X, on("cuda:0"), X.tolist(), Tensor(X), Tensor(on("cuda:0"))):
            here.assign(np.zeros((2, 3)))
            there.assign(np.zeros((2, 3)))
            here.assign(value)
            there.assign(value)
            assert here.data.tolist() == there.numpy().tolist() == X.tolist()
        assert there.data is memory


class TestLayers:
    def test_parameters_are_drawn_on_the_cpu_and_copied(self, two_gpus):
        def drawn(device):
            nn.set_random_seed(5)
            layers = [nn.Dense(4, device=device), nn.LSTM(2, device=device), nn.Conv2D(2, 3, device=device)]
            for layer, shape in zip(layers, ((None, 3), (None, 2, 3), (None, 8, 8, 3))):
                layer.build(shape)
                assert {layer.device, *(weight.device for weight in layer.weights)} == {device}
            return [array for layer in layers for array in layer.get_weights()]

        for here, there in zip(drawn("cpu"), drawn("cuda:1")):
            assert type(there) is np.ndarray and here.tobytes() == there.tobytes()

    def test_to_moves_parameters_and_gradients(self, two_gpus):
        model = nn.Sequential([nn.Dense(4, input_shape=(3,)), nn.Dense(2)])
        before = model.get_weights()
        model.weights[0].grad = np.ones((3, 4), np.float32)
        assert model.to("cuda:1") is model
        assert {layer.device for layer in model.all_layers()} == {w.device for w in model.weights} == {"cuda:1"}
        assert model.weights[0].grad.device.id == 1
        model.add(nn.Dense(5))  # follows
        assert model.layers[-1].device == model.weights[-1].device == "cuda:1"
        model.to("cpu")
        assert all((a == b).all() for a, b in zip(before, model.get_weights()))
        assert {type(w.data) for w in model.weights} == {np.ndarray}

    def test_weights_cross_by_way_of_numpy(self, two_gpus, tmp_path):
        def make(device):
            return nn.Sequential([nn.Dense(4, input_shape=(3,)), nn.Dense(2)], device=device)

        here, there = make("cpu"), make("cuda:1")
        there.set_weights(here.get_weights())
        assert all((a == b).all() for a, b in zip(here.get_weights(), there.get_weights()))
        assert {type(array) for array in there.get_weights()} == {np.ndarray}
        there.save_weights(tmp_path / "weights.safetensors")
        there.save(tmp_path / "model.safetensors")
        fresh = make("cpu")
        fresh.load_weights(tmp_path / "weights.safetensors")
        loaded = nn.load_model(tmp_path / "model.safetensors", device="cuda")
        assert {layer.device for layer in loaded.all_layers()} == {w.device for w in loaded.weights} == {"cuda:0"}
        with nn.device("cuda:1"):
            assert nn.load_model(tmp_path / "model.safetensors").device == "cuda:1"
        assert nn.load_model(tmp_path / "model.safetensors").device == "cpu"
        for other in (fresh, loaded):
            assert all((a == b).all() for a, b in zip(here.get_weights(), other.get_weights()))

    def test_parts_follow_the_model(self, two_gpus):
        inner = nn.Sequential([nn.Dense(2), nn.Dense(2, device="cpu")])
        model = nn.Sequential([nn.Dense(2), inner, nn.Flatten()], device="cuda:1")
        assert [layer.device for layer in model.all_layers()] == [
            "cuda:1",
            "cuda:1",
            "cuda:1",
            "cuda:1",
            "cpu",
            "cuda:1",
        ]

    def test_a_model_follows_its_first_part_that_is_given_one(self, two_gpus):
        model = nn.Sequential([nn.Flatten(), nn.Dense(2, device="cuda:1"), nn.Dense(2)])
        assert {layer.device for layer in model.all_layers()} == {"cuda:1"}

    def test_a_model_of_ones_own(self, in_simulator):
        class Net(nn.Model):
            def __init__(self, part=None, **options):
                super().__init__(**options)
                self.scale = Parameter(np.ones(3, np.float32))
                self.flatten = nn.Flatten(device=part)
                self.first_seen = None

            def call(self, x):
                self.first_seen = self.first_seen or x.device
                return self.flatten(x) * self.scale

        for net in (Net(device="cuda"), Net("cuda"), Net().to("cuda")):
            assert type(net(X).data) is SimulatedArray
            assert net.first_seen == net.device == net.scale.device == net.flatten.device == "cuda:0"
        assert type(Net()(X).data) is np.ndarray

    def test_numpy_inputs_are_copied_to_the_layer(self, in_simulator):
        layer = nn.Flatten(device="cuda")
        for x in (X, X.tolist(), X.astype(np.float64), simulated(X)):
            y = layer(x)
            assert type(y.data) is SimulatedArray and y.dtype == np.float32
        x = np.ones((1, 2, 2), np.float32)
        x = layer(x)
        assert x.shape == (1, 4)

    @pytest.mark.parametrize("given, kind", [(X, np.ndarray), (simulated(X), SimulatedArray)])
    def test_predictions_are_the_kind_of_array_that_came(self, in_simulator, monkeypatch, given, kind):
        """Also where batches travel ahead, as they do to a GPU, and arrive as arrays there."""
        monkeypatch.setattr(training, "on_device_of", lambda model, batches: ((simulated(x), y) for x, y in batches))
        model, parts, join = nn.Sequential([nn.Flatten(device="cuda")]), [], np.concatenate
        monkeypatch.setattr(np, "concatenate", lambda arrays: parts.extend(arrays) or join(arrays))
        outputs = model.predict(given, batch_size=1, verbose=0)
        assert {type(array) for array in (*parts, outputs)} == {kind}
        np.testing.assert_array_equal(outputs, X)

    def test_arrays_of_a_gpu_are_not_moved_unasked(self, two_gpus):
        text = (
            r"^Dense: x is a CuPy array on cuda:1 and the layer 'mine' is on cpu: move one, for example with "
            r"nn.to_device\(x, 'cpu'\), or the layer with its to\('cuda:1'\)$"
        )
        with pytest.raises(TypeError, match=text):
            nn.Dense(2, name="mine")(on("cuda:1"))
        with pytest.raises(TypeError, match="Dense: x is a CuPy array on cuda:1 and the layer '.*' is on cuda:0"):
            nn.Dense(2, device="cuda")(on("cuda:1"))
        with pytest.raises(TypeError, match="Sequential: x is a CuPy array on cuda:0 and the layer '.*' is on cpu"):
            nn.Sequential([nn.Dense(2)])(on("cuda"))

    def test_tensors_are_not_moved_unasked(self, two_gpus):
        layer = nn.Dense(2, device="cuda")
        with pytest.raises(TypeError, match="^dense: x is a NumPy array and w a CuPy array: move one") as error:
            layer(Tensor(X))
        assert f"in layer {layer.name!r} (Dense)" in error.value.__notes__[0]

    def test_out_of_memory_names_the_layer(self):
        class Hungry(nn.Layer):
            def call(self, x):
                raise MemoryError("Out of memory allocating 4,096 bytes")

        with pytest.raises(MemoryError, match="4,096 bytes") as error:
            nn.Sequential([Hungry(name="hungry")])(X)
        assert error.value.__notes__ == ["in layer 'hungry' (Hungry), called on shape (None, 3)"]

    def test_copies_and_pickles_keep_the_device(self, in_simulator):
        model = nn.Sequential([nn.Dense(4, input_shape=(3,)), nn.Dense(2)], device="cuda")
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other.device == "cuda:0" and {w.device for w in other.weights} == {"cuda:0"}


def test_states_of_optimizers_are_where_their_parameters_are(in_simulator):
    model = nn.Sequential([nn.Dense(4, input_shape=(3,)), nn.Dense(2)], device="cuda")
    for optimizer in (nn.Adam(), nn.SGD(momentum=0.9), nn.RMSprop(centered=True, momentum=0.5)):
        optimizer.bind(model.trainable_weights)
        states = [array for name, array in optimizer.state_arrays().items() if name != "iterations"]
        assert states and {devices.device_of(array) for array in states} == {"cuda:0"}
        assert {w.device for w in model.weights} == {"cuda:0"}
