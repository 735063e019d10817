"""Callbacks, called by hand on a model that keeps notes, and by `fit`."""

import csv
import inspect
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from handloom import nn
from handloom.nn import callbacks


class FakeModel:
    """What callbacks see of a model: weights that count the epochs, an optimizer, and files it was asked to save."""

    def __init__(self):
        self.stop_training = False
        self.learning_rate = 0.1
        self.optimizer = self
        self.weights = [np.zeros(2)]
        self.saved = []

    def get_weights(self):
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights):
        self.weights = [weight.copy() for weight in weights]

    def save(self, path):
        self.saved.append(("model", str(path)))

    def save_weights(self, path):
        self.saved.append(("weights", str(path)))


def train(callback, values, name="val_loss", steps=0):
    """Run a callback through epochs that end with these values, until it stops them; returns model and epochs run."""
    model = FakeModel()
    callback.set_model(model)
    callback.set_params({"epochs": len(values), "steps": steps, "verbose": 0})
    callback.on_train_begin()
    epoch = 0
    for epoch, value in enumerate(values):
        callback.on_epoch_begin(epoch)
        for batch in range(steps):
            callback.on_train_batch_begin(batch)
            callback.on_train_batch_end(batch, {"loss": value})
        model.weights[0] += 1
        callback.on_epoch_end(epoch, {"loss": 1.0, name: value})
        if model.stop_training:
            break
    callback.on_train_end()
    return model, epoch + 1


def test_the_base_class_does_nothing_at_every_moment():
    callback = callbacks.Callback()
    model, epochs = train(callback, [1.0, 2.0], steps=2)
    assert (callback.model, callback.params["steps"], epochs) == (model, 2, 2)
    moments = {name for name in dir(callback) if name.startswith("on_")}
    assert moments == {
        *(f"on_{phase}_{edge}" for phase in ("train", "epoch", "test", "predict") for edge in ("begin", "end")),
        *(f"on_{phase}_batch_{edge}" for phase in ("train", "test", "predict") for edge in ("begin", "end")),
    }
    for name in moments:
        method = getattr(callback, name)
        assert method(*([0] * (len(inspect.signature(method).parameters) - 1))) is None


def test_lambda_callback_calls_its_functions():
    seen = []
    train(
        callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["loss"])),
            on_test_end=None,
        ),
        [1.0, 2.0],
    )
    assert seen == [(0, 1.0), (1, 1.0)]


def test_history_records_every_epoch():
    history = callbacks.History()
    train(history, [0.5, 0.25])
    assert history.history == {"loss": [1.0, 1.0], "val_loss": [0.5, 0.25]}
    assert history.epoch == [0, 1]
    assert history.params["epochs"] == 2


class TestPlot:
    def history(self):
        history = callbacks.History()
        history.history = {"loss": [2.0, 1.0, 0.5], "accuracy": [0.2, 0.5, 0.9], "val_loss": [2.1, 1.3, 0.9]}
        return history

    def test_writes_a_png(self, tmp_path):
        image = pytest.importorskip("matplotlib.image")
        self.history().plot(tmp_path / "curves.png")
        pixels = image.imread(tmp_path / "curves.png")
        height, width = pixels.shape[:2]
        assert width == 2 * 600  # two panels
        assert height == 432
        assert (pixels[..., :3] < 0.9).any()

    def test_leaves_matplotlibs_global_state_alone(self, tmp_path):
        pytest.importorskip("matplotlib")
        code = (
            "import sys; from handloom.nn.callbacks import History; assert 'matplotlib' not in sys.modules\n"
            f"history = History(); history.history = {{'loss': [1.0]}}; history.plot({str(tmp_path / 'a.png')!r})\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
        assert (tmp_path / "a.png").stat().st_size > 1000

    def test_without_matplotlib_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
        with pytest.raises(ModuleNotFoundError, match=re.escape("needs matplotlib: pip install 'handloom[plot]'")):
            self.history().plot(tmp_path / "curves.png")

    def test_of_nothing_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=re.escape("History.plot: nothing is recorded yet: train for an epoch")):
            callbacks.History().plot(tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("options", "values", "epochs"),
    [
        ({}, [3, 2, 1, 1.5, 0.5], 4),
        ({"patience": 2}, [3, 2, 2.5, 2.5, 0.5], 4),
        ({"patience": 2}, [3, 2, 2.5, 1, 1.5, 1.5, 1.5], 6),
        ({"patience": 1, "min_delta": 0.6}, [3, 2.5, 2], 2),
        ({"patience": 1, "min_delta": -0.6}, [3, 2.3, 2], 3),
        ({"monitor": "val_accuracy"}, [0.3, 0.5, 0.4, 0.6], 3),
        ({"monitor": "mine", "mode": "max"}, [3, 2, 1], 2),
        ({"baseline": 1.0, "patience": 2}, [3, 2.5, 2.6, 0.5], 3),
        ({"baseline": 1.0, "patience": 2}, [3, 0.9, 0.8, 0.7], 4),
        ({"start_from_epoch": 2}, [1, 2, 3, 2.5, 4, 5], 5),
        ({}, [math.nan, 1.0, math.nan, 0.5], 3),
    ],
)
def test_early_stopping_stops_after(options, values, epochs):
    callback = callbacks.EarlyStopping(**options)
    model, run = train(callback, values, callback.monitor)
    assert run == epochs
    assert model.stop_training == (run < len(values) or callback.stopped_epoch > 0)
    _, again = train(callback, values, callback.monitor)
    assert again == epochs  # a callback can be used twice


