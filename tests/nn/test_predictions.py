"""Predictions that are played back give the bits of eager ones, or are not played back."""

import copy
import pickle
import threading

import numpy as np
import pytest

from handloom import nn
from handloom.nn import steps as module


def dense():
    return [nn.Dense(12, activation="relu", input_dim=9), nn.Dropout(0.3), nn.Dense(4, activation="softmax")]


def cnn():
    return [
        nn.Conv2D(3, 3, activation="relu", input_shape=(9, 9, 2)),
        nn.MaxPooling2D(2),
        nn.Flatten(),
        nn.Activation("gelu"),
        nn.Dense(4, activation="softmax"),
    ]


def lstm():
    return [nn.LSTM(6, return_sequences=True, input_shape=(5, 3)), nn.LSTM(5), nn.Dense(4, activation="softmax")]


SHAPES = {dense: (9,), cnn: (9, 9, 2), lstm: (5, 3)}


def build(layers, **options):
    nn.utils.set_random_seed(5)
    return nn.Sequential(layers(), **options)


def inputs(layers, count, rows=1, dtype="float32"):
    rng = np.random.default_rng(1)
    return [rng.uniform(-1, 1, (rows, *SHAPES[layers])).astype(dtype) for _ in range(count)]


def eager(model, x):
    return model(x, training=False).numpy().copy()


def is_played(model, x):
    return model._predictions is not None and model._predictions.play(model, x) is not None


def warm(model, x):
    for _ in range(3):
        model.predict(x, verbose=0)
    assert is_played(model, x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("layers", SHAPES)
def test_the_same_bits_as_eager_predictions(layers, rows, dtype):
    model = build(layers, dtype=dtype)
    results = []
    for x in inputs(layers, 6, rows, dtype):
        before = x.copy()
        results.append((model.predict(x, verbose=0), model.predict_on_batch(x), eager(model, x)))
        np.testing.assert_array_equal(x, before)
    assert is_played(model, x)
    for one, other, expected in results:  # compared at the end: what was given stays as it is
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected)


def replaced(model):
    model.layers[0].kernel.data = model.layers[0].kernel.data + 1


CHANGES = {
    "new weights": lambda model: model.set_weights([weight + 0.5 for weight in model.get_weights()]),
    "weights in place": lambda model: model.layers[0].kernel.data.__iadd__(1),
    "another array of weights": replaced,
    "another activation": lambda model: setattr(model.layers[-1], "_after", nn.activations.get("sigmoid")),
    "a layer more": lambda model: model.add(nn.Dense(3)),
    "a layer less": lambda model: model.pop(),
    "training": lambda model: model.fit(*inputs(dense, 1, 8), np.ones((8, 4), "float32"), verbose=0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_predicts_what_it_is_now(change):
    model = build(dense)
    model.compile(optimizer="sgd", loss="mse")
    first, x = inputs(dense, 2)
    warm(model, first)
    before = model.predict(x, verbose=0)
    CHANGES[change](model)
    for _ in range(4):
        found = model.predict(x, verbose=0)
        np.testing.assert_array_equal(found, eager(model, x))
        assert found.shape != before.shape or (found != before).any()
    assert is_played(model, x)


class Doubled(nn.Layer):
    def call(self, x):
        return x * 2


def test_code_of_the_users_own_is_never_played_back():
    model = build(lambda: [*dense(), Doubled()])
    (x,) = inputs(dense, 1)
    for _ in range(4):
        model.predict(x, verbose=0)
    assert not is_played(model, x)


def test_what_a_recording_cannot_see_is_found_by_comparing(monkeypatch):
    """A layer of our own that looks at its input, as none does."""
    call = nn.Dense.call
    of_the_largest = lambda self, x: call(self, nn.Tensor(np.full_like(x.data, x.data.max())))  # noqa: E731
    monkeypatch.setattr(nn.Dense, "call", of_the_largest)
    model = build(dense)
    for x in inputs(dense, 5):
        np.testing.assert_array_equal(model.predict(x, verbose=0), eager(model, x))
    assert not is_played(model, x)


@pytest.mark.parametrize("how", ["eagerly", "large", "with callbacks", "with a bar"])
def test_where_nothing_is_played_back(how, monkeypatch, capsys):
    model = build(dense)
    model.compile(optimizer="sgd", loss="mse", run_eagerly=how == "eagerly")
    if how == "large":
        monkeypatch.setattr(module, "SMALL_BYTES", 35)
    (x,) = inputs(dense, 1)
    options = {"with callbacks": {"callbacks": [nn.callbacks.Callback()]}, "with a bar": {"verbose": 1}}.get(how, {})
    expected = eager(model, x)
    for _ in range(4):
        np.testing.assert_array_equal(model.predict(x, **{"verbose": 0, **options}), expected)
    assert is_played(model, x) == (how in ("with callbacks", "with a bar"))


def test_batches_are_cut_as_ever():
    """More samples than a batch has: each batch the eager way or played back, the last one shorter."""
    model = build(dense)
    x = inputs(dense, 1, 11)[0]
    for _ in range(4):
        np.testing.assert_array_equal(model.predict(x, batch_size=4, verbose=0), eager(model, x))


def test_bad_input_is_refused_as_ever():
    model = build(dense)
    (x,) = inputs(dense, 1)
    warm(model, x)
    with pytest.raises(ValueError, match="^predict: x is "):
        model.predict(x[:, :5], verbose=0)
    with pytest.raises(ValueError, match="^predict: batch_size"):
        model.predict(x, batch_size=0, verbose=0)


def test_copies_record_for_themselves():
    model = build(dense)
    (x,) = inputs(dense, 1)
    warm(model, x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not is_played(other, x)
        other.set_weights([2 * weight for weight in other.get_weights()])
        np.testing.assert_array_equal(other.predict(x, verbose=0), eager(other, x))
        np.testing.assert_array_equal(model.predict(x, verbose=0), eager(model, x))


def test_threads_that_predict_at_once_each_get_their_own():
    model = build(dense)
    given = inputs(dense, 4)
    expected = [eager(model, x) for x in given]
    wrong = []

    def work(x, y):
        for _ in range(300):
            if (model.predict(x, verbose=0) != y).any():
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(given, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_more_shapes_are_kept_than_said():
    model = build(dense)
    for rows in range(1, 2 * module.SHAPES):
        x = inputs(dense, 1, rows)[0]
        for _ in range(3):
            model.predict(x, verbose=0)
    assert len(model._predictions._by_shape) <= module.SHAPES + 1
    assert is_played(model, x)
