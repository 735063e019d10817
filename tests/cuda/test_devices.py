"""Programs on "cuda", in Numba's simulator: what they compute there is what they compute on the CPU."""

import numpy as np
import pytest
from numba.core import config

from handloom import nn
from handloom.kernels.arrays import SimulatedArray

pytestmark = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator: make test-cuda runs these")

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(4, 5)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1])


def train(device, loss_of, optimizer, targets, activation=None, steps=2):
    """The losses of a loop written by hand, and the model."""
    nn.set_random_seed(6)
    model = nn.Sequential([nn.Dense(4, activation="tanh"), nn.Dense(3, activation=activation)], device=device)
    targets = nn.to_device(targets, device)
    losses = []
    for _ in range(steps):
        loss = loss_of(targets, model(X))  # X is NumPy's, and copied
        losses.append(loss.item())
        loss.backward()
        optimizer.bind(model.trainable_weights)
        optimizer.step()
        optimizer.zero_grad()
    return losses, model


def squared_error(y_true, y_pred):
    difference = y_pred - y_true
    return (difference * difference).mean()


@pytest.mark.parametrize(
    "loss, optimizer, targets, activation",
    [
        (squared_error, nn.SGD, Y, None),
        (nn.MeanSquaredError(), nn.Adam, Y, None),
        (nn.SparseCategoricalCrossentropy(), nn.RMSprop, LABELS, "softmax"),
    ],
    ids=["arithmetic-sgd", "mse-adam", "crossentropy-rmsprop"],
)
def test_a_loop_by_hand_gets_the_losses_of_the_cpu(loss, optimizer, targets, activation):
    expected, here = train("cpu", loss, optimizer(0.05), targets, activation)
    found, there = train("cuda", loss, optimizer(0.05), targets, activation)
    assert expected[1] < expected[0]
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert {type(weight.data) for weight in there.weights} == {SimulatedArray}
    for a, b in zip(there.get_weights(), here.get_weights()):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def fit(device):
    """What `fit`, `evaluate` and `predict` give on data that lies in the host's memory."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(5, 6, 6, 1)).astype(np.float32), rng.integers(0, 3, 5)
    nn.set_random_seed(2)
    model = nn.Sequential(
        [
            nn.Conv2D(2, 3, activation="relu", input_shape=(6, 6, 1)),
            nn.MaxPooling2D(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Dense(3, activation="softmax"),
        ],
        device=device,
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=3, epochs=1, verbose=0, validation_data=(x[:2], y[:2])).history
    return history, model.evaluate(x, y, batch_size=3, verbose=0), model.predict(x, batch_size=3, verbose=0)


def test_fit_evaluate_and_predict_give_what_they_give_on_the_cpu():
    (history, scores, outputs), (expected, expected_scores, expected_outputs) = fit("cuda"), fit("cpu")
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4)
    assert type(outputs) is np.ndarray
    np.testing.assert_allclose(outputs, expected_outputs, rtol=1e-4, atol=1e-6)


def test_a_model_moves_there_and_back():
    model = nn.Sequential([nn.Dense(4, activation="tanh"), nn.Dense(3)])
    expected = model(X).numpy()
    y = model.to("cuda")(X)
    assert type(y.data) is SimulatedArray and y.device == "cuda:0"
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="Sequential: x is a CuPy array on cuda:0 and the layer '.*' is on cpu"):
        model.to("cpu")(y.data)
    np.testing.assert_array_equal(model(X).numpy(), expected)


def test_a_model_is_saved_there_and_loaded_anywhere(tmp_path):
    model = nn.Sequential([nn.Dense(3, input_shape=(5,))], device="cuda")
    expected = model(X).numpy()
    model.save(tmp_path / "model.safetensors")
    for device, kind in (("cpu", np.ndarray), ("cuda", SimulatedArray)):
        y = nn.load_model(tmp_path / "model.safetensors", device=device)(X)
        assert type(y.data) is kind
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_default_device():
    with nn.device("cuda"):
        layer, tensor = nn.Dense(3), nn.Tensor(X.tolist())
        assert type((tensor * 2).data) is SimulatedArray
    assert type(layer(tensor.astype("float32")).data) is SimulatedArray


def test_out_of_memory_names_the_layer_and_the_bytes():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")

    class Hungry(nn.Layer):
        def call(self, x):
            raise cupy.cuda.memory.OutOfMemoryError(4096, 10_000, 12_000)

    with pytest.raises(MemoryError, match="Out of memory allocating 4,096 bytes") as error:
        Hungry(name="hungry")(X)
    assert error.value.__notes__ == ["in layer 'hungry' (Hungry), called on shape (None, 5)"]