def test_early_stopping_keeps_the_last_weights_or_goes_back_to_the_best(capsys):
    values = [3, 1, 2, 2.5, 0]
    model, _ = train(callbacks.EarlyStopping(patience=2), values)
    assert model.weights[0].tolist() == [4, 4]
    model, _ = train(callbacks.EarlyStopping(patience=2, restore_best_weights=True, verbose=1), values)
    assert model.weights[0].tolist() == [2, 2]
    assert capsys.readouterr().out == "Epoch 4: early stopping, val_loss was best in epoch 2\n"
    model, _ = train(callbacks.EarlyStopping(patience=9, restore_best_weights=True), values[:3])
    assert model.weights[0].tolist() == [2, 2]  # also when nothing stopped it


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({}, [1, 2, 3, 4]),
        ({"save_best_only": True}, [1, 3]),
        ({"save_best_only": True, "mode": "max"}, [1, 2, 4]),
        ({"save_best_only": True, "initial_value_threshold": 1.5}, [3]),
        ({"save_best_only": True, "monitor": "val_accuracy"}, [1, 2, 4]),
    ],
)
def test_checkpoints_are_saved_after(options, files, tmp_path):
    callback = callbacks.ModelCheckpoint(tmp_path / "new" / "{epoch:02d}.safetensors", **options)
    model, _ = train(callback, [2.0, 3.0, 1.0, 4.0], options.get("monitor", "val_loss"))
    assert model.saved == [("model", str(tmp_path / "new" / f"{epoch:02d}.safetensors")) for epoch in files]
    assert (tmp_path / "new").is_dir()


def test_the_best_checkpoint_stays_the_best_in_the_next_training(tmp_path):
    callback = callbacks.ModelCheckpoint(tmp_path / "best", save_best_only=True)
    assert len(train(callback, [3.0, 2.0])[0].saved) == 2
    assert len(train(callback, [4.0, 2.5, 1.0, 1.5])[0].saved) == 1
    stop = callbacks.EarlyStopping()
    assert train(stop, [2.0, 3.0])[1] == train(stop, [5.0, 6.0, 7.0])[1] == 2, "it begins anew"


def test_checkpoints_of_weights_every_few_batches(tmp_path, capsys):
    callback = callbacks.ModelCheckpoint(
        f"{tmp_path}/{{epoch}}-{{batch}}-{{loss:.1f}}", save_weights_only=True, save_freq=3, verbose=1
    )
    model, _ = train(callback, [2.0, 1.0], steps=4)
    assert model.saved == [("weights", f"{tmp_path}/1-3-2.0"), ("weights", f"{tmp_path}/2-2-1.0")]
    assert capsys.readouterr().out.splitlines() == [
        f"Epoch 1: saved {tmp_path}/1-3-2.0",
        f"Epoch 2: saved {tmp_path}/2-2-1.0",
    ]


def test_learning_rate_scheduler_sets_and_logs_the_rate(capsys):
    seen = []

    def halve(epoch, rate):
        seen.append((epoch, rate))
        return np.float32(rate / 2)

    callback = callbacks.LearningRateScheduler(halve, verbose=1)
    model, _ = train(callback, [1.0, 1.0])
    assert seen == [(0, 0.1), (1, pytest.approx(0.05))]
    assert type(model.learning_rate) is float
    assert model.learning_rate == pytest.approx(0.025)
    assert capsys.readouterr().out == "Epoch 1: learning rate 0.05\nEpoch 2: learning rate 0.025\n"
    logs = {}
    callback.on_epoch_end(1, logs)
    assert logs == {"learning_rate": model.learning_rate}


