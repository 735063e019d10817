"""Training steps that are played back: the same launches on the same memory, without the Python between them.

The eager step is the definition. Of the batches of one shape

    the first   goes the eager way alone, which also builds and binds whatever is not yet there
    the second  goes the eager way and is recorded (kernels/recording.py; on a GPU kernels/graphs.py)
    the third   is played back, then goes the eager way, and the two are compared
    all others  are played back if that comparison found the same bits in every output, loss and gradient

so what a recording cannot see, such as a computation in NumPy, costs speed and nothing else. What cannot be known from
one step, such as a branch that another batch would take, is left eager from the start: models with layers, activations
or losses of the user's own. A model that was changed since the recording is recorded anew. `compile(run_eagerly=True)`
switches all this off.

The optimizer's step is a recording of its own, because the loss is looked at before it. It is made when a step is
played back for the first time; the rates of the day are handed to it. On the CPU it takes each parameter alone, and a
gradient that only the update reads may be computed there (kernels/optimizers/cpu.py), and is never in memory.

A recording keeps the memory of its step: activations, gradients and scratch. On a GPU, where not all can be captured
and the memory may not suffice, a step whose recording fails is computed again, eagerly, and from then on so are all of
its shape. (Captured steps have not yet run on a GPU.)
"""

from __future__ import annotations

import operator
import threading
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..kernels.graphs import GraphRecording
from ..kernels.recording import Recording, is_recording
from . import gpu
from .activations import Activation
from .devices import on_cpu, place_input, to_host
from .layers.base import changes

# Shapes of batches for which a model keeps recordings; the oldest goes first.
SHAPES = 8

_SEEN, _REFUSED = "seen", "refused"


class Steps:
    """The steps of one model, by the shapes of the batch; `eager(x, y)` computes one and returns (loss, y_pred)."""

    def __init__(self):
        self._by_shape = {}
        self._watch = _Watch(_around)
        self._is_predictable = False
        self._kind = None  # of recording
        self._played = None  # the step that `take` has just played back
        self.is_trying = False  # whether a step is played back to be compared, and counts for nothing
        self._lock = threading.Lock()

    def __reduce__(self):
        return Steps, ()  # copies of a model record for themselves

    def begin(self, model, x):
        """Whether steps on data like x may be played back, until `end`; if so, forgets those of what is no longer so.

        They may where all code is handloom's own, on the CPU and on a GPU, and not by two threads at once.
        """
        kind = _kind(model, x)
        if kind is None or model.run_eagerly or not self._lock.acquire(False):
            return False
        self._kind = kind
        self.look_at(model)
        if not self._is_predictable:
            self.end()
        return self._is_predictable

    def end(self):
        self._played = None
        self._lock.release()

    def look_at(self, model):
        """Forgets the recordings if the model is no longer what it was."""
        if not self._watch.stands(model):
            self._by_shape.clear()
            self._is_predictable = _is_predictable(model)

    def take(self, model, x, y, eager, check_targets, fetch=None):
        """(The loss of a step, as a number; x and y where they still lie), with its metrics updated. Its gradients are
        for `update`.

        `check_targets(x, y_pred)` looks at shapes and dtype alone of what the model makes of x. It is called before the
        step wherever they are known, because a recording must not read targets; otherwise `eager` calls it. `fetch()`,
        after which the given x and y may be others, is called where somebody would wait for a GPU.
        """
        if self._kind is GraphRecording:
            x, y = place_input(model, x), place_input(model, y, "y")
        shapes = x.shape, x.dtype, y.shape, y.dtype
        step = self._by_shape.get(shapes) if self._is_predictable else _REFUSED  # no more, after `look_at`
        if step is not None and step is not _REFUSED:
            check_targets(x, step.y_pred)
        if type(step) is _Step and step.verified:
            self._played = step
            return step.play(x, y, fetch), step.x, step.y
        self._played = None
        return self._take_first(model, shapes, step, x, y, eager), x, y

    def update(self, optimizer):
        """The optimizer's step, on the gradients of the step just taken."""
        if self._played is None:
            optimizer.step()
        else:
            self._played.update(optimizer)

    def _take_first(self, model, shapes, step, x, y, eager):
        """The first steps of a shape, which all go the eager way."""
        if step is None:
            loss, y_pred = eager(x, y)
            self._by_shape[shapes] = _Seen(SimpleNamespace(shape=y_pred.shape, dtype=y_pred.dtype))
            return float(loss.data)
        if type(step) is _Seen:
            self.look_at(model)  # the first step has bound its parameters
            while len(self._by_shape) > SHAPES:
                del self._by_shape[next(iter(self._by_shape))]
            step = _Step(self._kind(), x, y)
            value = step.record(model, eager)
            self._by_shape[shapes] = _REFUSED if step.recording.refused else step
            return value
        if step is _REFUSED:
            return float(eager(x, y)[0].data)
        if not step.tells_apart(x, y):
            return float(eager(x, y)[0].data)
        value, agrees = step.verify(self, model, x, y, eager)
        if not agrees:
            self._by_shape[shapes] = _REFUSED
        return value


