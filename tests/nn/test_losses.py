"""Losses against their formulas: names, shapes and dtypes of targets, logits that are remembered, error texts."""

import re

import numpy as np
import pytest

from handloom import nn
from handloom.nn import Tensor, functions, losses

RNG = np.random.default_rng(6)
LOGITS = RNG.standard_normal((5, 4))
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
SIGMOID = 1 / (1 + np.exp(-LOGITS))
LABELS = RNG.integers(0, 4, 5)
ONE_HOT = np.eye(4)[LABELS]
BITS = (RNG.random((5, 4)) < 0.5).astype(np.float64)
LOG_LOSS = -np.log(SOFTMAX[np.arange(5), LABELS]).mean()
BINARY = -(BITS * np.log(SIGMOID) + (1 - BITS) * np.log(1 - SIGMOID)).mean()


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "value"),
    [
        ("mse", BITS, LOGITS, ((BITS - LOGITS) ** 2).mean()),
        ("mean_absolute_error", BITS, LOGITS, np.abs(BITS - LOGITS).mean()),
        ("binary_crossentropy", BITS, SIGMOID, BINARY),
        (losses.BinaryCrossentropy(from_logits=True), BITS, LOGITS, BINARY),
        ("categorical_crossentropy", ONE_HOT, SOFTMAX, LOG_LOSS),
        (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, LOGITS, LOG_LOSS),
        (losses.CategoricalCrossentropy, ONE_HOT.reshape(1, 5, 4), SOFTMAX.reshape(1, 5, 4), LOG_LOSS),
        ("sparse_categorical_crossentropy", LABELS, SOFTMAX, LOG_LOSS),
        ("sparse_categorical_crossentropy", LABELS[:, None].astype(np.uint8), SOFTMAX, LOG_LOSS),
        ("sparse_categorical_crossentropy", LABELS.astype(np.float32), SOFTMAX, LOG_LOSS),
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS.tolist(), LOGITS, LOG_LOSS),
        (
            losses.CategoricalCrossentropy(label_smoothing=0.2),
            ONE_HOT,
            SOFTMAX,
            -((0.8 * ONE_HOT + 0.05) * np.log(SOFTMAX)).sum(-1).mean(),
        ),
        ("mae", np.arange(5), LOGITS[:, :1], np.abs(np.arange(5) - LOGITS[:, 0]).mean()),
        ("mae", Tensor(BITS[:, :1]), LOGITS[:, 0], np.abs(BITS[:, 0] - LOGITS[:, 0]).mean()),
    ],
    ids=str,
)
def test_values(loss, y_true, y_pred, value):
    found = losses.get(loss)(y_true, y_pred)
    assert isinstance(found, Tensor)
    assert found.shape == ()
    np.testing.assert_allclose(found.data, value, rtol=1e-6)


def test_targets_take_the_dtype_of_the_predictions():
    y_pred = Tensor(SOFTMAX.astype(np.float32), requires_grad=True)
    loss = losses.get("categorical_crossentropy")(ONE_HOT.astype(int), y_pred)
    assert loss.dtype == np.float32
    loss.backward()
    assert y_pred.grad.dtype == np.float32


class TestLogits:
    """Probabilities that underflow have no gradient left; what they were made from still has."""

    extreme = np.array([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]])

    @pytest.mark.parametrize(
        ("loss", "target", "function", "value"),
        [
            ("categorical_crossentropy", np.array([[0, 1.0, 0], [0, 0, 1.0]]), functions.softmax, 1e4),
            ("sparse_categorical_crossentropy", np.array([1, 2]), functions.softmax, 1e4),
            ("binary_crossentropy", np.array([[0, 1, 1.0], [1.0, 0, 1]]), functions.sigmoid, None),
        ],
    )
    def test_are_taken_where_the_activation_fits(self, loss, target, function, value):
        logits = Tensor(self.extreme, requires_grad=True)
        found = losses.get(loss)(target, function(logits))
        if value is None:
            p = self.extreme
            value = (np.maximum(p, 0) - p * target + np.log1p(np.exp(-np.abs(p)))).mean()
        np.testing.assert_allclose(found.data, value)
        found.backward()
        assert np.isfinite(logits.grad).all()
        assert np.abs(logits.grad).max() > 0.1

    def test_give_the_gradient_of_the_long_way(self):
        direct, fused = Tensor(LOGITS, requires_grad=True), Tensor(LOGITS, requires_grad=True)
        losses.get("categorical_crossentropy")(ONE_HOT, functions.softmax(direct) * 1.0).backward()
        losses.get("categorical_crossentropy")(ONE_HOT, functions.softmax(fused)).backward()
        np.testing.assert_allclose(fused.grad, direct.grad, rtol=1e-6, atol=1e-9)

    def test_are_remembered_by_layers_in_training_and_outside(self):
        x = np.ones((2, 3), np.float32)
        for layer in (nn.Dense(2, activation="softmax"), nn.Dense(2, activation="sigmoid"), nn.Activation("softmax")):
            assert layer(x).logits is not None
            with nn.no_grad():
                assert layer(x).logits is not None
        assert nn.Dense(2, activation="relu")(x).logits is None

    def test_are_not_taken_where_the_activation_does_not_fit(self):
        y_pred = functions.softmax(Tensor(LOGITS))
        np.testing.assert_allclose(
            losses.get("binary_crossentropy")(ONE_HOT, y_pred).data,
            -(ONE_HOT * np.log(SOFTMAX) + (1 - ONE_HOT) * np.log(1 - SOFTMAX)).mean(),
            rtol=1e-6,
        )
        assert functions.softmax(Tensor(LOGITS), axis=0).logits is None
        assert functions.softmax(Tensor(LOGITS), axis=1).logits is not None
        assert (functions.softmax(Tensor(LOGITS)) * 1).logits is None


