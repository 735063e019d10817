"""`fit` against an implementation by other people: scikit-learn's MLPClassifier follows program 1 to rounding.

Both run the same mini-batches in the same order, from the same weights, in float64. scikit-learn, like Keras, scales
the step by sqrt(1 - beta_2^t) / (1 - beta_1^t) and adds epsilon outside the root; its default epsilon is 1e-8.
"""

import numpy as np
import pytest

from handloom.nn import Adam, set_random_seed
from handloom.nn.layers import Dense
from handloom.nn.models import Sequential

SAMPLES, EPOCHS, BATCH = 150, 12, 32  # the last batch is short


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(12)
    x = rng.standard_normal((SAMPLES, 100))
    labels = (x @ rng.standard_normal((100, 10))).argmax(1)
    assert set(labels) == set(range(10))
    return x, labels


def program_1():
    set_random_seed(2)
    model = Sequential()
    model.add(Dense(units=64, activation="relu", input_dim=100, dtype="float64"))
    model.add(Dense(units=10, activation="softmax", dtype="float64"))
    return model


def oracle(weights, x, labels):
    """MLPClassifier after the same training, from these weights."""
    neural_network = pytest.importorskip("sklearn.neural_network", reason="scikit-learn is not installed")
    layers = iter(zip(weights[::2], weights[1::2]))

    class FromWeights(neural_network.MLPClassifier):
        def _init_coef(self, fan_in, fan_out, dtype):
            kernel, bias = next(layers)
            assert kernel.shape == (fan_in, fan_out)
            return kernel.copy(), bias.copy()

    classifier = FromWeights(
        hidden_layer_sizes=(64,),
        activation="relu",
        solver="adam",
        alpha=0,
        batch_size=BATCH,
        learning_rate_init=0.001,
        max_iter=EPOCHS,
        shuffle=False,
        tol=0,
        n_iter_no_change=EPOCHS + 1,
        epsilon=1e-8,
    )
    return classifier.fit(x, labels)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # scikit-learn's: it stops after EPOCHS, as it should
def test_the_loss_curve_and_the_weights_are_the_same(data):
    x, labels = data
    model = program_1()
    classifier = oracle(model.get_weights(), x, labels)
    model.compile(optimizer=Adam(epsilon=1e-8), loss="categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, np.eye(10)[labels], epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0)
    losses = history.history["loss"]
    np.testing.assert_allclose(losses, classifier.loss_curve_, rtol=1e-10)
    assert losses[-1] < losses[0] / 2
    expected = [array for pair in zip(classifier.coefs_, classifier.intercepts_) for array in pair]
    for found, array in zip(model.get_weights(), expected):
        np.testing.assert_allclose(found, array, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.predict(x, verbose=0), classifier.predict_proba(x), rtol=1e-8)
    assert model.evaluate(x, np.eye(10)[labels], verbose=0)[1] == pytest.approx(classifier.score(x, labels))


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_integer_labels_give_the_same_curve(data):
    x, labels = data
    model = program_1()
    curve = oracle(model.get_weights(), x, labels).loss_curve_
    model.compile(optimizer=Adam(epsilon=1e-8), loss="sparse_categorical_crossentropy")
    losses = model.fit(x, labels, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, curve, rtol=1e-10)
