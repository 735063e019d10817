"""Saving and loading: what comes back, what a failed write leaves behind, what is refused."""

import json
import os
import re
import subprocess
import sys

import fake_gpu
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

from handloom import nn
from handloom.nn import serialization
from handloom.nn.layers import Conv2D, Dense, Flatten
from handloom.nn.models import Sequential, load_model

RNG = np.random.default_rng(5)
X = RNG.random((20, 6), np.float32)
Y = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, 20)]


def dense_model(units=4, **compile_options):
    model = Sequential()
    model.add(Dense(units=units, activation="relu", input_dim=6))
    model.add(Dense(units=3, activation="softmax"))
    if compile_options:
        model.compile(**{"loss": "categorical_crossentropy", **compile_options})
    return model


def conv_model():
    return Sequential([Conv2D(2, (3, 3), strides=2, padding="same", input_shape=(8, 8, 1)), Flatten(), Dense(3)])


def same_weights(one, other):
    assert [name for name, _ in one.named_weights()] == [name for name, _ in other.named_weights()]
    for a, b in zip(one.get_weights(), other.get_weights()):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def edit_header(path, change):
    """Rewrites a file with another header: `change` alters it, or returns what shall stand there instead."""
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["handloom"])
    instead = change(header)
    header = instead if isinstance(instead, (str, list)) else header
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(load_file(path), path, metadata={"handloom": text})


@pytest.mark.parametrize("make", [dense_model, conv_model, lambda: Dense(3, input_dim=6)])
def test_weights_come_back(make, path):
    model, other = make(), make()
    for layer in (model, other):
        if isinstance(layer, Dense):
            layer(X)
    serialization.save_weights(model, path)
    serialization.load_weights(other, path)
    same_weights(model, other)


def test_weights_go_into_the_arrays_that_are_there(path):
    model = dense_model()
    model.save_weights(path)
    arrays = [weight.data for weight in model.weights]
    model.load_weights(path)
    assert all(weight.data is array for weight, array in zip(model.weights, arrays))


def test_any_program_can_read_the_file(path):
    model = dense_model()
    model.save_weights(path)
    arrays = load_file(path)
    assert list(arrays) == sorted(name for name, _ in model.named_weights())
    with safetensors.safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["handloom"])
    assert header == {"format": 1, "version": __import__("handloom").__version__, "kind": "weights"}


def test_weights_of_another_program_and_dtype_can_be_read(path):
    model = dense_model()
    save_file({name: weight.numpy().astype(np.float64) * 2 for name, weight in model.named_weights()}, path)
    expected = [array * 2 for array in model.get_weights()]
    model.load_weights(path)
    for array, wanted in zip(model.get_weights(), expected):
        np.testing.assert_array_equal(array, wanted)


def test_weights_can_be_read_from_a_whole_model(path):
    model, other = dense_model(optimizer="adam"), dense_model()
    model.fit(X, Y, verbose=0)
    model.save(path)
    other.load_weights(path)
    same_weights(model, other)


def test_arrays_of_no_axis_no_element_and_odd_strides_survive(path):
    arrays = {"scalar": np.array(3.0), "empty": np.zeros((0, 4), np.float32), "turned": np.arange(6.0).reshape(2, 3).T}
    serialization._write("save", path, arrays, {})
    again, _ = serialization._read("load", path)
    for name, array in arrays.items():
        assert again[name].shape == array.shape
        np.testing.assert_array_equal(again[name], array)


@pytest.mark.parametrize("make", [dense_model, conv_model])
def test_a_model_comes_back_uncompiled(make, path):
    model = make()
    model.save(path)
    again = load_model(path)
    same_weights(model, again)
    assert again.get_config() == model.get_config()
    assert again.optimizer is None
    x = RNG.random((2, *model.input_shape[1:]), np.float32)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


