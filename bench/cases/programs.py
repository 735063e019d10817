"""The three whole programs: a training step of 32, which is an epoch of `fit(verbose=0)` by its steps, and one row's
prediction.

The peers start from our weights and run the same batches from memory, in their own layout. The reference is the
forward pass in plain NumPy with the weights of the moment: before timing and again after it, with our trained weights
copied over, everyone must predict what it does.
"""

from functools import partial

import numpy as np

from ..case import Candidate, Case, Work

BATCH, CLASSES = 32, 10
PROGRAMS = ("dense", "cnn", "lstm")
# Multiply-adds of a row's forward pass, inputs x units of each layer: those with the data, and all others. A training
# step has two gradients for each of the others, but nobody wants the gradient of the data.
MULTIPLY_ADDS = {
    "dense": (100 * 64, 64 * 10),
    "cnn": (26 * 26 * 32 * 9, 5408 * 128 + 128 * 10),
    "lstm": (50 * 100 * 256, 50 * (64 * 256 + 64 * 10)),
}
# Steps of an epoch.
STEPS = {"dense": 200, "cnn": 30, "lstm": 30}


def build(program: str):
    """Our model, as its users write it, compiled and built."""
    from ...nn import layers
    from ...nn.models import Sequential

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


def data(program: str, steps: int, rows: int = BATCH):
    """Random inputs and one-hot labels for `steps` batches."""
    rng = np.random.default_rng(0)
    shape, extra = {"dense": ((100,), ()), "cnn": ((28, 28, 1), ()), "lstm": ((50, 100), (50,))}[program]
    x = rng.standard_normal((steps * rows, *shape), np.float32)
    y = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, (steps * rows, *extra))]
    return x, y


def forward(program: str, weights, x):
    """What a program predicts, in plain NumPy."""
    from ...kernels.activation.reference import softmax
    from ...kernels.convolution.reference import conv2d
    from ...kernels.gemm.reference import dense
    from ...kernels.pooling.reference import max_pool2d
    from ...kernels.recurrent.reference import lstm

    *before, w, b = weights
    if program == "dense":
        x = dense(x, *before, activation="relu")
    elif program == "cnn":
        images = max_pool2d(conv2d(x, *before[:2], activation="relu"))
        x = dense(images.reshape(len(x), -1), *before[2:], activation="relu")
    else:
        x = lstm(x, *before)[0]
    return softmax(dense(x, w, b))


def _work(program, rows, call, peers_call, steps, passes):
    """`call(model, x, y)` is ours, `peers_call(peer)` theirs; `passes` over the weights, forward and two back."""
    from .. import peers

    model = build(program)
    x, y = data(program, steps, rows)
    batches = [(x[i : i + rows], y[i : i + rows]) for i in range(0, len(x), rows)]
    weights = model.get_weights()
    with_data, rest = MULTIPLY_ADDS[program]

    def others(package, make):
        peer = make()

        def result():
            peer.load(model.get_weights())
            return peer.predict()

        return {package: Candidate(lambda: peers_call(peer), result)}

    return Work(
        lambda variant: Candidate(lambda: call(model, x, y), lambda: model.predict_on_batch(x[:rows])),
        lambda: forward(program, model.get_weights(), x[:rows]),
        {name: partial(others, name, make) for name, make in peers.of_program(program, weights, batches).items()},
        flops=2 * rows * (min(passes, 2) * with_data + passes * rest),
        bytes=4 * (passes * sum(w.size for w in weights) + (x.size + y.size) // steps),
        steps=steps,
        tolerance=1e-3,
    )


def _fit(program, dtype):
    def epoch(model, x, y):
        model.fit(x, y, epochs=1, batch_size=BATCH, verbose=0)

    return _work(program, BATCH, epoch, lambda peer: peer.epoch(), STEPS[program], passes=3)


def _predict(program, dtype):
    return _work(
        program, 1, lambda model, x, y: model.predict_on_batch(x), lambda peer: peer.predict(), steps=1, passes=1
    )


CASES = [
    Case("programs", op, "", program, partial(make, program), quick=True, dtypes=("float32",))
    for op, make in (("fit", _fit), ("predict", _predict))
    for program in PROGRAMS
]