def test_a_schedule_may_take_the_epoch_alone():
    model, _ = train(callbacks.LearningRateScheduler(lambda epoch: 0.5 / (epoch + 1)), [1.0, 1.0])
    assert model.learning_rate == 0.25
    seen = []
    train(callbacks.LearningRateScheduler(lambda epoch, rate=None: seen.append(rate) or 0.5), [1.0, 1.0])
    assert seen == [0.1, 0.5]  # what can take the rate gets it

    def wrong(epoch, rate):
        seen.append(epoch)
        raise TypeError("from inside")

    with pytest.raises(TypeError, match="from inside"):
        train(callbacks.LearningRateScheduler(wrong), [1.0])
    assert seen == [0.1, 0.5, 0]  # called once
    model, _ = train(callbacks.LearningRateScheduler(min), [1.0, 1.0])  # hides its signature
    assert model.learning_rate == 0.0


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (
            lambda path: callbacks.EarlyStopping("accurcy", mode="max"),
            "EarlyStopping does nothing: monitor: unknown name 'accurcy': it must be one of accuracy, loss; did you",
        ),
        (
            lambda path: callbacks.EarlyStopping(restore_best_weights=True),
            "EarlyStopping does nothing: monitor: unknown name 'val_loss': it must be one of accuracy, loss; did you "
            "mean 'loss'? (names with val_ need validation data)",
        ),
        (
            lambda path: callbacks.ModelCheckpoint(path / "best", "mine", save_best_only=True, mode="min"),
            "ModelCheckpoint does nothing: monitor: unknown name 'mine': it must be one of accuracy, loss",
        ),
    ],
)
def test_a_quantity_that_is_missing_is_told_and_training_goes_on(callback, text, tmp_path):
    with pytest.warns(UserWarning, match=re.escape(text)):
        model, epochs = train(callback(tmp_path), [1.0, 2.0, 3.0], name="accuracy")
    assert epochs == 3
    assert model.weights[0].tolist() == [3, 3]
    assert not model.saved


@pytest.mark.parametrize("separator", [",", ";"])
def test_csv_logger_writes_a_line_an_epoch(separator, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old")
    callback = callbacks.CSVLogger(path, separator)
    train(callback, [0.5, 0.25])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=separator))
    assert rows == [
        {"epoch": "0", "loss": "1.0", "val_loss": "0.5"},
        {"epoch": "1", "loss": "1.0", "val_loss": "0.25"},
    ]


def test_csv_logger_appends_under_the_columns_that_are_there(tmp_path):
    path = tmp_path / "log.csv"
    train(callbacks.CSVLogger(path), [0.5])
    train(callbacks.CSVLogger(path, append=True), [0.25], name="accuracy")
    assert path.read_text().splitlines() == ["epoch,loss,val_loss", "0,1.0,0.5", "0,1.0,"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: callbacks.EarlyStopping("mine"),
            ValueError,
            "EarlyStopping: monitor='mine': whether more or less of it is better is not known: pass mode='min' or",
        ),
        (
            lambda: callbacks.ModelCheckpoint("a", "mine", save_best_only=True),
            ValueError,
            "ModelCheckpoint: monitor='mine': whether more or less of it is better is not known",
        ),
        (
            lambda: callbacks.EarlyStopping(mode="mim"),
            ValueError,
            "EarlyStopping mode: unknown name 'mim': it must be one of auto, max, min; did you mean 'min'?",
        ),
        (
            lambda: callbacks.ModelCheckpoint("a", save_freq="batch"),
            ValueError,
            "ModelCheckpoint: save_freq must be 'epoch' or a number of batches, got 'batch'",
        ),
        (
            lambda: callbacks.ModelCheckpoint("a", save_freq=True),
            ValueError,
            "ModelCheckpoint: save_freq must be 'epoch' or a number of batches, got True",
        ),
        (
            lambda: train(callbacks.ModelCheckpoint("{}.safetensors"), [1.0]),
            ValueError,
            "ModelCheckpoint: filepath is '{}.safetensors': braces must hold a name, such as {epoch}",
        ),
        (
            lambda: callbacks.EarlyStopping(patience="3"),
            TypeError,
            "EarlyStopping: patience must be an integer from 0 on, got '3'",
        ),
        (
            lambda: callbacks.EarlyStopping(start_from_epoch=-1),
            ValueError,
            "EarlyStopping: start_from_epoch must be an integer from 0 on, got -1",
        ),
        (
            lambda: callbacks.ModelCheckpoint("a", save_freq=0),
            ValueError,
            "ModelCheckpoint: save_freq must be 'epoch' or a number of batches, got 0",
        ),
        (
            lambda: train(callbacks.ModelCheckpoint("{val_los}"), [1.0]),
            ValueError,
            "ModelCheckpoint filepath: unknown name 'val_los': it must be one of epoch, loss, val_loss; did you mean",
        ),
        (
            lambda: callbacks.LambdaCallback(on_epoch_ends=print),
            ValueError,
            "did you mean 'on_epoch_end'?",
        ),
        (
            lambda: callbacks.LambdaCallback(on_epoch_end=3),
            TypeError,
            "LambdaCallback: on_epoch_end must be a function, got 3",
        ),
        (
            lambda: train(callbacks.LearningRateScheduler(lambda epoch, rate: None), [1.0]),
            TypeError,
            "LearningRateScheduler: schedule must return a number, got None",
        ),
        (
            lambda: callbacks.LearningRateScheduler(0.1),
            TypeError,
            "LearningRateScheduler: schedule must be a function, got 0.1",
        ),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


