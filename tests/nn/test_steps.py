"""Steps that are played back give the bits of eager ones, or are not played back."""

import copy
import pickle
import threading

import numpy as np
import pytest

from handloom import nn
from handloom.kernels.graphs import GraphRecording
from handloom.kernels.recording import Recording
from handloom.nn import steps as module


def data(samples, shape, classes, seed=3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (samples, *shape)).astype(np.float32)
    return x, nn.utils.to_categorical(rng.integers(0, classes, samples), classes)


def dense():
    return [nn.Dense(12, activation="relu", input_dim=9), nn.Dropout(0.3), nn.Dense(4, activation="softmax")]


def cnn():
    return [
        nn.Conv2D(3, 3, padding="same", activation="relu", input_shape=(9, 9, 2)),
        nn.MaxPooling2D(2),
        nn.Conv2D(4, 3, strides=2),
        nn.Activation("gelu"),
        nn.Flatten(),
        nn.Dense(4, activation="softmax"),
    ]


def lstm():
    return [nn.LSTM(6, return_sequences=True, input_shape=(5, 3)), nn.LSTM(5), nn.Dense(4, activation="softmax")]


SHAPES = {dense: (9,), cnn: (9, 9, 2), lstm: (5, 3)}


def build(layers, run_eagerly, **options):
    nn.utils.set_random_seed(5)
    model = nn.Sequential(layers())
    options = {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": ["accuracy"], **options}
    model.compile(**options, run_eagerly=run_eagerly)
    return model


def played(model):
    """The shapes of batches whose steps are played back."""
    return [shapes for shapes, step in model._steps._by_shape.items() if getattr(step, "verified", False)]


def assert_alike(a, b):
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layers", SHAPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "loss": "mse", "metrics": ["mae"]},
        {"loss": nn.losses.CategoricalCrossentropy(label_smoothing=0.1)},
    ],
    ids=["adam", "sgd", "smoothed"],
)
def test_the_same_bits_as_eager_steps(layers, options):
    """Three epochs, each with a short last batch and a learning rate of its own."""
    x, y = data(70, SHAPES[layers], 4)
    models, histories = [], []
    for run_eagerly in (True, False):
        model = build(layers, run_eagerly, **options)
        for rate in (0.01, 0.002, 0.05):
            model.optimizer.learning_rate = rate
            histories.append(model.fit(x, y, batch_size=16, epochs=2, verbose=0).history)
        models.append(model)
    assert_alike(*models)
    assert histories[:3] == histories[3:]
    assert not played(models[0])
    assert len(played(models[1])) == 2, "full and last batches"


def updates(model):
    """Whether the optimizer's steps behind the steps that are played back are too."""
    return [step.recorded_update is not None for step in model._steps._by_shape.values()]


class Halved(nn.optimizers.SGD):
    """One of the user's own, which changes the weights by more than the kernel."""

    def update(self, w, g, velocity=None):
        super().update(w, g, velocity)
        w *= 0.5


@pytest.mark.parametrize(
    "make, recorded",
    [
        (lambda: nn.SGD(0.1), True),
        (lambda: nn.SGD(0.1, momentum=0.9), True),
        (lambda: nn.SGD(0.1, momentum=0.9, nesterov=True), True),
        (lambda: nn.RMSprop(0.01), True),
        (lambda: nn.RMSprop(0.01, momentum=0.5, centered=True), True),
        (lambda: nn.Adam(0.01), True),
        (lambda: nn.AdamW(0.01), True),
        (lambda: nn.Adam(0.01, global_clipnorm=0.1), False),
        (lambda: Halved(0.1), False),
    ],
    ids=["sgd", "momentum", "nesterov", "rmsprop", "centered", "adam", "adamw", "clipped", "own"],
)
def test_every_optimizer_steps_as_it_does_eagerly(make, recorded):
    """With settings that change between epochs and, by a callback, between batches."""

    class Slower(nn.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate *= 0.9

    x, y = data(64, (9,), 4)
    models = []
    for run_eagerly in (True, False):
        model = build(dense, run_eagerly, optimizer=make())
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        for name, value in (("epsilon", 1e-3), ("momentum", 0.3), ("beta_1", 0.5), ("nesterov", False)):
            if getattr(model.optimizer, name, 0.0):
                setattr(model.optimizer, name, value)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[Slower()])
        state = {name: array.copy() for name, array in model.optimizer.state_arrays().items()}
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        model.optimizer.load_state_arrays(state)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        models.append(model)
    assert_alike(*models)
    for name, array in models[0].optimizer.state_arrays().items():
        np.testing.assert_array_equal(models[1].optimizer.state_arrays()[name], array, err_msg=name)
    assert played(models[1])
    assert updates(models[1]) == [recorded]


