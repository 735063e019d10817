"""The three whole programs, batch 32: the wall time of an epoch of `fit(verbose=0)` divided by its steps.

The peers start from our weights and run the same batches from memory, in their own layout. Before timing and again
after it (with our trained weights copied over) every peer must predict what we predict.
"""

import importlib.util
import sys

import numpy as np

from .operations import Row, measure

BATCH, CLASSES = 32, 10
PEERS = (
    ("torch", "torch_programs", "TorchProgram"),
    ("jax", "jax_programs", "JaxProgram"),
    ("keras", "keras_programs", "KerasProgram"),
)


def build(program: str):
    """Our model, as its users write it, compiled and built."""
    from ..nn import layers
    from ..nn.models import Sequential

    model = Sequential()
    if program == "dense":
        model.add(layers.Dense(units=64, activation="relu", input_dim=100))
    elif program == "cnn":
        model.add(layers.Conv2D(filters=32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)))
        model.add(layers.MaxPooling2D(pool_size=(2, 2)))
        model.add(layers.Flatten())
        model.add(layers.Dense(units=128, activation="relu"))
    else:
        model.add(layers.LSTM(units=64, return_sequences=True, input_shape=(None, 100)))
    model.add(layers.Dense(units=CLASSES, activation="softmax"))
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def data(program: str, steps: int):
    """Random inputs and one-hot labels for `steps` batches."""
    rng = np.random.default_rng(0)
    shape, extra = {"dense": ((100,), ()), "cnn": ((28, 28, 1), ()), "lstm": ((50, 100), (50,))}[program]
    x = rng.standard_normal((steps * BATCH, *shape), np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, (steps * BATCH, *extra))]
    return x, y


def peers(program: str, weights, batches) -> dict:
    """The peers that are installed; one that lacks a part (JAX its flax, Keras its backend) is left out, aloud."""
    found = {}
    for package, module, name in PEERS:
        if importlib.util.find_spec(package) is not None:
            made = getattr(importlib.import_module(f"{__package__}.peers.{module}"), name)
            try:
                found[package] = made(program, weights, batches)
            except ModuleNotFoundError as error:
                print(f"{package} is left out: {error}", file=sys.stderr)
    return found


def program_rows(quick: bool):
    """One row a program; microseconds are of a step."""
    for program, steps in (("dense", 20 if quick else 200), ("cnn", 3 if quick else 30), ("lstm", 3 if quick else 30)):
        yield program_row(program, steps)


def program_row(program: str, steps: int) -> Row:
    model = build(program)
    x, y = data(program, steps)
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    others = peers(program, model.get_weights(), batches)
    candidates = {"handloom": lambda: model.fit(x, y, epochs=1, batch_size=BATCH, verbose=0)}
    candidates |= {name: peer.epoch for name, peer in others.items()}

    def results():
        for peer in others.values():
            peer.load(model.get_weights())
        return {"handloom": model.predict_on_batch(x[:BATCH])} | {name: peer.predict() for name, peer in others.items()}

    row = measure("programs", f"{program}, batch {BATCH}", candidates, results, tolerance=1e-3, rounds=9, stretch=0.3)
    for figures in (row.microseconds, row.spread):
        for name, value in figures.items():
            figures[name] = tuple(v / steps for v in value) if isinstance(value, tuple) else value / steps
    return row