class TestOwnLosses:
    def test_a_function_of_tensors(self):
        def squares(y_true, y_pred):
            return ((y_true - y_pred) ** 2).mean()

        loss = losses.get(squares)
        y_pred = Tensor(LOGITS, requires_grad=True)
        assert loss.name == "squares"
        value = loss(BITS, y_pred)
        np.testing.assert_allclose(value.data, ((BITS - LOGITS) ** 2).mean())
        value.backward()
        np.testing.assert_allclose(y_pred.grad, 2 * (LOGITS - BITS) / BITS.size)

    def test_a_value_for_each_sample_is_averaged(self):
        loss = losses.get(lambda y_true, y_pred: abs(y_true - y_pred).mean(axis=-1))
        assert loss(BITS, LOGITS).shape == ()
        np.testing.assert_allclose(loss(BITS, LOGITS).data, np.abs(BITS - LOGITS).mean())

    def test_floating_point_targets_are_cast_and_integers_are_not(self):
        seen = []
        loss = losses.get(lambda y_true, y_pred: (seen.append(y_true.dtype), y_pred.sum())[1])
        loss(BITS, LOGITS.astype(np.float32))
        loss(LABELS, LOGITS.astype(np.float32))
        assert seen == [np.float32, LABELS.dtype]

    def test_must_return_a_tensor(self):
        with pytest.raises(TypeError, match="loss numbers: returned float: it must return a Tensor, made from y_pred"):

            def numbers(y_true, y_pred):
                return 1.0

            losses.get(numbers)(BITS, LOGITS)

    def test_a_subclass(self):
        class Half(losses.Loss):
            def call(self, y_true, y_pred):
                return functions.mean_squared_error(y_pred, y_true) * 0.5

        np.testing.assert_allclose(losses.get(Half)(BITS, LOGITS).data, ((BITS - LOGITS) ** 2).mean() / 2)
        with pytest.raises(NotImplementedError, match=re.escape("Loss: define call(self, y_true, y_pred)")):
            losses.Loss()(BITS, LOGITS)


@pytest.mark.parametrize("name", ["MSE", "MeanSquaredError", "mean_squared_error"])
def test_names(name):
    assert type(losses.get(name)) is nn.MeanSquaredError


@pytest.mark.parametrize(
    "loss",
    [
        losses.MeanSquaredError(name="mine"),
        losses.MeanAbsoluteError(),
        losses.BinaryCrossentropy(from_logits=True),
        losses.CategoricalCrossentropy(label_smoothing=0.1),
        losses.SparseCategoricalCrossentropy(),
    ],
    ids=repr,
)
def test_a_loss_comes_back_from_its_configuration(loss):
    again = losses.get(losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("loss", "y_true", "y_pred", "error", "message"),
    [
        (
            "categorical_crossentropy",
            LABELS,
            SOFTMAX,
            ValueError,
            "categorical_crossentropy: y_true is (5,) and y_pred (5, 4): they must be equal; for labels that count the "
            "classes take loss='sparse_categorical_crossentropy', or to_categorical(y_true, 4)",
        ),
        (
            "categorical_crossentropy",
            ONE_HOT[:, :3],
            SOFTMAX,
            ValueError,
            "categorical_crossentropy: y_true is (5, 3) and y_pred (5, 4): they must be equal",
        ),
        (
            "sparse_categorical_crossentropy",
            ONE_HOT,
            SOFTMAX,
            ValueError,
            "sparse_categorical_crossentropy: y_true is (5, 4) and y_pred (5, 4): labels must be (5,); for one-hot "
            "targets take loss='categorical_crossentropy', or y_true.argmax(-1)",
        ),
        (
            "sparse_categorical_crossentropy",
            np.where(np.arange(5) < 3, LABELS, 0.5),
            SOFTMAX,
            ValueError,
            "sparse_categorical_crossentropy: y_true[3] is 0.5: labels must be integers from 0 to 3, as there are 4 cl",
        ),
        (
            "sparse_categorical_crossentropy",
            np.array([[[1, 0, np.nan], [0, 0, 2]]]),
            SOFTMAX[:1].repeat(6, 0).reshape(1, 2, 3, 4),
            ValueError,
            "sparse_categorical_crossentropy: y_true[0, 0, 2] is nan: labels must be integers from 0 to 3",
        ),
        (
            "sparse_categorical_crossentropy",
            np.array([0, np.inf, 0, 0, 0]),
            SOFTMAX,
            ValueError,
            "sparse_categorical_crossentropy: y_true[1] is inf: labels must be integers from 0 to 3",
        ),
        ("mse", BITS[:4], LOGITS, ValueError, "mean_squared_error: y_true is (4, 4) and y_pred (5, 4): they must be"),
        ("mse", BITS, (Tensor(BITS),) * 3, TypeError, "mean_squared_error: y_pred is a tuple of 3: a model trained"),
    ],
)
def test_targets_that_do_not_fit(loss, y_true, y_pred, error, message):
    with pytest.raises(error, match=re.escape(message)):
        losses.get(loss)(y_true, y_pred)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_are_checked_against_the_number_of_classes(wrong):
    loss = losses.get("sparse_categorical_crossentropy")
    for shape in ((5,), (5, 1)):
        loss.check_targets(LABELS.reshape(shape), SOFTMAX)
        labels = np.where(np.arange(5) == 2, wrong, LABELS).reshape(shape)
        message = (
            rf"sparse_categorical_crossentropy: label \(2,\) is {wrong}: labels must be integers from 0 to 3, as there"
        )
        with pytest.raises(ValueError, match=message):
            loss.check_targets(labels, SOFTMAX, name="label {}".format)