@pytest.mark.parametrize("make", [lambda: nn.Adam(0.01), lambda: nn.SGD(0.1, momentum=0.9)], ids=["adam", "momentum"])
def test_weights_whose_gradient_is_never_written_are_those_of_eager_steps(make, monkeypatch):
    """Layers so large that the update computes their gradient; dropout, rates that change, a short last batch."""
    taken = []

    class Taking(Recording):
        def take_over(self, y):
            taken.append(super().take_over(y))
            return taken[-1]

    monkeypatch.setattr("handloom.nn.optimizers.Recording", Taking)
    x, y = data(88, (700,), 4)
    models = []

    def layers():
        return [nn.Dense(390, activation="relu", input_dim=700), nn.Dropout(0.3), nn.Dense(4, activation="softmax")]

    for run_eagerly in (True, False):
        model = build(layers, run_eagerly, optimizer=make())
        for rate in (0.01, 0.002, 0.05):
            model.optimizer.learning_rate = rate
            model.fit(x, y, batch_size=32, epochs=2, verbose=0)
        models.append(model)
    assert_alike(*models)
    for name, array in models[0].optimizer.state_arrays().items():
        np.testing.assert_array_equal(models[1].optimizer.state_arrays()[name], array, err_msg=name)
    assert len(played(models[1])) == 2
    assert [what.m for what in taken if what is not None] == [700, 700], "that of full and of last batches"


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "float64"])
@pytest.mark.parametrize("sparse", [False, True], ids=["one-hot", "labels"])
def test_metrics_count_in_steps_that_are_played_back_as_in_eager_ones(dtype, sparse):
    """Whatever the targets have to be converted from."""
    x, y = data(70, (9,), 4)
    y = np.asfortranarray(y.argmax(-1)[:, None] if sparse else y).astype(dtype)
    loss = f"{'sparse_' if sparse else ''}categorical_crossentropy"
    histories = []
    for run_eagerly in (True, False):
        model = build(dense, run_eagerly, loss=loss, metrics=["accuracy", "binary_accuracy", "mse"][: 3 - 2 * sparse])
        histories.append(model.fit(x, y, batch_size=16, epochs=4, verbose=0).history)
    assert histories[0] == histories[1]
    assert len(set(histories[0]["accuracy"])) > 1
    assert len(played(model)) == 2