OPTIMIZERS = [
    nn.optimizers.SGD(0.05),
    nn.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    nn.optimizers.RMSprop(centered=True, momentum=0.5),
    nn.optimizers.Adam(0.002, beta_1=0.8),
    nn.optimizers.AdamW(weight_decay=0.01, clipnorm=1.0),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_training_goes_on_as_if_nothing_had_happened(optimizer, path):
    model = dense_model(optimizer=type(optimizer).from_config(optimizer.get_config()), metrics=["accuracy", "mse"])
    model.fit(X, Y, batch_size=7, epochs=2, shuffle=False, verbose=0)
    model.save(path)
    again = load_model(path)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.optimizer.iterations == model.optimizer.iterations == 6
    same_weights(model, again)
    histories = [m.fit(X, Y, batch_size=7, epochs=2, shuffle=False, verbose=0).history for m in (model, again)]
    assert histories[0] == histories[1]
    assert set(histories[0]) == {"loss", "accuracy", "mse"}
    same_weights(model, again)


def noisy_model():
    return Sequential(
        [nn.Input((6,)), nn.Dropout(0.3), Dense(8, activation="relu"), Sequential([nn.Dropout(0.4)]), Dense(3)]
    )


def test_dropout_and_shuffling_go_on_as_if_nothing_had_happened(path):
    nn.set_random_seed(4)
    model = noisy_model()
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=7, epochs=2, verbose=0)
    model.save(path)
    again = load_model(path)
    histories = [m.fit(X, Y, batch_size=7, epochs=3, verbose=0).history["loss"] for m in (model, again)]
    assert histories[0] == histories[1]
    assert len(set(histories[0])) == 3
    same_weights(model, again)