class _Seen(NamedTuple):
    """A shape of batches of which one step was taken: `y_pred` has the shape and dtype of what the model made of it."""

    y_pred: SimpleNamespace


class _Step:
    """One recorded step and the arrays at its ends."""

    def __init__(self, recording, x, y):
        self.recording = recording
        self.x, self.y = (np.array(array) if isinstance(array, np.ndarray) else array.copy() for array in (x, y))
        self.verified = False
        self.loss = self.y_pred = None
        self.loss_here = None  # the loss in the host's memory
        self.gradients = []  # (parameter, its gradient)
        self.recorded_update = None

    def record(self, model, eager):
        before = _counters(model)
        try:
            with self.recording:
                loss, y_pred = eager(self.x, self.y)
                self.loss_here = self.recording.bring(loss.data)
                if isinstance(self.recording, GraphRecording) and is_own(model.optimizer):
                    model.optimizer.gather()  # as part of the graph: alone each copy costs what a launch does
        except Exception:
            if isinstance(self.recording, Recording):
                raise
            # A mistake in the model would be found again.
            _set_back(before)
            _forget_gradients(model)
            return float(eager(self.x, self.y)[0].data)
        self.loss, self.y_pred = loss.data, y_pred.data
        self.gradients = _gradients(model)
        return float(self.loss_here)

    def play(self, x, y, fetch=None):
        self.x[...], self.y[...] = x, y
        if fetch is None:
            self.recording.replay()
        else:
            self.recording.replay(fetch)
        return float(self.loss_here)

    def update(self, optimizer):
        recorded = self.recorded_update
        if recorded is not None and recorded.refused is None:
            optimizer.replay_step(recorded)
            return
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        if recorded is None and is_own(optimizer):
            self.recorded_update = optimizer.record_step(self.recording)
            if self.recorded_update is not None:
                return
        optimizer.step()

    def tells_apart(self, x, y):
        """Whether a batch is so different from the recorded one that comparing results proves something."""
        return x.dtype == self.x.dtype and y.dtype == self.y.dtype and (x != self.x).any() and (y != self.y).any()

    def verify(self, steps, model, x, y, eager):
        """(The loss of the eager step, whether playing back gives the same)."""
        before = _counters(model)
        steps.is_trying = True
        try:
            self.play(x, y)
        finally:
            steps.is_trying = False
        played = [np.array(to_host(array)) for array in self._results(self.gradients, self.loss, self.y_pred)]
        _set_back(before)
        _forget_gradients(model)
        loss, y_pred = eager(x, y)
        eagerly = self._results(_gradients(model), loss.data, y_pred.data)
        self.verified = len(played) == len(eagerly) and all(map(_same, played, eagerly))
        return float(loss.data), self.verified

    @staticmethod
    def _results(gradients, loss, y_pred):
        return [loss, y_pred, *(gradient for _, gradient in gradients)]


# Bytes of a batch up to which `predict` plays back: beyond, Python is a small part of the time.
SMALL_BYTES = 1 << 17