def test_sparse_labels_are_played_back_and_still_checked():
    x, y = data(64, (9,), 4)
    labels = y.argmax(-1).astype(np.int32)
    models = []
    for run_eagerly in (True, False):
        model = build(dense, run_eagerly, loss="sparse_categorical_crossentropy")
        model.fit(x, labels, batch_size=16, epochs=3, verbose=0)
        models.append(model)
    assert_alike(*models)
    assert played(models[1])
    before = models[1].get_weights()
    with pytest.raises(ValueError, match="labels.* is 9"):
        models[1].train_on_batch(x[:16], np.full(16, 9, np.int32))
    for weight, old in zip(models[1].get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("fits", range(5))
def test_all_targets_are_checked_before_the_first_step(fits):
    """Whether that is the first of its shape, recorded, compared, or played back."""
    x, y = data(24, (9,), 4)
    labels = y.argmax(-1)
    model = build(dense, False, loss="sparse_categorical_crossentropy")
    for index in range(fits):
        model.fit(x + index, (labels + index) % 4, batch_size=24, verbose=0)
    wrong = np.where(np.arange(24) == 20, 7, labels)
    for data_of_fit, what in (
        ({"y": wrong}, "fit"),
        ({"y": labels, "validation_data": (x, wrong)}, r"fit\(validation_data\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"^{what}: sparse_categorical_crossentropy: y\[20\] in batch 1 of 1 is 7"
        ):
            model.fit(x, **data_of_fit, batch_size=24, verbose=0)
    assert model.optimizer.iterations == fits
    model.fit(x, labels, batch_size=24, verbose=0)
    assert bool(played(model)) == (fits >= 3)


def test_train_on_batch_is_played_back_too():
    x, y = data(64, (9,), 4)
    models, results = [], []
    for run_eagerly in (True, False):
        models.append(build(dense, run_eagerly))
        for start in (0, 16, 32, 48, 0, 16):
            results.append(models[-1].train_on_batch(x[start : start + 16], y[start : start + 16]))
    assert results[:6] == results[6:]
    assert_alike(*models)
    assert played(models[1])


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    x, y = data(64, (9,), 4)
    model = build(dense, False)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0, shuffle=False)
    assert played(model)
    before = model.get_weights()
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN in batch 1 of 4, epoch 1: x\[3\]"):
        model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert all(weight.grad is None for weight in model.weights)


class Doubled(nn.Layer):
    def call(self, x):
        return x * 2


@pytest.mark.parametrize(
    "layers, options",
    [
        (lambda: [Doubled(input_shape=(9,)), nn.Dense(4, activation="softmax")], {}),
        (lambda: [nn.Dense(4, activation=lambda x: nn.activations.softmax(x), input_dim=9)], {}),
        (lambda: [nn.Dense(4, input_dim=9)], {"loss": lambda t, p: (t - p) * (t - p)}),
    ],
    ids=["layer", "activation", "loss"],
)
def test_code_of_the_users_own_is_never_played_back(layers, options):
    x, y = data(96, (9,), 4)
    model = build(layers, False, **options)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert not model._steps._by_shape


def test_metrics_of_the_users_own_see_every_batch_in_arrays_that_stay():
    x, y = data(64, (9,), 4)
    seen = []

    def keep(t, p):
        seen.append((t, p))
        return np.zeros(1)

    model = build(dense, False, metrics=[keep, "accuracy"])
    model.fit(x, y, batch_size=16, epochs=3, verbose=0)
    assert played(model)
    assert len({p.tobytes() for _, p in seen}) == len({id(p) for _, p in seen}) == len(seen) == 12


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.layers[0], "trainable", False),
        lambda model: setattr(model.layers[1], "rate", 0.9),
        lambda model: model.add(nn.Dense(4, activation="softmax")),
        lambda model: setattr(model.layers[0].kernel, "data", model.layers[0].kernel.data * 2),
    ],
    ids=["trainable", "rate", "layer", "array"],
)
def test_a_changed_model_is_recorded_anew(change):
    x, y = data(64, (9,), 4)
    models = []
    for run_eagerly in (True, False):
        model = build(dense, run_eagerly)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        change(model)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
        models.append(model)
    assert_alike(*models)
    assert played(models[1])


@pytest.mark.parametrize("moment", ["on_train_batch_begin", "on_train_batch_end"])
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: setattr(layer, "trainable", False),
        lambda layer: setattr(layer.kernel, "data", layer.kernel.data * 0),
    ],
    ids=["trainable", "array"],
)
def test_a_callback_that_changes_the_model_between_batches_is_heeded(moment, change):
    def changes(callback, batch, logs=None):
        if batch == 5:
            change(callback.model.layers[0])

    Changing = type("Changing", (nn.callbacks.Callback,), {moment: changes})
    x, y = data(160, (9,), 4)
    models = []
    for run_eagerly in (True, False):
        models.append(build(dense, run_eagerly))
        models[-1].fit(x, y, batch_size=16, verbose=0, callbacks=[Changing()])
    assert_alike(*models)


