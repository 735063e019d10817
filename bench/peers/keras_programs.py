"""The three programs in Keras on whatever backend it is set to: `fit`, as its users call it."""

import os

import numpy as np


class KerasProgram:
    """One program; weights come from ours, whose layouts and gate order are Keras's own."""

    name = "keras"

    def __init__(self, program: str, weights, batches):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow, where it is the backend, tells of its build
        import keras

        layers = keras.layers
        shape, stack = {
            "dense": ((100,), [layers.Dense(64, activation="relu")]),
            "cnn": (
                (28, 28, 1),
                [
                    layers.Conv2D(32, (3, 3), activation="relu"),
                    layers.MaxPooling2D((2, 2)),
                    layers.Flatten(),
                    layers.Dense(128, activation="relu"),
                ],
            ),
            "lstm": ((None, 100), [layers.LSTM(64, return_sequences=True)]),
        }[program]
        self.model = keras.Sequential([layers.Input(shape), *stack, layers.Dense(10, activation="softmax")])
        self.model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
        self.load(weights)
        self.x = np.concatenate([x for x, _ in batches])
        self.y = np.concatenate([y for _, y in batches])
        self.size = len(batches[0][0])

    def load(self, weights):
        self.model.set_weights(weights)

    def epoch(self):
        self.model.fit(self.x, self.y, batch_size=self.size, epochs=1, verbose=0)

    def predict(self):
        return np.asarray(self.model.predict_on_batch(self.x[: self.size]))
