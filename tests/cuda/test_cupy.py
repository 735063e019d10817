"""CuPy itself, with a CUDA that is pretended: everything of a GPU's way through handloom but the GPU.

Kernels run compiled: `make test-ptx`, which installs CuPy.
"""

import compiled
import numpy as np
import pytest
from numba import cuda, float32

from handloom import kernels, nn
from handloom.bench.gpu import contract, peers, steps, timings
from handloom.kernels import launch
from handloom.kernels.graphs import GraphRecording
from handloom.kernels.recording import afterwards
from handloom.nn import gpu

pytestmark = [
    pytest.mark.skipif(not compiled.COMPILED, reason="needs CuPy and compiled kernels: make test-ptx runs these"),
    pytest.mark.usefixtures("cupy"),
]

X = np.random.default_rng(3).standard_normal((5, 6)).astype(np.float32)


@pytest.fixture
def cupy(monkeypatch):
    """CuPy on a machine with a GPU, as it seems to it and to handloom."""
    import pretended_cuda

    cupy = pretended_cuda.import_cupy()
    monkeypatch.setattr(launch, "SIMULATED", False)
    monkeypatch.setattr(launch, "kept_cubin", pretended_cuda.cubin_of)
    monkeypatch.setattr(gpu, "simulated", lambda: False)
    monkeypatch.setattr(gpu, "find", lambda: gpu.Gpus(("pretended",), "12.9"))
    yield cupy
    assert not pretended_cuda.problems


def dense():
    return nn.Sequential([nn.Dense(8, activation="gelu", input_dim=6), nn.Dense(3)]), (6,)


def cnn():
    layers = [nn.Conv2D(2, 3, activation="relu", input_shape=(6, 6, 1)), nn.MaxPooling2D(2), nn.Flatten()]
    return nn.Sequential([*layers, nn.Dropout(0.25), nn.Dense(3)]), (6, 6, 1)


def lstm():
    return nn.Sequential([nn.LSTM(4, input_shape=(2, 3)), nn.Dense(3)]), (2, 3)


def train(build, place, run_eagerly=False):
    """(History, predictions, weights, how many shapes are played back) of six steps, on arrays that `place` makes."""
    nn.set_random_seed(4)
    model, shape = build()
    rng = np.random.default_rng(5)
    x, y = place(rng.standard_normal((7, *shape)).astype(np.float32)), place(rng.integers(0, 3, 7))
    loss = nn.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=run_eagerly)
    history = model.fit(x, y, batch_size=3, epochs=2, verbose=0, validation_data=(x[:2], y[:2])).history
    played = sum(getattr(step, "verified", False) for step in model._steps._by_shape.values())
    return history, model.predict(x, batch_size=4, verbose=0), model.get_weights(), played