def test_dropout_goes_on_in_another_process_with_another_seed(path):
    model = noisy_model()
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=7, shuffle=False, verbose=0)
    model.save(path)
    data = path.with_name("data.npz")
    np.savez(data, x=X, y=Y)
    code = (
        "import numpy as np\n"
        "from handloom import nn\n"
        f"data, model = np.load({str(data)!r}), nn.load_model({str(path)!r})\n"
        "history = model.fit(data['x'], data['y'], batch_size=7, epochs=2, shuffle=False, verbose=0)\n"
        "print([loss.hex() for loss in history.history['loss']])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    losses = model.fit(X, Y, batch_size=7, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert result.stdout.strip() == str([loss.hex() for loss in losses])


def test_frozen_layers_come_back_frozen(path):
    for make, custom_objects in ((lambda: Net(2), {"Net": Net}), (dense_model, None)):
        model = make()
        model(X)
        model.trainable = False
        model.layers[1].trainable = True
        model.compile("adam", "mse")
        model.fit(X, Y[:, : model(X).shape[1]], verbose=0)
        model.save(path)
        again = load_model(path, custom_objects=custom_objects)
        assert [layer.trainable for layer in again.all_layers()] == [False, False, True]
        assert again.trainable_weights == again.layers[1].weights


def test_files_without_the_layers_state_can_be_read(path):
    model = noisy_model()
    model.save(path)
    edit_header(path, lambda header: header.pop("layers"))
    same_weights(load_model(path), model)


def test_short_names_of_layers_are_saved_as_the_layers(path):
    Sequential([nn.Input((4, 4, 1)), nn.MaxPool2D(), nn.GlobalAvgPool2D()]).save(path)
    assert [type(layer) for layer in load_model(path).layers] == [nn.MaxPooling2D, nn.GlobalAveragePooling2D]


def test_the_arguments_have_keras_names(path, monkeypatch):
    fake_gpu.install(monkeypatch)
    model = dense_model()
    model.save_weights(filepath=path)
    model.load_weights(filepath=path)
    model.save(filepath=path, overwrite=True)
    same_weights(load_model(filepath=path, device="cpu"), model)
    with pytest.raises(ValueError, match="load_model: device 'cuda': there is no NVIDIA driver"):
        load_model(path, device="cuda")


@pytest.mark.parametrize("operation", ["save", "save_weights"])
def test_files_are_not_overwritten_unless_they_may(operation, path):
    save = getattr(dense_model(), operation)
    save(path, overwrite=False)
    before = path.read_bytes()
    message = f"{operation}: {path} exists: choose another filepath, or pass overwrite=True"
    with pytest.raises(FileExistsError, match=re.escape(message)):
        save(path, overwrite=False)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_never_trained_comes_back_compiled(path):
    model = dense_model(optimizer="adam", metrics=["accuracy"])
    model.save(path)
    again = load_model(path)
    assert type(again.optimizer) is nn.optimizers.Adam
    assert again.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    assert load_model(path, compile=False).optimizer is None


def test_accuracy_means_the_same_afterwards(path):
    model = Sequential([Dense(3, activation="sigmoid", input_dim=6)])
    model.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
    model.save(path)
    answers = RNG.integers(0, 2, (20, 3))
    assert load_model(path).evaluate(X, answers, verbose=0) == model.evaluate(X, answers, verbose=0)


class Block(nn.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.dense = Dense(units)

    def call(self, x):
        return self.dense(x) + 1.0

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Net(nn.Model):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.units = units
        self.hidden = Dense(5, activation="tanh")
        self.out = Dense(units)

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize(
    ("make", "custom_objects"),
    [(lambda: Net(2), {"Net": Net}), (lambda: Sequential([Block(2), Dense(2)]), {"Block": Block})],
)
def test_classes_of_ones_own_come_back_through_custom_objects(make, custom_objects, path):
    model = make()
    expected = model.predict(X, verbose=0)
    model.save(path)
    again = load_model(path, custom_objects=custom_objects)
    np.testing.assert_array_equal(again.predict(X, verbose=0), expected)
    with pytest.raises(ValueError, match=f"{next(iter(custom_objects))}.* custom_objects="):
        load_model(path)


def squared(y_true, y_pred):
    return ((y_pred - y_true) * (y_pred - y_true)).mean()


def largest(y_true, y_pred):
    return y_pred.max()


def test_losses_and_metrics_of_ones_own_come_back_through_custom_objects(path):
    model = dense_model(optimizer="sgd", loss=squared, metrics=[largest])
    expected = model.evaluate(X, Y, verbose=0)
    model.save(path)
    again = load_model(path, custom_objects={"squared": squared, "largest": largest})
    assert again.evaluate(X, Y, verbose=0) == expected
    message = "load_model: the loss squared is not handloom's own: pass custom_objects={'squared'"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_model(path)
    same_weights(load_model(path, compile=False), model)


class TestFailedWrites:
    """The file that was there before stays, whole, and nothing else is left in its folder."""

    @pytest.fixture
    def old(self, path):
        dense_model().save_weights(path)
        return path.read_bytes()

    def check(self, path, old):
        assert path.read_bytes() == old
        assert os.listdir(path.parent) == [path.name]

    def test_when_writing_breaks_off(self, path, old, monkeypatch):
        def half(arrays, filename, metadata):
            filename.write_bytes(old[: len(old) // 2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("safetensors.numpy.save_file", half)
        with pytest.raises(OSError, match="save_weights: could not write .*: .*No space left on device"):
            dense_model().save_weights(path)
        self.check(path, old)

    def test_when_the_disk_fails_at_the_end(self, path, old, monkeypatch):
        def fail(descriptor):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="save: could not write .*Input/output error"):
            dense_model().save(path)
        self.check(path, old)

    def test_when_interrupted(self, path, old, monkeypatch):
        def interrupt(descriptor):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            dense_model().save(path)
        self.check(path, old)

    def test_when_the_file_may_not_grow_any_further(self, path, old):
        """A real failure in the middle of a real write: the system allows this process files of 64 kB."""
        code = (
            "import resource, signal, numpy as np\n"
            "from handloom.nn import serialization\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
            "try:\n"
            f"    serialization._write('save', {str(path)!r}, {{'a': np.zeros(10**6)}}, {{}})\n"
            "except OSError as error:\n"
            "    print(error)\n"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert f"save: could not write {path}" in result.stdout
        self.check(path, old)

    def test_when_the_folder_is_not_there(self, path, old):
        with pytest.raises(OSError, match="save: could not write .*new/model: .*"):
            dense_model().save(path.parent / "new" / "model")
        self.check(path, old)

    def test_when_the_path_is_a_folder(self, path, old):
        with pytest.raises(OSError, match="save: could not write .*"):
            dense_model().save(path.parent)
        self.check(path, old)


def test_a_link_stays_a_link(path, tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(path.name)
    dense_model().save_weights(link)
    assert link.is_symlink()
    assert path.is_file()


def test_the_file_gets_the_usual_permissions(path):
    before = os.umask(0o027)
    try:
        dense_model().save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


class TestRefused:
    """Bad files are named, and a model that cannot be loaded stays as it was."""

    def refused(self, path, error, message, model=None, load="load_weights"):
        model = model or dense_model()
        before = model.get_weights()
        with pytest.raises(error, match=message):
            getattr(model, load)(path) if load == "load_weights" else load_model(path)
        for old, new in zip(before, model.get_weights()):
            np.testing.assert_array_equal(old, new)

    @pytest.mark.parametrize("load", ["load_weights", "load_model"])
    def test_missing_files_and_folders(self, path, load):
        self.refused(path, FileNotFoundError, f"{load}: .*model.safetensors does not exist", load=load)
        self.refused(path.parent, FileNotFoundError, f"{load}: .* is a folder", load=load)

    @pytest.mark.parametrize("load", ["load_weights", "load_model"])
    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"\xff" * 100])
    def test_other_files(self, path, load, content):
        path.write_bytes(content)
        self.refused(path, ValueError, f"{load}: .* is not a whole safetensors file: ", load=load)

    def test_cut_files(self, path):
        model = dense_model()
        model.save(path)
        path.write_bytes(path.read_bytes()[:-8])
        self.refused(path, ValueError, "is not a whole safetensors file")

    def test_other_shapes(self, path):
        dense_model(units=5).save_weights(path)
        name = dense_model().named_weights()[0][0]
        message = f"does not fit .*: {name} is (6, 5) in the file and (6, 4) in the model: they must be equal"
        self.refused(path, ValueError, re.escape(message).replace(re.escape(".*"), ".*"))

    def test_the_last_weight_alone_does_not_fit(self, path):
        arrays = {name: weight.numpy() + 1 for name, weight in dense_model().named_weights()}
        last = list(arrays)[-1]
        save_file({**arrays, last: np.zeros(7, np.float32)}, path)
        self.refused(path, ValueError, re.escape(f"{last} is (7,) in the file and (3,) in the model"))
        save_file({**arrays, last: np.zeros(3, np.int32)}, path)
        self.refused(path, TypeError, f"{last} holds int32: weights must be floating-point")

    def test_missing_and_unexpected_names(self, path):
        arrays = {name: weight.numpy() for name, weight in dense_model().named_weights()}
        gone = list(arrays)[1]
        save_file({"other": np.zeros(1), **{name: array for name, array in arrays.items() if name != gone}}, path)
        self.refused(path, ValueError, f"does not fit .*: it has no {gone} and also other: names and number of layers")

    def test_long_lists_of_names_are_cut(self, path):
        save_file({f"w{i}": np.zeros(1) for i in range(9)}, path)
        self.refused(path, ValueError, "also w0, w1, w2, w3, w4 and 4 more: ")

    def test_models_that_are_not_built(self, path):
        dense_model().save_weights(path)
        unbuilt = Sequential([Dense(2)])
        for operation, call in (
            ("load_weights", unbuilt.load_weights),
            ("save_weights", unbuilt.save_weights),
            ("save", unbuilt.save),
        ):
            with pytest.raises(ValueError, match=f"{operation}: .* has no weights yet: call it once, or give"):
                call(path)

    def test_weights_alone_are_no_model(self, path):
        dense_model().save_weights(path)
        self.refused(path, ValueError, "load_model: .* holds weights alone: make the model and", load="load_model")

    def test_files_of_a_later_handloom(self, path, monkeypatch):
        monkeypatch.setattr(serialization, "_FORMAT", 2)
        dense_model().save(path)
        monkeypatch.undo()
        message = "was written by handloom .*, in format 2; this is .*, which reads formats up to 1: upgrade handloom"
        self.refused(path, ValueError, message, load="load_model")

    @pytest.mark.parametrize("content", ["[1]", "3", '{"format": "new"}', '{"format": null}'])
    @pytest.mark.parametrize("load", ["load_weights", "load_model"])
    def test_metadata_of_another_form(self, path, content, load):
        dense_model().save(path)
        edit_header(path, lambda header: content)
        self.refused(path, ValueError, f"{load}: {path} has damaged metadata: 'handloom' must be a JSON obj", load=load)

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header.pop("class_name"),
            lambda header: header.pop("config"),
            lambda header: header.pop("compile"),
            lambda header: header.update(class_name=["Sequential"]),
            lambda header: header.update(config=None),
            lambda header: header["config"].pop("layers"),
            lambda header: header["config"]["layers"][0].pop("config"),
            lambda header: header["config"]["layers"][0]["config"].pop("units"),
            lambda header: header.update(layers=[1]),
            lambda header: header["layers"]["dense/"].update(what=1),
            lambda header: header["compile"].pop("optimizer"),
            lambda header: header["compile"]["optimizer"].update(config=3),
        ],
    )
    def test_headers_in_which_something_is_missing(self, path, change):
        dense_model(optimizer="adam").save(path)
        edit_header(path, lambda header: (change(header), None)[1])
        message = f"load_model: {path} has a header from which no model can be made (.*): it is damaged, or the classes"
        self.refused(path, ValueError, re.escape(message).replace(re.escape(".*"), ".*"), load="load_model")

    def test_configurations_that_are_no_plain_data(self, path):
        class Odd(Net):
            def get_config(self):
                return {"what": object()}

        model = Odd()
        model(X)
        with pytest.raises(TypeError, match=r"save: the configuration cannot be saved \(.*object.*\): get_config must"):
            model.save(path)
        assert not path.exists()


@pytest.mark.parametrize("change", ["freeze", "unfreeze", "replace", "replace all"])
def test_a_model_that_changed_since_it_trained_comes_back(change, path):
    model = nn.Sequential([nn.Dense(4, input_dim=6), nn.Dense(2)])
    model.compile("adam", "mse")
    x, y = np.random.default_rng(0).random((8, 6), np.float32), np.ones((8, 2), np.float32)
    model.layers[0].trainable = change != "unfreeze"
    model.fit(x, y, verbose=0)
    model.layers[0].trainable = change != "freeze"
    if change.startswith("replace"):
        for _ in range(1 if change == "replace" else len(model.layers)):
            model.pop()
        model.add(nn.Dense(2, input_dim=6 if not model.layers else None))
    model.save(path)
    again = nn.load_model(path)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    if change != "replace all":
        for one in model, again:
            one.fit(x, y, shuffle=False, verbose=0)
        same_weights(model, again)


def test_numbers_of_numpy_in_configurations_are_saved(path):
    dropout = nn.Dropout(np.float32(0.25), seed=np.int64(3))
    initializer = nn.initializers.RandomNormal(stddev=np.float32(0.5))
    model = nn.Sequential([nn.Input((4,)), dropout, nn.Dense(np.int64(2), kernel_initializer=initializer)])
    model.compile("sgd", nn.CategoricalCrossentropy(label_smoothing=np.float32(0.5)))
    model.save(path)
    again = nn.load_model(path)
    assert again.loss.label_smoothing == 0.5 and again.layers[0].seed == 3
    assert again.layers[1].kernel_initializer.stddev == 0.5
