"""The three programs trained on the GPU, beside the CPU from the same seed and with the same batches."""

import numpy as np

from ... import nn
from ..cases import programs
from .worker import row

# Relative difference of the losses that rounding explains: of the first epoch, and as it grows over the others.
FIRST, LAST = 1e-3, 2e-2
STEPS, EPOCHS = {"dense": 50, "cnn": 10, "lstm": 10}, 3


def tasks(small, tiny) -> list:
    """`small`: few steps; `tiny`: of networks for the simulator."""
    return [(name, lambda name=name: [compare(name, small, tiny)]) for name in STEPS]


def compare(program, small, tiny) -> dict:
    if tiny:
        build, (x, y), batch, epochs = tiny_program, tiny_data(program), 2, 2
    else:
        x, y = programs.data(program, 4 if small else STEPS[program])
        build, batch, epochs = programs.build, programs.BATCH, EPOCHS
    (there, played), (here, _) = (train(build, program, device, x, y, batch, epochs) for device in ("cuda", "cpu"))
    differences = [abs(a - b) / abs(b) for a, b in zip(there["loss"], here["loss"], strict=True)]
    figures = {
        "steps": epochs * len(x) // batch,
        "loss": there["loss"],
        "loss on the CPU": here["loss"],
        "accuracy": there["accuracy"],
        "accuracy on the CPU": here["accuracy"],
        "played back": played,
    }
    wrong = []
    if not (np.isfinite(there["loss"]).all() and differences[0] <= FIRST and max(differences) <= LAST):
        wrong.append(f"the losses differ from the CPU's by {', '.join(f'{d:.1e}' for d in differences)}")
    if not there["loss"][-1] < there["loss"][0]:
        wrong.append("the loss did not fall")
    return row(f"{program}, batch {batch}", "wrong" if wrong else "ok", "; ".join(wrong), **figures)


def train(build, program, device, x, y, batch, epochs):
    """(Losses and accuracies by epoch, whether its steps are played back in the end)."""
    nn.set_random_seed(1)
    with nn.device(device):
        model = build(program)
    history = model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0).history
    return history, any(getattr(step, "verified", False) for step in model._steps._by_shape.values())


def tiny_program(program):
    """The same layers as in the program, few of each."""
    model = nn.Sequential()
    if program == "dense":
        model.add(nn.Dense(units=8, activation="relu", input_dim=10))
    elif program == "cnn":
        model.add(nn.Conv2D(filters=4, kernel_size=(3, 3), activation="relu", input_shape=(6, 6, 1)))
        model.add(nn.MaxPooling2D(pool_size=(2, 2)))
        model.add(nn.Flatten())
        model.add(nn.Dense(units=8, activation="relu"))
    else:
        model.add(nn.LSTM(units=4, return_sequences=True, input_shape=(None, 5)))
    model.add(nn.Dense(units=3, activation="softmax"))
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def tiny_data(program):
    rng = np.random.default_rng(0)
    shape, extra = {"dense": ((10,), ()), "cnn": ((6, 6, 1), ()), "lstm": ((2, 5), (2,))}[program]
    x = rng.standard_normal((2, *shape), np.float32)
    return x, np.eye(3, dtype=np.float32)[rng.integers(0, 3, (2, *extra))]
