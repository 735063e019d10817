"""The training loop: what a step does, what the numbers mean, what callbacks see, and what is refused."""

import inspect
import re
import threading

import numpy as np
import pytest

from handloom import kernels, nn
from handloom.nn.callbacks import Callback
from handloom.nn.models import Sequential

RNG = np.random.default_rng(10)
X = RNG.standard_normal((50, 6))
LABELS = RNG.integers(0, 3, 50)
Y = np.eye(3)[LABELS]


def classifier(optimizer="sgd", loss="categorical_crossentropy", metrics=("accuracy",), seed=1, **options):
    nn.set_random_seed(seed)
    options = {"dtype": "float64", **options}
    model = Sequential(
        [nn.Dense(8, activation="tanh", input_dim=6, **options), nn.Dense(3, activation="softmax", **options)]
    )
    model.compile(optimizer, loss, metrics=list(metrics))
    return model


class Record(Callback):
    """Notes every call."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            return lambda *args: self.calls.append((name, *args))
        return super().__getattribute__(name)


class TestFit:
    def test_follows_the_formulas_of_gradient_descent(self):
        model = classifier(nn.SGD(0.5))
        w1, b1, w2, b2 = model.get_weights()
        losses, hits = [], []
        for _ in range(3):
            loss = hit = 0
            for start in range(0, 50, 16):
                x, y = X[start : start + 16], Y[start : start + 16]
                h = np.tanh(x @ w1 + b1)
                z = h @ w2 + b2
                p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
                loss -= (y * np.log(p)).sum()
                hit += (p.argmax(1) == y.argmax(1)).sum()
                dz = (p - y) / len(x)
                dh = dz @ w2.T * (1 - h * h)
                w2, b2 = w2 - 0.5 * h.T @ dz, b2 - 0.5 * dz.sum(0)
                w1, b1 = w1 - 0.5 * x.T @ dh, b1 - 0.5 * dh.sum(0)
            losses.append(loss / 50)
            hits.append(hit / 50)
        history = model.fit(X, Y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        np.testing.assert_allclose(history.history["loss"], losses, rtol=1e-10)
        assert history.history["accuracy"] == hits
        for found, expected in zip(model.get_weights(), (w1, b1, w2, b2)):
            np.testing.assert_allclose(found, expected, rtol=1e-10)

    def test_returns_a_history(self):
        model = classifier()
        history = model.fit(X, Y, epochs=2, verbose=0)
        assert model.history is history
        assert history.epoch == [0, 1]
        assert list(history.history) == ["loss", "accuracy"]
        assert all(type(value) is float for values in history.history.values() for value in values)

    def test_the_same_seed_gives_the_same_bits(self):
        def train():
            model = classifier("adam", dtype="float32")
            history = model.fit(X, Y, batch_size=7, epochs=3, verbose=0)
            return history.history, model.get_weights()

        (history, weights), (again, weights_again) = train(), train()
        assert history == again
        for a, b in zip(weights, weights_again):
            np.testing.assert_array_equal(a, b)

    def test_shuffles_anew_in_each_epoch_and_call(self):
        class Order(nn.Model):
            def __init__(self):
                super().__init__()
                self.dense = nn.Dense(1)
                self.rows = []

            def call(self, x):
                self.rows.extend(x.data[:, 0].astype(int).tolist())
                return self.dense(x)

        nn.set_random_seed(3)
        model, x = Order(), np.arange(10.0)[:, None]
        model.compile("sgd", "mse")
        model.fit(x, x, batch_size=4, epochs=2, verbose=0)
        model.fit(x, x, batch_size=4, verbose=0)
        model.fit(x, x, batch_size=4, epochs=7, initial_epoch=6, verbose=0)
        orders = [model.rows[start : start + 10] for start in range(0, 40, 10)]
        assert all(sorted(order) == list(range(10)) for order in orders)
        assert len({tuple(order) for order in orders}) == 4
        steps = [0, 1, 2, 6]
        for order, step in zip(orders, steps):
            assert order == kernels.permutation(10, seed=3, stream=model._shuffles[1], step=step).tolist()
        model.rows.clear()
        model.fit(x, x, batch_size=4, shuffle=False, verbose=0)
        assert model.rows == list(range(10))

    def test_shuffled_rows_keep_their_labels(self):
        model = classifier()
        before = model.evaluate(X, Y, verbose=0)
        model.compile(nn.SGD(0.0), "categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(X, Y, batch_size=7, verbose=0).history
        np.testing.assert_allclose([history["loss"][0], history["accuracy"][0]], before, rtol=1e-12)

    @pytest.mark.parametrize("batch_size", [1, 7, 50, 64, None])
    def test_batches_that_do_not_divide_the_samples(self, batch_size):
        sizes = []

        class Sizes(nn.Layer):
            def call(self, x):
                sizes.append(len(x))
                return x

        model = Sequential([Sizes(dtype="float64"), nn.Dense(3, dtype="float64")])
        model.compile("sgd", "mse")
        model.fit(X, Y, batch_size=batch_size, verbose=0)
        size = min(batch_size or 32, 50)
        assert sizes == [size] * (50 // size) + ([50 % size] if 50 % size else [])

    def test_validation_split_takes_the_last_samples(self):
        model = classifier()
        history = model.fit(X, Y, epochs=2, validation_split=0.3, verbose=0).history
        assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
        np.testing.assert_allclose(
            [history["val_loss"][-1], history["val_accuracy"][-1]], model.evaluate(X[35:], Y[35:], verbose=0)
        )
        same = classifier()
        same.fit(X[:35], Y[:35], epochs=2, verbose=0)
        for a, b in zip(model.get_weights(), same.get_weights()):
            np.testing.assert_array_equal(a, b)

    def test_validation_data(self):
        model = classifier()
        history = model.fit(X[:30], Y[:30], validation_data=(X[30:], Y[30:]), verbose=0).history
        np.testing.assert_allclose(history["val_loss"][0], model.evaluate(X[30:], Y[30:], verbose=0)[0])

    def test_validation_batch_size(self):
        record = Record()
        data = {"validation_data": (X[:20], Y[:20]), "callbacks": record, "verbose": 0}
        classifier().fit(X, Y, batch_size=25, **data)
        classifier().fit(X, Y, batch_size=25, validation_batch_size=4, **data)
        assert [call[1] for call in record.calls if call[0] == "on_test_batch_end"] == [0, *range(5)]

    def test_no_validation_split_is_none(self):
        assert list(classifier().fit(X, Y, validation_split=None, verbose=0).history) == ["loss", "accuracy"]

    def test_initial_epoch(self):
        model = classifier()
        assert model.fit(X, Y, epochs=5, initial_epoch=3, verbose=0).epoch == [3, 4]
        assert model.fit(X, Y, epochs=5, initial_epoch=np.int64(4), verbose=0).epoch == [4]

    def test_frozen_layers_stay(self):
        model = classifier()
        model.layers[0].trainable = False
        before = model.get_weights()
        model.fit(X, Y, verbose=0)
        changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
        assert changed == [False, False, True, True]

    def test_layers_that_appear_while_it_runs(self):
        class Growing(nn.Model):
            def __init__(self):
                super().__init__()
                self.calls = 0
                self.first, self.late = nn.Dense(3), nn.Dense(3)

            def call(self, x):
                self.calls += 1
                return self.first(x) if self.calls < 3 else self.late(self.first(x))

        model = Growing()
        model.compile(nn.SGD(0.1), "mse")
        model.fit(X, Y, batch_size=10, shuffle=False, verbose=0)
        assert model.optimizer.parameters == model.weights
        assert len(model.weights) == 4
        assert np.abs(model.late.bias.data).min() > 0

    def test_a_loss_of_ones_own(self):
        model = classifier(loss=lambda y_true, y_pred: ((y_true - y_pred) ** 2).mean(), metrics=["mse"])
        history = model.fit(X, Y, batch_size=16, verbose=0).history
        np.testing.assert_allclose(history["loss"], history["mse"], rtol=1e-10)

    def test_labels_for_each_step_and_any_length(self):
        model = Sequential(
            [nn.LSTM(4, return_sequences=True, input_shape=(None, 6)), nn.Dense(3, activation="softmax")]
        )
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        for steps in (4, 9):
            x, y = RNG.random((5, steps, 6)), np.eye(3)[RNG.integers(0, 3, (5, steps))]
            assert set(model.fit(x, y, verbose=0).history) == {"loss", "accuracy"}
            assert model.predict(x, verbose=0).shape == (5, steps, 3)

    def test_dropout_is_on_in_training_alone(self):
        model = Sequential([nn.Dropout(0.5), nn.Dense(3, dtype="float64")])
        model.compile("sgd", "mse")
        seen = []
        model.layers[0].call = lambda x: (seen.append(model.layers[0].training), x)[1]
        model.fit(X, Y, validation_split=0.5, verbose=0)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.train_on_batch(X, Y)
        assert seen == [True] + [False] * 5 + [True]
        assert not model.training

    @pytest.mark.parametrize("mode", [False, True])
    def test_afterwards_the_mode_is_what_it_was(self, mode):
        model = classifier()
        model.training = mode
        model.fit(X, Y, verbose=0)
        assert [layer.training for layer in model.all_layers()] == [mode] * 3
        with pytest.raises(ValueError, match="they must be equal"):
            model.fit(X, Y[:, :2], verbose=0)
        assert [layer.training for layer in model.all_layers()] == [mode] * 3

    def test_layers_that_the_first_call_builds_train(self):
        class Late(nn.Layer):
            def build(self, input_shape):
                self.drop = nn.Dropout(0.5)

            def call(self, x):
                seen.append(self.drop.training)
                return self.drop(x)

        seen = []
        model = Sequential([Late(), nn.Dense(3)])
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0)
        assert seen == [True, True]
        assert not model.layers[0].drop.training

    def test_nothing_of_a_step_stays(self):
        model = classifier()
        model.fit(X, Y, verbose=0)
        assert all(weight.grad is None for weight in model.weights)

    def test_gradients_from_before_do_not_enter(self):
        model, fresh = classifier(), classifier()
        (model(X) ** 2).sum().backward()
        for each in (model, fresh):
            each.fit(X, Y, shuffle=False, verbose=0)
        for found, expected in zip(model.get_weights(), fresh.get_weights()):
            np.testing.assert_array_equal(found, expected)

    def test_an_interrupted_step_leaves_no_gradients(self, monkeypatch):
        def interrupted():
            raise KeyboardInterrupt

        model = classifier()
        monkeypatch.setattr(model.optimizer, "step", interrupted)
        for train in (model.fit, model.train_on_batch):
            with pytest.raises(KeyboardInterrupt):
                train(X, Y)
            assert all(weight.grad is None for weight in model.weights)
            assert not model.training


class TestMeasures:
    @pytest.mark.parametrize("shape", [(6,), (2, 3)])
    def test_predictions_are_an_array_of_their_own(self, shape):
        x = np.ones((4, 6), np.float32)
        model = Sequential([nn.Reshape(shape)])
        for y in (model.predict(x, verbose=0), model.predict_on_batch(x)):
            y[...] = 2
        assert (x == 1).all()

    def test_evaluate(self):
        model = classifier()
        p = model.predict(X, verbose=0)
        loss = -np.log(p[np.arange(50), LABELS]).mean()
        accuracy = (p.argmax(1) == LABELS).mean()
        for batch_size in (7, 50):
            np.testing.assert_allclose(model.evaluate(X, Y, batch_size, verbose=0), [loss, accuracy], rtol=1e-10)
        assert model.evaluate(X, Y, verbose=0, return_dict=True) == {
            "loss": pytest.approx(loss),
            "accuracy": pytest.approx(accuracy),
        }
        assert model.metrics_names == ["loss", "accuracy"]
        model.compile("sgd", "categorical_crossentropy")
        np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), loss)

    def test_on_batches(self):
        model = classifier(nn.SGD(0.5))
        before = model.evaluate(X, Y, verbose=0)
        assert model.test_on_batch(X, Y) == pytest.approx(before)
        assert model.train_on_batch(X, Y) == pytest.approx(before)
        after = model.train_on_batch(X, Y, return_dict=True)
        assert after["loss"] < before[0]
        assert model.optimizer.iterations == 2

    @pytest.mark.parametrize(
        ("loss", "units", "y"),
        [
            ("mse", 1, X[:, 0]),
            ("mae", 1, X[:, :1]),
            ("binary_crossentropy", 1, (X[:, 0] > 0).astype(int)),
            ("binary_crossentropy", 3, Y),
            ("sparse_categorical_crossentropy", 3, LABELS),
            ("sparse_categorical_crossentropy", 3, LABELS[:, None].astype(np.uint8)),
            ("categorical_crossentropy", 3, Y.astype(int)),
        ],
    )
    def test_losses_and_targets(self, loss, units, y):
        nn.set_random_seed(0)
        activation = {"b": "sigmoid", "m": None}.get(loss[0], "softmax")
        model = Sequential([nn.Dense(16, activation="relu"), nn.Dense(units, activation=activation)])
        model.compile(nn.Adam(0.05), loss, metrics=["accuracy"])
        history = model.fit(X, y, epochs=15, verbose=0).history
        assert history["loss"][-1] < 0.7 * history["loss"][0]
        if activation:
            assert history["accuracy"][-1] > 0.8


class TestCallbacks:
    def test_a_single_one_or_none(self):
        stop = nn.EarlyStopping("loss", mode="max")
        assert classifier().fit(X, Y, epochs=9, callbacks=stop, verbose=0).epoch == [0, 1]
        assert classifier().fit(X, Y, epochs=2, callbacks=None, verbose=0).epoch == [0, 1]

    def test_early_stopping_without_validation_lets_training_go_on(self):
        with pytest.warns(UserWarning, match="EarlyStopping does nothing: monitor: unknown name 'val_loss'"):
            history = classifier().fit(X, Y, epochs=2, callbacks=[nn.EarlyStopping()], verbose=0)
        assert history.epoch == [0, 1]

    def test_every_moment_in_order(self):
        record = Record()
        model = classifier(metrics=[])
        model.fit(X, Y, batch_size=25, epochs=1, validation_split=0.02, callbacks=[record], verbose=0)
        names = [name for name, *_ in record.calls]
        step = ["on_train_batch_begin", "on_train_batch_end"]
        test = ["on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end"]
        assert names == ["on_train_begin", "on_epoch_begin", *step, *step, *test, "on_epoch_end", "on_train_end"]
        arguments = {name: args for name, *args in record.calls}
        assert arguments["on_epoch_begin"] == [0, {}] and arguments["on_train_begin"] == [{}]
        assert arguments["on_train_batch_end"][0] == 1
        assert set(arguments["on_train_batch_end"][1]) == {"loss"}
        assert set(arguments["on_epoch_end"][1]) == {"loss", "val_loss"}
        assert record.model is model
        assert record.params == {"verbose": 0, "epochs": 1, "steps": 2}

    def test_of_evaluate_and_predict(self):
        record = Record()
        model = classifier()
        model.evaluate(X, Y, callbacks=[record], verbose=0)
        model.predict(X, callbacks=record, verbose=0)
        test, predict = ([name for name, *_ in record.calls if what in name] for what in ("test", "predict"))
        assert test == ["on_test_begin", *["on_test_batch_begin", "on_test_batch_end"] * 2, "on_test_end"]
        assert predict == [
            "on_predict_begin",
            *["on_predict_batch_begin", "on_predict_batch_end"] * 2,
            "on_predict_end",
        ]

    def test_what_those_of_evaluate_and_predict_are_told(self):
        record = Record()
        model = classifier(metrics=[])
        model.evaluate(X, Y, callbacks=[record], verbose=0)
        assert record.model is model and record.params == {"verbose": 0, "epochs": 1, "steps": 2}
        outputs = model.predict(X, callbacks=record, verbose=0)
        told = {name: args for name, *args in record.calls}
        assert told["on_test_begin"] == told["on_predict_begin"] == told["on_predict_end"] == [{}]
        assert told["on_test_batch_begin"] == told["on_predict_batch_begin"] == [1, {}]
        assert told["on_test_end"][0] == told["on_test_batch_end"][1] == {"loss": model.evaluate(X, Y, verbose=0)}
        np.testing.assert_array_equal(told["on_predict_batch_end"][1]["outputs"], outputs[32:])

    @pytest.mark.parametrize("moment", ["on_train_begin", "on_epoch_begin", "on_train_batch_begin"])
    def test_stop_training_at_any_moment(self, moment):
        """The step that is next, or under way, is the last."""

        def stop(callback, *args):
            callback.model.stop_training = True

        record = Record()
        model = classifier()
        model.fit(X, Y, batch_size=8, callbacks=[type("Stop", (Callback,), {moment: stop})()], verbose=0)
        assert model.optimizer.iterations == 1
        model.fit(X, Y, batch_size=8, callbacks=[record], verbose=0)
        assert model.optimizer.iterations == 1 + -(-len(X) // 8)

    def test_stop_training(self):
        class Stop(Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.stop_training = batch == 1

        model = classifier()
        history = model.fit(X, Y, batch_size=10, epochs=5, callbacks=[Stop()], verbose=0)
        assert history.epoch == [0]
        assert model.optimizer.iterations == 2
        assert model.fit(X, Y, verbose=0).epoch == [0]

    def test_the_history_records_what_callbacks_add(self):
        schedule = nn.LearningRateScheduler(lambda epoch, rate: rate / 2)
        history = classifier(nn.SGD(0.8)).fit(X, Y, epochs=2, callbacks=[schedule], verbose=0)
        assert history.history["learning_rate"] == [0.4, 0.2]

    def test_other_things(self):
        for wrong in (3, [3], [nn.History(), 3]):
            with pytest.raises(TypeError, match="callbacks: each must be a Callback, got 3"):
                classifier().fit(X, Y, callbacks=wrong, verbose=0)


class TestOutput:
    def test_silence(self, capsys):
        model = classifier()
        model.fit(X, Y, validation_split=0.2, verbose=0)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
        model.train_on_batch(X, Y)
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("verbose", [1, 2, "auto"])
    def test_a_line_for_each_epoch(self, verbose, capsys):
        model = classifier()
        model.fit(X, Y, epochs=2, validation_split=0.2, verbose=verbose)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert re.match(r"Epoch 2/2 .*2/2 .*loss .*accuracy .*val_loss .*val_accuracy", lines[1])
        model.evaluate(X, Y, verbose=verbose)
        model.predict(X, verbose=verbose)
        assert len(capsys.readouterr().out.splitlines()) == 2


class Endless:
    """Batches by their number, as `keras.utils.Sequence` has them: to iterate over it never ends."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        assert index < 9, "somebody iterates"
        return X, Y


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.fit(X[:40], Y, verbose=0), "fit: x has 40 samples and y has 50: they must be as many"),
            (lambda m: m.fit(X, verbose=0), "fit: y is missing: pass an array with one sample a row"),
            (lambda m: m.fit(None, Y, verbose=0), "fit: x is missing: pass an array"),
            (lambda m: m.fit(X[:0], Y[:0], verbose=0), "fit: x has shape (0, 6): there must be at least one sample"),
            (lambda m: m.fit(X, np.array(1.0), verbose=0), "fit: y has shape (): there must be at least one sample"),
            (lambda m: m.predict(X[:0], verbose=0), "predict: x has shape (0, 6): there must be at least one sample"),
            (lambda m: m.predict_on_batch(X[:0]), "predict_on_batch: x has shape (0, 6): there must be at least one"),
            (lambda m: m.predict_on_batch(None), "predict_on_batch: x is missing: pass an array with one sample a row"),
            (
                lambda m: m.fit([[1, 2], [3]], Y),
                "fit: x is a ragged list: all samples must have the same shape, pad th",
            ),
            (lambda m: m.fit(X, (Y, 3)), "fit: y is a ragged tuple: all samples must have the same shape, pad them"),
            (lambda m: m.train_on_batch(X[:0], Y[:0]), "train_on_batch: x has shape (0, 6): there must be at least"),
            (
                lambda m: m.fit(X[:, :5], Y, verbose=0),
                "fit: x is (50, 5) and the model 'mine' takes (None, 6): all axes but the first must be equal where",
            ),
            (
                lambda m: m.predict(X[0], verbose=0),
                "predict: x is (6,) and the model 'mine' takes (None, 6): it takes a batch, for one sample x[None]",
            ),
            (
                lambda m: m.evaluate(X.reshape(50, 3, 2), Y, verbose=0),
                "evaluate: x is (50, 3, 2) and the model 'mine' takes (None, 6): the values fit, reshape it with "
                "x.reshape(-1, 6)",
            ),
            (
                lambda m: m.fit(X, LABELS, verbose=0),
                "fit: categorical_crossentropy: y_true is (50,) and y_pred (50, 3): they must be equal; for labels",
            ),
            (
                lambda m: m.fit(X, Y[:, :2], verbose=0),
                "fit: categorical_crossentropy: y_true is (50, 2) and y_pred (50, 3): they must be equal",
            ),
            (
                lambda m: m.fit(X, Y, validation_data=(X[:9], LABELS[:9]), verbose=0),
                "fit(validation_data): categorical_crossentropy: y_true is (9,) and y_pred (9, 3): they must be equal;",
            ),
            (
                lambda m: m.evaluate(X, Y[:, :2], verbose=0),
                "evaluate: categorical_crossentropy: y_true is (50, 2) and y_pred (50, 3): they must be equal",
            ),
            (
                lambda m: m.train_on_batch(X, Y[:, :2]),
                "categorical_crossentropy: y_true is (50, 2) and y_pred (50, 3): they must be equal",
            ),
            (lambda m: m.fit(X, Y, batch_size=0, verbose=0), "fit: batch_size must be a positive integer, got 0"),
            (lambda m: m.fit(X, Y, epochs=0, verbose=0), "fit: epochs must be a positive integer, got 0"),
            (lambda m: m.fit(X, Y, initial_epoch=-1), "fit: initial_epoch must be an integer from 0 on, got -1"),
            (
                lambda m: m.fit(X, Y, validation_batch_size=0),
                "fit: validation_batch_size must be a positive integer, got 0",
            ),
            (lambda m: m.predict(X, batch_size=-1), "predict: batch_size must be a positive integer, got -1"),
            (
                lambda m: m.fit(X, Y, validation_split=1.0, verbose=0),
                "fit: validation_split must be a fraction from 0 to below 1, got 1.0",
            ),
            (
                lambda m: m.fit(X[:2], Y[:2], validation_split=0.9, verbose=0),
                "fit: validation_split=0.9 of 2 samples leaves none to train on",
            ),
            (
                lambda m: m.fit(X, Y, validation_data=X, verbose=0),
                "fit: validation_data must be a tuple of two arrays, (x, y)",
            ),
            (
                lambda m: m.fit(X, Y, validation_data=(X, Y[:3]), verbose=0),
                "fit(validation_data): x has 50 samples and y has 3: they must be as many",
            ),
            (lambda m: m.fit(X, Y, verbose=3), "verbose: must be 0, 1, 2 or 'auto', got 3"),
            (lambda m: m.compile("adma", "mse"), "optimizer: unknown name 'adma'"),
            (lambda m: m.compile("adma", "mse"), "did you mean 'adam'?"),
            (lambda m: m.compile("adam", "msee"), "did you mean 'mse'?"),
            (lambda m: m.compile("adam", "mse", metrics=["acuracy"]), "did you mean 'accuracy'?"),
            (lambda m: m.compile("adam"), "compile: loss is missing: pass a name such as 'categorical_crossentropy'"),
        ],
    )
    def test_values(self, call, message):
        model = classifier()
        model.name = "mine"
        before = model.get_weights()
        with pytest.raises(ValueError, match=re.escape(message)):
            call(model)
        for a, b in zip(before, model.get_weights()):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.fit({"x": X}, Y), "fit: x is a dict: it must be one array; for several inputs write a loop"),
            (lambda m: m.fit(np.array([["a"] * 6]), Y[:1]), "fit: x holds <U1: it must hold numbers"),
            (
                lambda m: m.fit(Endless()),
                "fit: x is a Endless: it must be an array or a list; for generators write a loop with train_on_batch",
            ),
            (lambda m: m.fit(X, (row for row in Y)), "fit: y is a generator: it must be an array or a list"),
            (lambda m: m.fit(X, Y, validation_data=(X, Endless())), "fit(validation_data): y is a Endless: it must be"),
            (lambda m: m.predict("text"), "predict: x is a str: it must be an array or a list"),
            (lambda m: m.fit(X, Y, initial_epoch=2.0), "fit: initial_epoch must be an integer from 0 on, got 2.0"),
            (lambda m: m.compile("adam", "mse", metrics="accuracy"), "compile: metrics must be a list such as ['accur"),
        ],
    )
    def test_types(self, call, message):
        with pytest.raises(TypeError, match=re.escape(message)):
            call(classifier())

    @pytest.mark.parametrize("operation", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
    def test_before_compile(self, operation):
        model = Sequential([nn.Dense(3)], name="mine")
        message = f"{operation}: the model 'mine' is not compiled: call compile(optimizer=..., loss=...) first"
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(model, operation)(X, Y)
        assert model.predict(X, verbose=0).shape == (50, 3)

    def test_images_without_channels(self):
        model = Sequential([nn.Conv2D(2, 3, input_shape=(8, 8, 1))], name="mine")
        message = "predict: x is (5, 8, 8) and the model 'mine' takes (None, 8, 8, 1): the last axis is missing, add it"
        with pytest.raises(ValueError, match=re.escape(message)):
            model.predict(np.zeros((5, 8, 8)))

    @pytest.mark.parametrize("shuffle", [False, True])
    @pytest.mark.parametrize("name", ["x", "y"])
    def test_nan_in_the_data_stops_training(self, name, shuffle):
        data = {"x": X.copy(), "y": Y.copy()}
        data[name][23, 1] = np.nan
        model = classifier()
        message = (
            rf"fit: the loss is NaN in batch \d of 5, epoch 1: {name}\[23\] has NaN, and 1 of the batch's 10 samples do"
        )
        with pytest.raises(ValueError, match=message) as info:
            model.fit(**data, batch_size=10, epochs=3, shuffle=shuffle, verbose=0)
        if not shuffle:
            assert "batch 3 of 5" in str(info.value)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())
        assert not model.training

    @pytest.mark.parametrize("loss", ["categorical_crossentropy", "mse"])  # NaN and Inf
    @pytest.mark.parametrize("name", ["x", "y"])
    def test_inf_in_the_data_stops_training(self, name, loss):
        data = {"x": X.copy(), "y": Y.copy()}
        data[name][23, 1] = np.inf
        model = Sequential([nn.Dense(3, activation="softmax" if loss != "mse" else None, dtype="float64")])
        model.compile("sgd", loss)
        message = rf"fit: the loss is (NaN|Inf) in batch 3 of 5, epoch 1: {name}\[23\] has Inf, and 1 of the batch's 10"
        with pytest.raises(ValueError, match=message):
            model.fit(**data, batch_size=10, shuffle=False, verbose=0)
        assert all(np.isfinite(weight).all() for weight in model.get_weights())

    def test_nan_in_a_batch_of_ones_own(self):
        x = X.copy()
        x[23] = np.nan
        with pytest.raises(ValueError, match=r"^train_on_batch: the loss is NaN in batch 1 of 1, epoch 1: x\[23\] has"):
            classifier().train_on_batch(x, Y)

    def test_nan_among_labels(self):
        labels = LABELS.astype(np.float32)
        labels[23] = np.nan
        model = classifier(loss="sparse_categorical_crossentropy")
        before = model.get_weights()
        rule = "is nan: labels must be integers from 0 to 2"
        message = rf"^fit: sparse_categorical_crossentropy: y\[23\] in batch 3 of 5 {rule}"
        with pytest.raises(ValueError, match=message):
            model.fit(X, labels, batch_size=10, shuffle=False, verbose=0)
        with pytest.raises(ValueError, match=rf"sparse_categorical_crossentropy: y_true\[23\] {rule}"):
            model.train_on_batch(X, labels)
        for a, b in zip(before, model.get_weights()):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("built", [False, True])
    @pytest.mark.parametrize(
        ("options", "operation"),
        [
            ({}, "fit"),
            ({"validation_split": 0.2}, "fit(validation_split)"),
            ({"validation_data": (X, np.where(np.arange(50) == 45, 7, LABELS))}, "fit(validation_data)"),
        ],
    )
    def test_labels_that_are_no_class_change_nothing(self, options, operation, built):
        y = LABELS if "validation_data" in options else np.where(np.arange(50) == 45, 7, LABELS)
        model = Sequential([nn.Dense(3, activation="softmax", dtype="float64")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        weights = []
        model.layers[0].call = lambda x: (weights.append(model.get_weights()), nn.Dense.call(model.layers[0], x))[1]
        if built:
            model.predict(X, verbose=0)
        message = (
            rf"^{re.escape(operation)}: sparse_categorical_crossentropy: y\[45\] in batch \d of \d is 7: labels must"
        )
        with pytest.raises(ValueError, match=message):
            model.fit(X, y, batch_size=16, verbose=0, **options)
        assert model.optimizer.iterations == 0
        for a, b in zip(weights[0], model.get_weights()):
            np.testing.assert_array_equal(a, b)

    def test_the_batch_of_a_label_follows_the_order(self):
        y = np.where(np.arange(50) == 45, -1, LABELS)
        model = classifier(loss="sparse_categorical_crossentropy")
        with pytest.raises(ValueError, match=r"y\[45\] in batch (\d) of 5 is -1") as info:
            model.fit(X, y, batch_size=10, verbose=0)
        order = kernels.permutation(50, seed=nn.utils.get_seed(), stream=model._shuffles[1], step=0).tolist()
        assert f"in batch {order.index(45) // 10 + 1} of 5" in str(info.value)

    def test_labels_for_validation_on_another_length(self):
        model = Sequential([nn.LSTM(4, return_sequences=True), nn.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        x, y = RNG.random((5, 4, 6)), RNG.integers(0, 3, (5, 4))
        long, labels = RNG.random((3, 9, 6)), RNG.integers(0, 3, (3, 9))
        assert "val_loss" in model.fit(x, y, validation_data=(long, labels), verbose=0).history
        labels[2, 7] = 3
        with pytest.raises(
            ValueError, match=r"^fit\(validation_data\): .* y\[2, 7\] in batch 1 of 1 is 3: labels must"
        ):
            model.fit(x, y, validation_data=(long, labels), verbose=0)
        with pytest.raises(ValueError, match=r"^fit\(validation_data\): .* y_true is \(3, 4\) and y_pred \(3, 9, 3\)"):
            model.fit(x, y, validation_data=(long, labels[:, :4]), verbose=0)
        assert model.optimizer.iterations == 1

    def test_labels_of_evaluate_are_counted_in_all_its_samples(self):
        y = np.where(np.arange(50) == 45, 7, LABELS)
        model = classifier(loss="sparse_categorical_crossentropy")
        with pytest.raises(
            ValueError, match=r"^evaluate: sparse_categorical_crossentropy: y\[45\] in batch 5 of 5 is 7"
        ):
            model.evaluate(X, y, batch_size=10, verbose=0)

    def test_a_loss_of_ones_own_is_not_asked_what_fits(self):
        def pairs(y_true, y_pred):
            return (y_pred.reshape(-1, 2, 3)[:, 0] - y_pred.reshape(-1, 2, 3)[:, 1]).mean()

        class Doubled(nn.Model):
            def __init__(self):
                super().__init__()
                self.dense = nn.Dense(6)

            def call(self, x):
                return self.dense(x).reshape(-1, 3)

        model = Doubled()
        model.compile("sgd", pairs)
        model.fit(X, LABELS, validation_split=0.5, verbose=0)
        assert model.optimizer.iterations == 1

    @pytest.mark.parametrize("metric", ["sparse_categorical_accuracy", "without_measure"])
    def test_a_metric_that_does_not_fit_changes_nothing(self, metric):
        class KerasStyle(nn.metrics.Metric):
            def update_state(self, y_true, y_pred, sample_weight=None):
                self.total += 1

        model = classifier(metrics=[KerasStyle() if metric == "without_measure" else metric])
        before = model.get_weights()
        with pytest.raises((ValueError, NotImplementedError), match="labels|KerasStyle: a metric must define measure"):
            model.fit(X, Y, verbose=0)
        assert model.optimizer.iterations == 0
        for a, b in zip(before, model.get_weights()):
            np.testing.assert_array_equal(a, b)

    def test_nan_from_weights_that_ran_away(self):
        model = classifier(nn.SGD(0.1))
        model.weights[0].data[0, 0] = np.nan
        with pytest.raises(
            ValueError, match="batch 1 of 2, epoch 1: the batch has neither NaN nor Inf, so the weights"
        ):
            model.fit(X, Y, verbose=0)

    def test_several_outputs(self):
        model = Sequential([nn.LSTM(3, return_state=True, input_shape=(None, 6))])
        model.compile("sgd", "mse")
        with pytest.raises(TypeError, match="predict: the model returned a tuple: it must return one tensor"):
            model.predict(X[:, None])
        with pytest.raises(TypeError, match="mean_squared_error: y_pred is a tuple of 3: a model trained with it"):
            model.fit(X[:, None], Y, verbose=0)


def fitted(seed):
    """The weights of a small model, trained with no other stream of random numbers than its own."""
    rng = np.random.default_rng(seed)
    x, y = rng.random((64, 20)), rng.integers(0, 4, 64)
    model = nn.Sequential([nn.Dense(16, activation="relu", input_dim=20), nn.Dense(4, activation="softmax")])
    model.set_weights([rng.standard_normal(weight.shape) / 4 for weight in model.weights])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=20, batch_size=16, shuffle=False, verbose=0)
    return model.get_weights()


def test_models_train_at_once_in_threads():
    threads = 4
    results = {}
    workers = [
        threading.Thread(target=lambda seed=seed: results.update({seed: fitted(seed)})) for seed in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == threads
    for seed, weights in results.items():
        for found, expected in zip(weights, fitted(seed)):
            np.testing.assert_array_equal(found, expected)


def test_arguments_have_keras_names_order_and_defaults():
    names = list(inspect.signature(nn.Sequential.fit).parameters)[1:]
    assert names[:8] == [
        "x",
        "y",
        "batch_size",
        "epochs",
        "verbose",
        "callbacks",
        "validation_split",
        "validation_data",
    ]
    assert inspect.signature(nn.Sequential.compile).parameters["optimizer"].default == "rmsprop"


@pytest.mark.parametrize("operation", ["fit", "train_on_batch"])
def test_a_model_without_trainable_weights_says_so(operation):
    model = classifier()
    model.fit(X, Y, verbose=0)
    model.trainable = False
    with pytest.raises(ValueError, match=f"^{operation}: the model '.*' has no trainable weights: set trainable=True"):
        getattr(model, operation)(X, Y)
    model.trainable = True
    model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("chosen", "name"), [(["mae", "mae"], "mae"), ([nn.metrics.MeanSquaredError(name="loss")], "loss")]
)
def test_values_need_names_of_their_own(chosen, name):
    with pytest.raises(ValueError, match=f"^compile: there are two values named '{name}': give one metric another"):
        classifier(metrics=chosen)


def test_steps_of_ones_own_are_said_not_to_be_called():
    class Own(Sequential):
        def train_step(self, data):
            raise AssertionError

    with pytest.warns(UserWarning, match="^compile: Own.train_step is not called by fit, evaluate or predict: for"):
        Own([nn.Dense(1)]).compile("sgd", "mse")
