"""The three programs that the project is measured by, word for word; only their data are small.

They are imported from Keras's modules under handloom's name, run without a warning, and the loss falls.
"""

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest

from handloom import nn

IMPORTS = """
from handloom.nn.models import Sequential
from handloom.nn.layers import Conv2D, Dense, Flatten, LSTM, MaxPooling2D
"""
PROGRAMS = {
    "dense": """
model = Sequential()
model.add(Dense(units=64, activation='relu', input_dim=100))
model.add(Dense(units=10, activation='softmax'))
""",
    "cnn": """
model = Sequential()
model.add(Conv2D(filters=32, kernel_size=(3, 3), activation='relu', input_shape=(28, 28, 1)))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Flatten())
model.add(Dense(units=128, activation='relu'))
model.add(Dense(units=10, activation='softmax'))
""",
    "lstm": """
model = Sequential()
model.add(LSTM(units=64, return_sequences=True, input_shape=(None, 100)))
model.add(Dense(units=10, activation='softmax'))
""",
}
TRAINING = """
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
history = model.fit(x_train, y_train, epochs=10, batch_size=32)
"""
COUNTS = {"dense": 7_114, "cnn": 693_962, "lstm": 42_890}


def data(program, samples=40):
    """Inputs, and one-hot labels that depend on them."""
    rng = np.random.default_rng(13)
    shape = {"dense": (100,), "cnn": (28, 28, 1), "lstm": (6, 100)}[program]
    x = rng.random((samples, *shape))
    features = x if program == "lstm" else x.reshape(samples, -1)
    labels = (features @ rng.standard_normal((features.shape[-1], 10))).argmax(-1)
    return x, nn.to_categorical(labels, 10)


def run(program, **names):
    """What the program leaves in its variables, and what it printed."""
    x, y = data(program)
    scope = {"x_train": x, "y_train": y, **names}
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        exec(IMPORTS + PROGRAMS[program] + TRAINING, scope)
    return scope, output.getvalue()


@pytest.mark.parametrize("program", PROGRAMS)
def test_runs_and_learns(program):
    nn.set_random_seed(1)
    scope, output = run(program)
    model, history = scope["model"], scope["history"].history
    assert len(history["loss"]) == len(history["accuracy"]) == 10
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["accuracy"][-1] > history["accuracy"][0]
    assert model.count_params() == COUNTS[program]
    lines = output.splitlines()
    assert len(lines) == 10
    assert all(line.startswith(f"Epoch {number}/10  2/2") for number, line in enumerate(lines, 1))
    x, y = data(program)
    loss, accuracy = model.evaluate(x, y, verbose=0)
    assert loss < history["loss"][-1]
    p = model.predict(x, verbose=0)
    assert p.shape == y.shape
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    assert accuracy == (p.argmax(-1) == y.argmax(-1)).mean()


def test_the_lstm_takes_any_length():
    scope, _ = run("lstm")
    assert scope["model"].predict(np.zeros((3, 11, 100)), verbose=0).shape == (3, 11, 10)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_seed_gives_the_same_bits(program):
    weights = []
    for _ in range(2):
        nn.set_random_seed(4)
        weights.append(run(program)[0]["model"].get_weights())
    for first, second in zip(*weights):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("program", PROGRAMS)
def test_saving_and_loading(program, tmp_path):
    scope, _ = run(program)
    x, _ = data(program)
    scope["model"].save(tmp_path / "model.safetensors")
    again = nn.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x, verbose=0), scope["model"].predict(x, verbose=0))


def test_a_block_and_a_loop_of_ones_own():
    class Block(nn.Layer):
        def __init__(self, units):
            super().__init__()
            self.layers = [nn.Dense(units, activation="relu") for _ in range(2)]

        def call(self, x):
            for layer in self.layers:
                x = x + layer(x)
            return x

    nn.set_random_seed(6)
    x, y = data("dense")
    model = nn.Sequential([nn.Dense(16, input_dim=100), Block(16), nn.Dense(10)])
    optimizer = nn.Adam(0.01, parameters=model.trainable_weights)
    values = []
    for _ in range(20):
        loss = ((model(x, training=True) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_names_are_where_keras_has_them():
    code = """
from handloom.nn.activations import relu
from handloom.nn.callbacks import EarlyStopping, History, ModelCheckpoint
from handloom.nn.datasets import digits, mnist
from handloom.nn.initializers import GlorotUniform
from handloom.nn.layers import (
    LSTM, Activation, AveragePooling2D, Conv2D, Dense, Dropout, Flatten, GlobalAveragePooling2D, GlobalMaxPooling2D,
    Input, Layer, MaxPooling2D, Reshape,
)
from handloom.nn.losses import BinaryCrossentropy, CategoricalCrossentropy
from handloom.nn.metrics import CategoricalAccuracy
from handloom.nn.models import Model, Sequential, load_model
from handloom.nn.optimizers import SGD, Adam, AdamW, RMSprop
from handloom.nn.utils import set_random_seed, to_categorical
from handloom import nn
assert nn.Dense is Dense and nn.layers.Dense is Dense and nn.Sequential is Sequential and nn.optimizers.Adam is nn.Adam
assert nn.utils.to_categorical is nn.to_categorical and nn.Tensor and nn.no_grad
for name in nn.__all__:
    getattr(nn, name)
assert set(nn.__all__) <= set(dir(nn))
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'handloom.nn' has no attribute 'Dence'"):
        _ = nn.Dence


def test_importing_compiles_nothing_and_draws_no_table():
    code = "import sys, handloom.nn.models, handloom.nn.layers; assert not {'rich', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
