"""The dense program in scikit-learn: a pass of MLPClassifier over the data, from our weights."""

import warnings

import numpy as np


class SklearnProgram:
    """Knows the dense program alone."""

    name = "sklearn"

    def __init__(self, program: str, weights, batches):
        from sklearn.neural_network import MLPClassifier

        self.x = np.concatenate([x for x, _ in batches])
        self.labels = np.concatenate([y for _, y in batches]).argmax(-1)
        self.size = len(batches[0][0])
        self.model = MLPClassifier((64,), solver="adam", alpha=0, batch_size=self.size, shuffle=False, epsilon=1e-7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the last batch may be smaller than asked for
            self.model.partial_fit(self.x[: self.size], self.labels[: self.size], classes=range(10))
        self.load(weights)

    def load(self, weights):
        for parameters, values in ((self.model.coefs_, weights[::2]), (self.model.intercepts_, weights[1::2])):
            for parameter, value in zip(parameters, values, strict=True):
                parameter[...] = value

    def epoch(self):
        self.model.partial_fit(self.x, self.labels)

    def predict(self):
        return self.model.predict_proba(self.x[: self.size])