class Predictions:
    """What `predict` computes for small batches on the CPU, by the shape of the batch: a third of the time for one row.

    The first batch of a shape goes the eager way. The second is recorded, and the recording tried on other numbers: if
    it gives the bits of the eager way there, it is played from then on, as long as the model is what it was. Results
    are copies: what a user was given stays as it is.
    """

    def __init__(self):
        self._by_shape = {}
        self._watch = _Watch(lambda model: [])
        self._lock = threading.Lock()

    def __reduce__(self):
        return Predictions, ()  # as for `Steps`

    def play(self, model, x):
        """The outputs for x, or None where they have to be computed: nothing fits, or another thread is at it."""
        forward = self._by_shape.get((x.shape, x.dtype))
        if type(forward) is not _Forward or is_recording() or not self._lock.acquire(False):
            return None
        try:
            return forward.play(x) if self._stands(model) else None
        finally:
            self._lock.release()

    def compute(self, model, x, eager):
        """eager(x), which may be recorded."""
        small = type(x) is np.ndarray and x.dtype.kind == "f" and x.nbytes <= SMALL_BYTES
        if not small or not on_cpu(model) or model.run_eagerly or not _is_all_own(model) or is_recording():
            return eager(x)
        if not self._lock.acquire(False):
            return eager(x)
        try:
            key = x.shape, x.dtype
            if not self._stands(model) or key not in self._by_shape:
                self._by_shape[key] = _SEEN
                return eager(x)
            if self._by_shape[key] is not _SEEN:
                return eager(x)
            while len(self._by_shape) > SHAPES:
                del self._by_shape[next(iter(self._by_shape))]
            forward = _Forward(x)
            y = forward.record(eager).copy()
            self._by_shape[key] = forward if forward.agrees(eager) else _REFUSED
            return y
        finally:
            self._lock.release()

    def _stands(self, model):
        """Whether the model is what it was; if not, its recordings are forgotten."""
        stands = self._watch.stands(model)
        if not stands:
            self._by_shape.clear()
        return stands


class _Forward:
    """One recorded forward pass and the arrays at its ends."""

    def __init__(self, x):
        self.recording = Recording()
        self.x = np.array(x)
        self.y = None

    def record(self, eager):
        with self.recording:
            self.y = eager(self.x)
        return self.y

    def play(self, x):
        self.x[...] = x
        self.recording.replay()
        return self.y.copy()

    def agrees(self, eager):
        """Whether other numbers are treated alike."""
        if self.recording.refused:
            return False
        other = 0.5 * self.x + 0.25
        return (other != self.x).any() and _same(self.play(other), eager(other))


def _gradients(model):
    return [(weight, weight.grad) for weight in model.weights if weight.grad is not None]


def _forget_gradients(model):
    for weight in model.weights:
        weight.grad = None


def _counters(model):
    """What a step may change beside the gradients: for `_set_back`, after which it can be taken again."""
    return [(thing, dict(vars(thing))) for thing in (*model.all_layers(), *model.metrics)]


def _set_back(counters):
    for thing, before in counters:
        vars(thing).update(before)


def _same(a, b):
    b = to_host(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def _kind(model, x):
    """The kind of recording for steps on data like x; None: there is none."""
    if on_cpu(model):
        return Recording if type(x) is np.ndarray else None
    return None if gpu.simulated() else GraphRecording


def _is_predictable(model):
    """Whether every step does the same, whatever its batch holds: so it is where no code is the user's."""
    return is_own(model.loss) and _is_all_own(model)


def _is_all_own(model):
    return all(
        is_own(layer) and all(is_own(value) for value in vars(layer).values() if isinstance(value, Activation))
        for layer in model.all_layers()
    )


def is_own(thing):
    """Whether an object's class, and the function that it may be made of, is handloom's and not the user's."""
    parts = (thing, thing.function) if hasattr(thing, "function") else (thing,)
    return all((getattr(part, "__module__", None) or "").startswith(f"{__package__}.") for part in parts)


class _Watch:
    """The objects that recordings of a model depend on; `around(model)` lists those outside of its layers.

    As long as no layer's attribute was set and the parameters are what they were, nobody walks through the layers.
    """

    def __init__(self, around):
        self._list_around = around
        self._changes = None
        self._state = self._around = self._weights = ()

    def stands(self, model):
        """Whether each is the same object as when this was last asked."""
        around = self._list_around(model)
        if self._changes == changes() and _alike(around, self._around) and all(map(_is_as_before, self._weights)):
            return True
        self._changes, self._around = changes(), around
        self._weights = [(weight, weight.data, weight.requires_grad) for weight in model.weights]
        before, self._state = self._state, [*around, *_layer_state(model), *sum(self._weights, ())]
        return _alike(before, self._state)


def _alike(some, others):
    return len(some) == len(others) and all(map(operator.is_, some, others))


def _is_as_before(entry):
    weight, data, requires_grad = entry
    return weight.data is data and weight.requires_grad is requires_grad


def _around(model):
    """The objects outside of the layers that a step depends on."""
    optimizer = model.optimizer
    around = [optimizer, *(optimizer.settings() if is_own(optimizer) else ())]
    for thing in (model.loss, *model.metrics):
        around += (thing, *(thing.get_config().values() if is_own(thing) else ()))
    return around


def _layer_state(model):
    state = []
    for layer in model.all_layers():
        state += (layer, *(value for name, value in vars(layer).items() if name not in layer._varies))
    return state
