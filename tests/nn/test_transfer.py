"""Batches on their way to a GPU, with a stand-in for CuPy whose streams do nothing until somebody waits for them."""

import types

import numpy as np
import pytest

from handloom import nn
from handloom.nn import transfer
from handloom.nn.batches import Batches


class FakeCuPy:
    """Copies happen when the current stream, or the host, waits for the event behind them, and in their order."""

    def __init__(self):
        fake, self.log = self, []

        class Event:
            def __init__(self, disable_timing=False):
                self.pending = []

            def record(self, stream):
                self.pending, stream.pending = self.pending + stream.pending, []

            def synchronize(self):
                for work in self.pending:
                    work()
                self.pending = []

        class Stream:
            def __init__(self, non_blocking=False):
                self.pending = []

            def synchronize(self):
                fake.log.append(self)

            def wait_event(self, event):
                if self is fake.current:
                    event.synchronize()

        class Array(np.ndarray):
            def set(self, host, stream):
                stream.pending.append(lambda: np.copyto(self.view(np.ndarray), host))

        self.Array, self.current = Array, Stream()
        self.cuda = types.SimpleNamespace(
            Event=Event,
            Stream=Stream,
            get_current_stream=lambda: self.current,
            alloc_pinned_memory=lambda size: bytearray(size),
        )

    def empty(self, shape, dtype):
        return np.full(shape, -1, dtype).view(self.Array)


@pytest.mark.parametrize("samples", [1, 4, 10, 12])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("meanwhile", [True, False])
def test_every_batch_arrives_whole_and_in_order(samples, labelled, meanwhile):
    """Also where the next one is fetched as soon as this one has been read."""
    x = np.arange(samples * 6, dtype=np.float32).reshape(samples, 2, 3)
    y = np.arange(samples, dtype=np.int64) if labelled else None
    batches = Batches("fit", x, y, 4)
    if labelled:
        batches.order = np.random.default_rng(1).permutation(samples)
    expected = [(a.copy(), None if b is None else b.copy()) for a, b in batches]
    found = []
    source = transfer.Ahead(FakeCuPy(), batches)
    for a, b in source:
        found.append((np.array(a), None if b is None else np.array(b)))
        if meanwhile:
            source.fetch()
    assert len(found) == len(expected) == len(batches)
    for (a, b), (c, d) in zip(found, expected):
        np.testing.assert_array_equal(a, c)
        assert (b is None) == (d is None)
        if b is not None:
            np.testing.assert_array_equal(b, d)


def test_who_leaves_early_waits_for_the_copies():
    source = transfer.Ahead(fake := FakeCuPy(), Batches("fit", np.zeros((9, 2)), None, 2))
    for _ in source:
        assert not fake.log
        break
    assert fake.log == [source._copies]


def test_on_a_cpu_nothing_is_moved():
    batches = Batches("fit", np.zeros((4, 2)), np.zeros(4), 2)
    assert transfer.on_device_of(nn.Sequential([nn.Dense(2, input_dim=2)]), batches) is batches
