"""Seeds, streams, one-hot labels and the "did you mean" text."""

import random
import re
import subprocess
import sys
import threading

import numpy as np
import pytest

from handloom.nn import utils


def test_a_seed_restarts_the_streams_and_the_other_generators():
    utils.set_random_seed(11)
    first = utils.next_stream(), utils.next_stream(), random.random(), np.random.rand()
    utils.set_random_seed(11)
    assert utils.get_seed() == 11
    assert (utils.next_stream(), utils.next_stream(), random.random(), np.random.rand()) == first
    assert first[:2] == (0, 1)


def test_numpy_integers_are_seeds_too():
    utils.set_random_seed(np.int64(5))
    assert utils.get_seed() == 5
    assert type(utils.get_seed()) is int


@pytest.mark.parametrize("seed", ["7", 7.0, None, True])
def test_a_seed_of_another_type_is_refused(seed):
    with pytest.raises(TypeError, match=re.escape(f"set_random_seed: seed must be an integer, got {seed!r}")):
        utils.set_random_seed(seed)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused_and_changes_nothing(seed):
    utils.set_random_seed(3)
    with pytest.raises(ValueError, match=re.escape(f"must lie between 0 and 2**32 - 1, got {seed}")):
        utils.set_random_seed(seed)
    assert utils.get_seed() == 3
    assert utils.next_stream() == 0


def test_processes_start_from_different_seeds():
    command = [sys.executable, "-c", "from handloom.nn.utils import get_seed; print(get_seed())"]
    seeds = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(seeds) == 2


def test_threads_never_share_a_stream():
    utils.set_random_seed(0)
    taken = [[] for _ in range(8)]

    def take(mine):
        mine.extend(utils.next_stream() for _ in range(500))

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sum(taken, [])) == list(range(4000))


def test_to_categorical_places_one_one_in_each_row():
    rows = utils.to_categorical(np.array([[0, 3], [1, 1]], np.uint8), num_classes=5)
    assert rows.shape == (2, 2, 5)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.argmax(-1), [[0, 3], [1, 1]])
    np.testing.assert_array_equal(rows.sum(-1), np.ones((2, 2)))


def test_to_categorical_drops_a_last_axis_of_one_and_finds_the_width():
    rows = utils.to_categorical(np.array([[2], [0]]), dtype="float64")
    np.testing.assert_array_equal(rows, [[0, 0, 1], [1, 0, 0]])
    assert rows.dtype == np.float64


def test_to_categorical_takes_whole_numbers_written_as_floats_and_empty_labels():
    np.testing.assert_array_equal(utils.to_categorical([1.0, 0.0]), [[0, 1], [1, 0]])
    assert utils.to_categorical([], num_classes=4).shape == (0, 4)
    assert utils.to_categorical(1, num_classes=3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        ([0, 5], 5, "label 5 does not fit num_classes=5: labels count from 0, so num_classes must be at least 6"),
        ([0, -1], None, "labels must not be negative, got -1"),
        ([0.5, 1], None, "labels must be whole numbers, got float64 values that are not"),
    ],
)
def test_to_categorical_refuses_bad_labels(labels, num_classes, message):
    with pytest.raises(ValueError, match=re.escape("to_categorical: " + message)):
        utils.to_categorical(labels, num_classes)


def test_did_you_mean_names_the_options_and_the_nearest():
    text = utils.did_you_mean("optimizer", "Admaw", ["SGD", "Adam", "AdamW"])
    assert text == "optimizer: unknown name 'Admaw': it must be one of Adam, AdamW, SGD; did you mean 'AdamW'?"


def test_did_you_mean_guesses_nothing_when_nothing_is_near():
    assert utils.did_you_mean("loss", "xyz", ["mse", "mae"]) == "loss: unknown name 'xyz': it must be one of mae, mse"
    assert utils.did_you_mean("loss", 3, ["mse"]) == "loss: unknown name 3: it must be one of mse"