class TestInFit:
    """The same with a real model."""

    X = np.random.default_rng(2).random((40, 5), np.float32)
    Y = np.eye(3, dtype=np.float32)[(X[:, 0] * 3).astype(int)]

    def model(self, learning_rate=0.01):
        nn.utils.set_random_seed(3)
        model = nn.Sequential([nn.Dense(8, activation="relu", input_dim=5), nn.Dense(3, activation="softmax")])
        model.compile(nn.Adam(learning_rate), "categorical_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, model, *chosen, epochs=4):
        return model.fit(self.X, self.Y, epochs=epochs, validation_split=0.25, callbacks=list(chosen), verbose=0)

    def test_history_and_its_curves(self, tmp_path):
        pytest.importorskip("matplotlib")
        history = self.fit(self.model())
        assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
        assert all(len(values) == 4 for values in history.history.values())
        history.plot(tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_early_stopping_and_checkpoints_agree_on_the_best_epoch(self, tmp_path):
        model = self.model(learning_rate=0.3)
        best = tmp_path / "best.safetensors"
        stop = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
        history = self.fit(model, stop, callbacks.ModelCheckpoint(best, save_best_only=True), epochs=60)
        losses = history.history["val_loss"]
        assert len(losses) == stop.best_epoch + 3 < 60
        assert stop.best_epoch == int(np.argmin(losses))
        saved = nn.load_model(best)
        for restored, kept in zip(model.get_weights(), saved.get_weights()):
            np.testing.assert_array_equal(restored, kept)
        assert saved.evaluate(self.X[30:], self.Y[30:], verbose=0)[0] == pytest.approx(min(losses))

    def test_checkpoints_by_batches_hold_weights_that_load(self, tmp_path):
        model = self.model()
        name = f"{tmp_path}/{{epoch}}-{{batch}}.safetensors"
        self.fit(model, callbacks.ModelCheckpoint(name, save_weights_only=True, save_freq=1), epochs=2)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1-1.safetensors", "2-1.safetensors"]
        self.model().load_weights(tmp_path / "2-1.safetensors")

    def test_the_schedule_is_followed_recorded_and_logged(self, tmp_path):
        schedule = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
        log = callbacks.CSVLogger(tmp_path / "log.csv")
        history = self.fit(self.model(), schedule, log, epochs=3)
        assert history.history["learning_rate"] == pytest.approx([0.005, 0.0025, 0.00125])
        with (tmp_path / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["val_loss"]) for row in rows] == history.history["val_loss"]
        assert list(rows[0]) == ["epoch", *history.history]

    def test_every_moment_comes_in_order(self):
        seen = []
        moments = [name for name in dir(callbacks.Callback) if name.startswith("on_")]
        notes = callbacks.LambdaCallback(**{name: lambda *_, name=name: seen.append(name[3:]) for name in moments})
        self.fit(self.model(), notes, epochs=1)
        assert seen == [
            "train_begin",
            "epoch_begin",
            *("train_batch_begin", "train_batch_end"),
            *("test_begin", "test_batch_begin", "test_batch_end", "test_end"),
            "epoch_end",
            "train_end",
        ]
