"""Recordings of launches: what a replay does again, and what it must not."""

import threading

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels import recording as module
from handloom.kernels.arrays import contiguous, copy_of
from handloom.kernels.recording import Recording, is_recording, on_host, refuse, taken_over
from handloom.kernels.workspace import scratch


def draw(*shape):
    return np.random.default_rng(sum(shape)).uniform(-1, 1, shape).astype(np.float32)


def step(x, w, t):
    """Products large enough for threads, strided operands, and a loss."""
    y, saved = kernels.dense_forward(x, w, activation="tanh")
    loss, loss_saved = kernels.mean_squared_error_forward(y, t)
    (dy,) = kernels.mean_squared_error_backward(1.0, loss_saved)
    dx, dw, _ = kernels.dense_backward(dy, saved)
    return loss, y, dx, dw


@pytest.mark.parametrize("m, k, n", [(5, 7, 3), (300, 200, 150), (40, 2000, 60)])
def test_a_replay_computes_the_same_of_what_now_is_in_memory(m, k, n):
    x, w, t = draw(m, k), draw(k, n), draw(m, n)
    with Recording() as recording:
        results = step(x, w, t)
    first = [result.copy() for result in results]
    for array in (x, w, t):
        array[...] = array[::-1].copy() * 0.5
    expected = [result.copy() for result in step(x, w, t)]
    for result in results:
        result.fill(np.nan)
    recording.replay()
    assert recording.refused is None
    for got, want, before in zip(results, expected, first, strict=True):
        np.testing.assert_array_equal(got, want)
        assert (got != before).any()