@pytest.mark.parametrize("build", [dense, cnn, lstm])
def test_training_gives_what_it_gives_on_the_cpu(build):
    """From the host's memory, over page-locked memory; its steps are captured and played back."""
    with nn.device("cuda"):
        history, predicted, weights, played = train(build, np.asarray)
    expected, predicted_there, weights_there, _ = train(build, np.asarray)
    assert played == 1
    assert type(predicted) is np.ndarray
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(predicted, predicted_there, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(weights, weights_there, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_graphs_give_the_bits_of_eager_steps(cupy):
    """From the GPU's memory, in another order each epoch."""
    with nn.device("cuda"):
        graphs, eager = (train(dense, cupy.asarray, run_eagerly) for run_eagerly in (False, True))
    assert (graphs[3], eager[3]) == (1, 0)
    assert graphs[0] == eager[0]
    assert type(graphs[1]) is cupy.ndarray
    assert graphs[1].get().tobytes() == eager[1].get().tobytes()
    for ours, theirs in zip(graphs[2], eager[2], strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_neither_softer_targets_nor_metrics_cut_the_graph(cupy):
    """Each metric of handloom's own, and targets that have to be converted for it."""
    histories = []
    y = cupy.asarray(np.eye(3, dtype=np.uint8)[[0, 2, 1, 1, 0, 2]])
    for run_eagerly in (False, True):
        nn.set_random_seed(4)
        with nn.device("cuda"):
            model = nn.Sequential([nn.Dense(3, activation="softmax", input_dim=6)])
        loss = nn.CategoricalCrossentropy(label_smoothing=0.1)
        model.compile("sgd", loss, metrics=["accuracy", "binary_accuracy", "mse", "mae"], run_eagerly=run_eagerly)
        x = np.random.default_rng(5).standard_normal((6, 6)).astype(np.float32)
        histories.append(model.fit(cupy.asarray(x), y, batch_size=2, epochs=2, verbose=0).history)
        if not run_eagerly:
            (step,) = model._steps._by_shape.values()
            assert step.verified and len(step.recording._parts) == 1
    assert histories[0] == histories[1]
    assert all(len(set(values)) == 2 for values in (histories[0]["loss"], histories[0]["mse"]))


OPTIMIZERS = {
    "sgd": lambda: nn.SGD(0.1),
    "nesterov": lambda: nn.SGD(0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda: nn.RMSprop(0.01),
    "rmsprop-all": lambda: nn.RMSprop(0.01, momentum=0.5, centered=True),
    "adam": lambda: nn.Adam(0.01),
    "adamw": lambda: nn.AdamW(0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_are_launched_again_with_the_rates_of_the_day(name):
    weights = []
    for run_eagerly in (False, True):
        nn.set_random_seed(4)
        with nn.device("cuda"):
            model, _ = dense()
        model.compile(OPTIMIZERS[name](), "mse", run_eagerly=run_eagerly)
        x = np.random.default_rng(5).standard_normal((6, 6)).astype(np.float32)
        for rate in (0.02, 0.005, 0.05):
            model.optimizer.learning_rate = rate
            model.fit(x, x[:, :3], batch_size=2, verbose=0)
        weights.append([array.tobytes() for array in (*model.get_weights(), *map(np.asarray, state_of(model)))])
        if not run_eagerly:
            (step,) = model._steps._by_shape.values()
            assert len(step.recorded_update._parts) == 1 and step.recorded_update.refused is None
    assert weights[0] == weights[1]


def state_of(model):
    return [nn.to_device(array, "cpu") for array in model.optimizer.state_arrays().values()]


def test_a_loss_that_is_not_finite_names_the_sample_although_the_next_batch_is_there():
    with nn.device("cuda"):
        model, _ = dense()
    model.compile("sgd", "mse")
    x = np.ones((14, 6), np.float32) * np.arange(14, dtype=np.float32)[:, None]
    model.fit(x, x[:, :3] / 9, batch_size=2, shuffle=False, verbose=0)
    assert [step.verified for step in model._steps._by_shape.values()] == [True]
    x[7] = np.nan
    with pytest.raises(ValueError, match=r"the loss is NaN in batch 4 of 7, epoch 1: x\[7\] has NaN, and 1 of"):
        model.fit(x, x[:, :3] / 9, batch_size=2, shuffle=False, verbose=0)


def test_what_the_host_reads_comes_with_the_graph(cupy):
    x, seen = cupy.asarray(X), []
    with GraphRecording() as recording:
        y = kernels.relu(x)
        here = recording.bring(y)
        afterwards(lambda *args: seen.append([np.array(arg) for arg in args]), y, 3)
    for sign in (1, -1):
        if sign < 0:
            x[...] = cupy.asarray(-X)
            recording.replay()
        assert type(here) is np.ndarray
        np.testing.assert_array_equal(here, np.maximum(sign * X, 0))
        np.testing.assert_array_equal(seen[-1][0], here)
    assert [args[1] for args in seen] == [3, 3] and len(recording._parts) == 1


def test_labels_are_looked_at_when_the_graph_is_over(cupy):
    x, labels = cupy.asarray(X), cupy.asarray([0, 2, 5, 1, 3])
    with GraphRecording() as recording:
        loss = kernels.sparse_softmax_cross_entropy(x, labels)
    assert len(recording._parts) == 1
    np.testing.assert_allclose(loss.get(), kernels.sparse_softmax_cross_entropy(X, labels.get()), rtol=1e-6)
    for wrong in (6, 10**9, -1):
        labels[3] = wrong
        with pytest.raises(
            ValueError, match=rf"^sparse_softmax_cross_entropy: labels\[3\] is {wrong}: must be from 0 to 5"
        ):
            recording.replay()


def test_a_loop_and_a_loss_of_ones_own(cupy):
    weights = []
    for device in ("cuda", "cpu"):
        nn.set_random_seed(1)
        layer = nn.Dense(3, input_dim=6, device=device)
        x, y = (nn.to_device(array, device) for array in (X, X[:, :3]))
        optimizer = nn.SGD(0.1, momentum=0.9, clipnorm=1.0)
        for _ in range(3):
            loss = (abs(layer(x) - y) + (layer(x)[:, 1:] ** 2).sum(axis=-1, keepdims=True) / 2).mean()
            loss.backward()
            optimizer.bind(layer.trainable_weights)
            optimizer.step()
            optimizer.zero_grad()
        weights.append(layer.get_weights())
    assert type(loss.data) is np.ndarray
    for there, here in zip(*weights, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_clipping_does_not_wait_for_the_gpu(clip):
    """Else it could not be captured."""
    with nn.device("cuda"):
        layer = nn.Dense(3, input_dim=6)
    layer(nn.to_device(X, "cuda")).sum().backward()
    optimizer = nn.SGD(0.1, parameters=layer.trainable_weights, **{clip: 0.5})
    before = layer.get_weights()[0]
    with GraphRecording() as recording:
        optimizer.step()
    assert recording.refused is None
    assert (layer.get_weights()[0] != before).any()


def test_kernels_on_plain_arrays(cupy):
    """Of any layout, on CuPy's current stream."""
    x = cupy.asarray(X)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        found = kernels.softmax(x.T), kernels.matmul(x[1:], x[:, ::-1].T, variant="tensor"), kernels.relu(x[:0])
        stream.synchronize()
    assert {type(y) for y in found} == {cupy.ndarray}
    np.testing.assert_allclose(found[0].get(), kernels.softmax(np.ascontiguousarray(X.T)), rtol=1e-6)
    np.testing.assert_allclose(found[1].get(), X[1:] @ X[:, ::-1].T, atol=2.0**-9 * 10)
    assert found[2].shape == (0, 6)


def test_shared_memory_beyond_48_kb_is_asked_for(cupy):
    @launch.kernel(threads=32)
    def count(y: launch.pointer(float32)):
        i = cuda.grid(1)
        y[i] = i

    y = cupy.empty(64, cupy.float32)
    count((2,), y, shared=100_000)
    np.testing.assert_array_equal(y.get(), np.arange(64))
    with pytest.raises(RuntimeError, match="count: cannot be launched .*invalid argument.* shared 300000, y: float32"):
        count((2,), y, shared=300_000)
    count((2,), y, shared=200_000)


def test_errors_name_what_they_are_about(cupy):
    x = cupy.asarray(X)
    with pytest.raises(TypeError, match="^matmul: b is a NumPy array and a a CuPy array: move one"):
        kernels.matmul(x, X)
    with pytest.raises(TypeError, match="^add: b is a NumPy array and a a CuPy array: move one"):
        nn.Tensor(x) + X
    with pytest.raises(TypeError, match="^matmul: a is float32 and b is float64"):
        kernels.matmul(x, x.astype(cupy.float64))
    labels = cupy.asarray([0, 1, 2, 9, 0])
    model = nn.Sequential([nn.Dense(3, activation="softmax")], device="cuda")
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"^fit: .* y\[3\] in batch 2 of 3 is 9: labels must be"):
        model.fit(x, labels, batch_size=2, shuffle=False, verbose=0)


def test_out_of_memory_names_the_layer_and_the_bytes(cupy, monkeypatch):
    layer = nn.Dense(300, device="cuda", name="wide")
    layer(X)
    monkeypatch.setattr("pretended_cuda.MEMORY", 1 << 20)
    with pytest.raises(MemoryError, match="allocating 2,400,256 bytes") as error:
        layer(np.zeros((2000, 6), np.float32))
    assert error.value.__notes__ == ["in layer 'wide' (Dense), called on shape (None, 6)"]
    assert layer(X).shape == (5, 300)


@pytest.mark.parametrize("family", contract.families())
def test_gpu_check_verifies(family):
    """What `make gpu-check` does on a GPU, with the first case of each family."""
    with np.errstate(all="ignore"):
        assert contract.check(contract.points(family, small=True)[0])["status"] == "ok"


def test_gpu_check_times(monkeypatch):
    """Its kinds of rows, each from a case that is small enough."""
    from handloom.bench.gpu import limits  # imports instructions that Numba alone does not have

    sizes = {"BIG": 2**12, "COPIED": 2**12, "MATMULS": (8,)}
    for name, value in sizes.items():
        monkeypatch.setattr(timings, name, value)
    monkeypatch.setattr(limits, "ROUNDS", 1)
    monkeypatch.setattr(steps, "QUICK", 2)
    monkeypatch.setattr(peers, "products", lambda a, b: {"NumPy": (lambda: a.get() @ b.get(), np.asarray)})
    begin = "copy", "peak", "matmul 8^3", "relu", "adam_update", "step of dense"
    rows = [row for name, task in timings.tasks(quick=True) if name.startswith(begin) for row in task()]
    assert len(rows) == 1 + 3 + (4 + 1 + 2 * contract.takes_bfloat16()) + 1 + 1 + 1
    assert {row["status"] for row in rows} == {"ok"}, rows
    assert all(row["us"] > 0 for row in rows)