def test_errors():
    with pytest.raises(
        ValueError, match="loss: unknown name 'categorical_crossentrpy': .*; did you mean 'categorical_cr"
    ):
        losses.get("categorical_crossentrpy")
    with pytest.raises(ValueError, match="loss: unknown name 3: it must be one of"):
        losses.get(3)
    with pytest.raises(ValueError, match="categorical_crossentropy: label_smoothing must lie between 0 and 1, got 2"):
        losses.CategoricalCrossentropy(label_smoothing=2)

    def mine(y_true, y_pred):
        return y_pred.sum()

    with pytest.raises(ValueError, match="loss mine: cannot be saved: only handloom's own losses can"):
        losses.serialize(losses.get(mine))


class PerSample(losses.Loss):
    def call(self, y_true, y_pred):
        return ((y_pred - y_true) ** 2).mean(axis=-1)


def test_a_loss_of_ones_own_may_return_one_value_for_each_sample():
    y_true, y_pred = np.eye(4, dtype=np.float32), Tensor(np.full((4, 4), 0.25, np.float32), requires_grad=True)
    loss = PerSample(name="mine")(y_true, y_pred)
    assert loss.shape == () and loss.data == pytest.approx(((y_true - 0.25) ** 2).mean())
    model = nn.Sequential([nn.Dense(4)])
    model.compile("sgd", PerSample())
    history = model.fit(y_true, y_true, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]

    class Wrong(PerSample):
        def call(self, y_true, y_pred):
            return 1.0

    with pytest.raises(TypeError, match="^loss loss: returned float: it must return a Tensor"):
        Wrong()(y_true, y_pred)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool, np.uint32, np.int64, np.float32])
def test_targets_of_a_function_have_room_for_its_arithmetic(dtype):
    def hinge(y_true, y_pred):
        return functions.relu(1 - (2 * y_true - 1) * y_pred)

    y_true, y_pred = np.array([[0], [1], [1]]), np.array([[0.3], [0.4], [-2.0]])
    found = losses.get(hinge)(y_true.astype(dtype), y_pred)
    assert found.data == pytest.approx(np.maximum(1 - (2.0 * y_true - 1) * y_pred, 0).mean())


@pytest.mark.parametrize(
    ("loss", "activation", "y_true"),
    [
        (losses.CategoricalCrossentropy, "softmax", np.eye(3)),
        (losses.SparseCategoricalCrossentropy, "softmax", np.arange(3)),
        (losses.BinaryCrossentropy, "sigmoid", np.eye(3)),
    ],
)
def test_logits_are_not_normalized_twice(loss, activation, y_true):
    logits = Tensor(np.random.default_rng(1).normal(0, 2, (3, 3)))
    y_pred = getattr(functions, activation)(logits)
    with pytest.warns(UserWarning, match=f"from_logits=True, and the predictions are those of a {activation}"):
        found = loss(from_logits=True)(y_true, y_pred)
    assert found.data == loss()(y_true, y_pred).data == loss(from_logits=True)(y_true, logits).data


def test_what_keras_takes_by_position_is_not_taken_for_a_name():
    for call in (
        lambda: losses.BinaryCrossentropy(False, 0.1),
        lambda: losses.MeanAbsoluteError("sum"),
        lambda: losses.SparseCategoricalCrossentropy(False, 255),
        lambda: nn.metrics.BinaryAccuracy("b", "float32"),
    ):
        with pytest.raises(TypeError, match="positional argument"):
            call()