def test_scratch_memory_is_the_recordings_own():
    """Between recording and replay, others ask for the same scratch memory, and keep it."""
    x, w, t = draw(70, 1100), draw(1100, 45), draw(70, 45)
    with Recording() as recording:
        results = step(x, w, t)
    expected = [result.copy() for result in results]
    for array in (draw(90, 1200), draw(64, 3000)):
        kernels.matmul(array, array, transpose_b=True)
    recording.replay()
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_another_thread_may_replay():
    x, w, t = draw(64, 300), draw(300, 128), draw(64, 128)
    with Recording() as recording:
        results = step(x, w, t)
    expected = [result.copy() for result in results]
    results[1].fill(np.nan)
    thread = threading.Thread(target=recording.replay)
    thread.start()
    thread.join()
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_changing_numbers_are_those_of_the_replay():
    w, g, m, v = (draw(40 + i) for i in range(4))
    w, g, m, v = (array[:40] for array in (w, g, m, np.abs(v)))
    options = {"learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-6}
    with Recording() as recording:
        for part in (slice(0, 9), slice(9, 40)):
            kernels.adam_update(w[part], g[part], m[part], v[part], step=1, **options)
    expected = [array.copy() for array in (w, g, m, v)]
    kernels.adam_update(*expected, step=2, **{**options, "learning_rate": 0.03})
    recording.replay(*kernels.optimizers.adam_numbers(step=2, **{**options, "learning_rate": 0.03}))
    for got, want in zip((w, g, m, v), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_launches_of_other_threads_are_not_recorded():
    a, others = draw(4, 4), []
    with Recording() as recording:
        mine = kernels.relu(a)
        thread = threading.Thread(target=lambda: others.append((is_recording(), kernels.relu(a))))
        thread.start()
        thread.join()
    ((recorded, theirs),) = others
    assert not recorded
    mine.fill(7)
    theirs.fill(7)
    recording.replay()
    assert (theirs == 7).all() and not (mine == 7).any()


def test_arrays_live_as_long_as_the_recording():
    with Recording() as recording:
        y = kernels.relu(kernels.tanh(draw(1000)))
    expected = y.copy()
    _ = [np.full(1000, np.nan, np.float32) for _ in range(100)]  # would take memory that is free
    recording.replay()
    np.testing.assert_array_equal(y, expected)


class TestOnHost:
    def test_is_called_now_and_at_each_replay_in_its_place(self):
        x, seen = np.zeros(3, np.float32), []
        with Recording() as recording:
            y = kernels.relu(x)
            on_host(lambda array: seen.append(float(array[0])), y)
            on_host(y.fill, -1.0)
        x[...] = 5
        recording.replay()
        assert seen == [0.0, 5.0] and (y == -1).all()

    def test_launches_inside_are_not_recorded_a_second_time(self):
        x = np.full(3, 2.0, np.float32)
        out = []
        with Recording() as recording:
            on_host(lambda: out.append(kernels.relu(x)))
            assert is_recording()
        assert len(recording._parts) == 1
        recording.replay()
        np.testing.assert_array_equal(out, [[2, 2, 2]] * 2)

    def test_outside_a_recording_it_is_a_plain_call(self):
        seen = []
        on_host(seen.append, 1)
        assert seen == [1] and not is_recording()

    def test_an_error_leaves_a_recording_that_is_refused(self):
        with pytest.raises(ZeroDivisionError), Recording() as recording:
            on_host(lambda: 1 / 0)
        assert recording.refused and not is_recording()


def test_copies_are_made_again():
    x = draw(6, 4)
    with Recording() as recording:
        y, z = kernels.relu(contiguous(x.T)), kernels.relu(copy_of(x))
    x[...] = np.abs(x) + 1
    recording.replay()
    np.testing.assert_array_equal(y, x.T)
    np.testing.assert_array_equal(z, x)
    assert contiguous(x) is x and contiguous(x, np.float64).dtype == np.float64


class TestTakingOver:
    """A product that the next recording wants alone is computed there, and not here any more."""

    @staticmethod
    def product(x, z):
        with Recording() as first:
            y = kernels.matmul(x, z, transpose_a=True)
        return first, y, y.reshape(-1)

    def test_what_was_taken_over_is_not_computed(self):
        x, z = draw(30, 64), draw(30, 48)
        first, y, flat = self.product(x, z)
        with Recording(after=first):
            what = taken_over(flat)
        assert what.a.base is x and what.b.base is z and (what.m, what.n, what.depth) == (64, 48, 30)
        y.fill(7)
        first.replay()
        assert (y == 7).all()

    def test_only_by_the_next_recording(self):
        first, y, flat = self.product(draw(30, 64), draw(30, 48))
        assert taken_over(flat) is None
        with Recording():
            assert taken_over(flat) is None
        y.fill(7)
        first.replay()
        assert not (y == 7).any()

    def test_not_what_something_else_reads(self):
        x, z = draw(30, 64), draw(30, 48)
        for read in (
            kernels.relu,
            lambda y: kernels.matmul(y, z, transpose_b=True),
            lambda y: on_host(y[3:].sum),
            lambda y: on_host(np.copyto, np.empty_like(y), y),
        ):
            with Recording() as first:
                y = kernels.matmul(x, z, transpose_a=True)
                read(y)
            with Recording(after=first):
                assert taken_over(y.reshape(-1)) is None

    def test_not_with_operands_in_scratch_memory(self):
        with Recording() as first:
            x = scratch("test.x", 30 * 64, np.dtype(np.float32)).reshape(30, 64)
            x[...] = 1
            y = kernels.matmul(x, draw(30, 48), transpose_a=True)
        with Recording(after=first):
            assert taken_over(y.reshape(-1)) is None

    def test_not_with_a_bias_an_activation_or_a_sum_in_blocks(self):
        x, w, b = draw(64, 30), draw(30, 48), draw(48)
        for options in ({"b": b}, {"activation": "relu"}):
            with Recording() as first:
                y = kernels.dense(x, w, **options)
            with Recording(after=first):
                assert taken_over(y.reshape(-1)) is None
        first, y, flat = self.product(draw(300, 64), draw(300, 48))
        with Recording(after=first):
            assert taken_over(flat) is None

    def test_a_recording_that_fails_takes_nothing(self):
        first, y, flat = self.product(draw(30, 64), draw(30, 48))
        with pytest.raises(KeyError), Recording(after=first):
            assert taken_over(flat) is not None
            raise KeyError
        y.fill(7)
        first.replay()
        assert not (y == 7).any()


def test_what_must_not_be_replayed_says_why():
    refuse("nobody listens")
    with Recording() as recording:
        refuse("first")
        refuse("second")
    assert recording.refused == "first"


def test_a_recording_inside_another_takes_its_launches_and_refuses_it():
    with Recording() as outer:
        with Recording() as inner:
            kernels.relu(draw(3))
        assert module.threads.recorder is outer
    assert inner.refused is None and outer.refused == "another recording began inside"
