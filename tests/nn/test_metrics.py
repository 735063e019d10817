"""Metrics: values, the meaning of "accuracy", names and configurations."""

import json
import re

import numpy as np
import pytest

from handloom.nn import metrics
from handloom.nn.tensor import Tensor

RNG = np.random.default_rng(3)
P = RNG.random((12, 5), np.float32)
LABELS = RNG.integers(0, 5, 12)
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]
SHARE = (P.argmax(1) == LABELS).mean()


@pytest.mark.parametrize(
    ("name", "y_pred", "y_true", "expected"),
    [
        ("categorical_accuracy", P, ONE_HOT, SHARE),
        ("categorical_accuracy", P, ONE_HOT.astype(np.float64), SHARE),
        ("categorical_accuracy", P, ONE_HOT.astype(np.uint8), SHARE),
        ("categorical_accuracy", P.reshape(3, 4, 5), ONE_HOT.reshape(3, 4, 5), SHARE),
        ("sparse_categorical_accuracy", P, LABELS, SHARE),
        ("sparse_categorical_accuracy", P, LABELS.astype(np.uint8), SHARE),
        ("sparse_categorical_accuracy", P, LABELS[:, None], SHARE),
        ("sparse_categorical_accuracy", P, LABELS.astype(np.float32), SHARE),
        ("sparse_categorical_accuracy", P.reshape(3, 4, 5), LABELS.reshape(3, 4), SHARE),
        ("binary_accuracy", P[:, :1], (LABELS > 2)[:, None], ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
        ("binary_accuracy", P[:, :1], (LABELS > 2).astype(np.float32), ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
        ("binary_accuracy", P[:, 0], LABELS[:, None] > 2, ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
        ("mse", P, ONE_HOT, ((P - ONE_HOT) ** 2).mean()),
        ("mean_squared_error", P[:, :1], LABELS, ((P[:, 0] - LABELS) ** 2).mean()),
        ("mae", P, ONE_HOT, np.abs(P - ONE_HOT).mean()),
        ("mean_absolute_error", P[:, :1], LABELS, np.abs(P[:, 0] - LABELS).mean()),
    ],
)
def test_values_over_two_unequal_batches(name, y_pred, y_true, expected):
    metric = metrics.get(name)
    assert metric.name == name
    assert metric.result() == 0.0
    for part in (slice(None, 2), slice(2, None)):
        metric.update(y_pred[part], y_true[part])
    assert isinstance(metric.result(), float)
    assert metric.result() == pytest.approx(expected, rel=1e-6)
    metric.reset()
    assert metric.result() == 0.0
    metric.update_state(y_true, Tensor(y_pred))  # Keras's order
    assert metric.result() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "acc"])
@pytest.mark.parametrize(
    ("y_pred", "y_true", "expected"),
    [
        (P, ONE_HOT, SHARE),
        (P, LABELS, SHARE),
        (P, LABELS[:, None], SHARE),
        (P.reshape(3, 4, 5), ONE_HOT.reshape(3, 4, 5), SHARE),
        (P.reshape(3, 4, 5), LABELS.reshape(3, 4), SHARE),
        (P[:, :1], (LABELS > 2)[:, None], ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
        (P[:, :1], LABELS > 2, ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
        (P[:, 0], LABELS > 2, ((P[:, 0] > 0.5) == (LABELS > 2)).mean()),
    ],
    ids=["one-hot", "labels", "column", "one-hot sequence", "label sequence", "binary", "binary row", "no axis"],
)
def test_accuracy_is_chosen_by_the_shapes(name, y_pred, y_true, expected):
    metric = metrics.get(name)
    metric.update(y_pred, y_true)
    assert metric.name == name
    assert metric.result() == pytest.approx(expected)


def binary_crossentropy(y_true, y_pred):
    """Stands for a loss given as a function."""


class NamedLoss:
    name = "binary_crossentropy"


@pytest.mark.parametrize("loss", ["binary_crossentropy", "BinaryCrossentropy", binary_crossentropy, NamedLoss()])
def test_several_outputs_under_a_binary_loss_are_so_many_answers(loss):
    answers = RNG.integers(0, 2, P.shape)
    metric = metrics.get("accuracy", loss=loss)
    metric.update(P, answers)
    assert metric.result() == pytest.approx(((P > 0.5) == answers).mean())


def test_other_losses_leave_the_choice_to_the_shapes():
    for loss in ("categorical_crossentropy", "mse", None, lambda y_true, y_pred: 0):
        metric = metrics.get("accuracy", loss=loss)
        metric.update(P, ONE_HOT)
        assert metric.result() == pytest.approx(SHARE)


def test_a_threshold_of_its_own():
    metric = metrics.BinaryAccuracy(threshold=0.9)
    metric.update(np.array([0.8, 0.95]), np.array([0, 1]))
    assert metric.result() == 1.0


@pytest.mark.parametrize(
    ("name", "expected"), [("binary_accuracy", 3 / 4), ("mse", 5 / 4), ("mae", 3 / 4), ("categorical_accuracy", 1.0)]
)
def test_whole_numbers_as_predictions(name, expected):
    metric = metrics.get(name)
    metric.update_state([[1, 0], [1, 0]], [[1, 0], [3, 1]])
    metric.update_state(np.array([[True, False], [True, False]]), np.array([[1, 0], [3, 1]], np.uint8))
    assert metric.result() == pytest.approx(expected)


def test_a_function_of_ones_own_is_weighted_by_the_batch_sizes():
    def spread(y_true, y_pred):
        return np.abs(y_pred - y_true).max(axis=-1)

    metric = metrics.get(spread)
    assert metric.name == "spread"
    metric.update(P[:4], ONE_HOT[:4])
    metric.update(P[4:], ONE_HOT[4:])
    assert metric.result() == pytest.approx(np.abs(P - ONE_HOT).max(1).mean())
    tensors = metrics.get(lambda y_true, y_pred: Tensor(y_pred).mean())
    tensors.update(P, ONE_HOT)
    assert tensors.result() == pytest.approx(P.mean())


def test_inputs_stay_as_they_were():
    for name in sorted(metrics._BY_NAME):
        y_pred, y_true = P[:, :1].copy(), ONE_HOT[:, :1].copy()
        metrics.get(name).update(y_pred, y_true)
        np.testing.assert_array_equal(y_pred, P[:, :1])
        np.testing.assert_array_equal(y_true, ONE_HOT[:, :1])


@pytest.mark.parametrize("name", sorted(metrics._BY_NAME))
def test_every_name_survives_a_round_trip_through_json(name):
    metric = metrics.get(name)
    again = metrics.get(json.loads(json.dumps(metrics.serialize(metric))))
    assert type(again) is type(metric)
    assert again.name == name
    assert again.get_config() == metric.get_config()
    assert type(metrics.get(type(metric))) is type(metrics.get(type(metric).__name__)) is type(metric)
    assert metrics.get(metric) is metric


def test_accuracy_counts_up_and_errors_count_down():
    directions = {name: metrics.get(name).direction for name in metrics._BY_NAME}
    assert {name for name, direction in directions.items() if direction == "max"} == {
        name for name in directions if "acc" in name
    }
    assert set(directions.values()) == {"min", "max"}


def test_a_metric_prints_its_state():
    metric = metrics.get("acc")
    metric.update(ONE_HOT, ONE_HOT)
    assert repr(metric) == "AutoAccuracy(name='acc'): 1"


class Mine(metrics.Metric):
    pass


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: metrics.get("acuracy"), ValueError, "metric: unknown name 'acuracy': it must be one of MAE, MSE"),
        (lambda: metrics.get("acuracy"), ValueError, "did you mean 'accuracy'?"),
        (lambda: metrics.get(None), ValueError, "metric: unknown name None: it must be one of"),
        (
            lambda: metrics.get("mse").update(P, LABELS),
            ValueError,
            "mse: predictions are (12, 5) and targets (12,): shapes must be equal",
        ),
        (
            lambda: metrics.get("accuracy").update(P[:, :1], LABELS[:3]),
            ValueError,
            "accuracy: predictions are (12, 1) and targets (3,): shapes must be equal",
        ),
        (
            lambda: metrics.get("sparse_categorical_accuracy").update(P, ONE_HOT),
            ValueError,
            "sparse_categorical_accuracy: predictions are (12, 5) and labels (12, 5): must be (12,)",
        ),
        (lambda: metrics.serialize(Mine("mine")), ValueError, "metric mine: cannot be saved: only handloom's own"),
        (lambda: Mine().update(P, P), NotImplementedError, "Mine: a metric must define measure(y_pred, y_true)"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