def test_a_layer_that_is_given_code_of_the_users_is_left_eager_from_then_on():
    """Of the batches 5 to 7 all take one branch, so that comparing two of them would not show the other."""
    taken = []

    def relu_or_not(x):
        taken.append(len(taken) < 4)
        return nn.functions.relu(x) if taken[-1] else x

    class Changing(nn.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 5:
                self.model.layers[0].activation = relu_or_not

    x, y = data(160, (9,), 4)
    models = []
    for run_eagerly in (True, False):
        taken.clear()
        models.append(build(dense, run_eagerly))
        models[-1].fit(x, y, batch_size=16, verbose=0, callbacks=[Changing()])
        assert len(taken) == 5
    assert_alike(*models)
    assert not played(models[1])


def test_settings_of_loss_and_metrics_that_change_between_batches_are_heeded():
    class Changing(nn.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 5:
                loss.label_smoothing, metric.threshold = 0.5, 0.26

    x, y = data(160, (9,), 4)
    models, histories = [], []
    for run_eagerly in (True, False):
        loss, metric = nn.losses.CategoricalCrossentropy(label_smoothing=0.1), nn.metrics.BinaryAccuracy()
        models.append(build(dense, run_eagerly, loss=loss, metrics=[metric]))
        history = models[-1].fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[Changing()])
        histories.append(history.history)
    assert_alike(*models)
    assert histories[0] == histories[1]


def test_what_a_recording_cannot_see_is_found_by_comparing(monkeypatch):
    """A kernel that computes in NumPy, out of the recording's sight."""
    from handloom import kernels

    def tanh_in_numpy(x):
        y = np.tanh(x)
        return y, kernels.activation.ActivationSaved(y)

    monkeypatch.setattr(nn.functions.tanh, "forward", tanh_in_numpy)
    x, y = data(96, (9,), 4)

    def layers():
        return [nn.Dense(5, input_dim=9), nn.Activation("tanh"), nn.Dense(4, activation="softmax")]

    models = []
    for run_eagerly in (True, False):
        models.append(build(layers, run_eagerly))
        models[-1].fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert_alike(*models)
    assert list(models[1]._steps._by_shape.values()) == ["refused"]


def test_batches_that_are_all_alike_prove_nothing():
    x, y = np.ones((96, 9), np.float32), np.eye(4, dtype=np.float32)[np.zeros(96, int)]
    model = build(dense, False)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    assert not played(model)


def test_copies_record_for_themselves():
    x, y = data(64, (9,), 4)
    model = build(dense, False)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not played(twin)
        twin.fit(x, y, batch_size=16, epochs=2, verbose=0)
        assert played(twin) and played(model)


def test_two_threads_that_train_one_model_do_not_share_a_recording():
    x, y = data(64, (9,), 4)
    model = build(dense, False)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    begun = model._steps.begin(model, x)
    assert begun
    others = []
    thread = threading.Thread(target=lambda: others.append(model._steps.begin(model, x)))
    thread.start()
    thread.join()
    assert others == [False]
    model._steps.end()


def test_no_more_shapes_are_kept_than_said():
    model = build(lambda: [nn.LSTM(3, input_shape=(None, 3)), nn.Dense(4, activation="softmax")], False)
    for length in range(2, 2 + module.SHAPES + 3):
        x, y = data(32, (length, 3), 4)
        model.fit(x, y, batch_size=8, verbose=0)
    assert len(model._steps._by_shape) <= module.SHAPES + 1


@pytest.mark.parametrize("place, kind", [("cpu", Recording), ("cuda", GraphRecording), ("simulator", None)])
def test_the_recording_is_that_of_the_device(place, kind, monkeypatch):
    x, _ = data(16, (9,), 4)
    model = build(dense, False)
    if place != "cpu":
        monkeypatch.setattr(model, "device", "cuda:0")
        monkeypatch.setattr(module.gpu, "simulated", lambda: place == "simulator")
    assert model._steps.begin(model, x) == (kind is not None)
    assert model._steps._kind is kind
