"""Training: `compile`, `fit`, `evaluate`, `predict` and the loops below them.

`Trainer` is mixed into `Model`. Whatever need not happen at every step happens before the loop: a step of a small
network takes no longer than a hundred lines of Python.
"""

from __future__ import annotations

import warnings

import numpy as np

from .. import kernels
from ..kernels.arrays import namespace
from ..kernels.recording import afterwards, is_recording
from . import losses, metrics, optimizers
from .batches import Batches, as_array, check_input_shape, split
from .callbacks import Callback, History
from .devices import beside, place_input
from .layers.arguments import as_count, as_positive_int
from .progress import ProgressBar
from .steps import Predictions, Steps, is_own
from .tensor import Tensor, made_by, no_grad
from .transfer import on_device_of
from .utils import get_seed, next_stream


class Trainer:
    """The part of a model that learns, measures and predicts."""

    optimizer = None
    loss = None
    history = None
    run_eagerly = False
    stop_training = False
    _metrics = ()
    _steps = _predictions = None
    _varies = ("optimizer", "history", "stop_training", "_shuffles", "_epochs_shuffled", "_predictions")
    _shuffles = None  # (seed, random stream) that the orders of the samples come from
    _epochs_shuffled = 0

    def compile(self, optimizer="rmsprop", loss=None, *, metrics=None, run_eagerly=False):
        """Says how `fit` shall train.

        Args:
            optimizer: a name or an `Optimizer`.
            loss: a name, a `Loss` or a function(y_true, y_pred) of tensors that returns a tensor.
            metrics: a list of names, `Metric`s and functions.
            run_eagerly: compute all steps and predictions in plain Python, for looking into them; by default they are
                played back from a recording once that is known to give the same bits (see `nn.steps`).
        """
        if loss is None:
            raise ValueError("compile: loss is missing: pass a name such as 'categorical_crossentropy' or a function")
        optimizer, loss = optimizers.get(optimizer), losses.get(loss)
        for name in ("train_step", "test_step", "predict_step"):
            if hasattr(self, name):
                warnings.warn(
                    f"compile: {type(self).__name__}.{name} is not called by fit, evaluate or predict: for steps of "
                    "your own write a loop, as in examples/custom_training_loop.py",
                    stacklevel=2,
                )
        self._metrics = _get_metrics(metrics, loss)
        self.optimizer, self.loss, self.run_eagerly = optimizer, loss, bool(run_eagerly)
        self._steps = Steps()

    @property
    def metrics(self):
        return list(self._metrics)

    @property
    def metrics_names(self):
        """What `evaluate` returns, in this order."""
        return ["loss", *(metric.name for metric in self._metrics)]

    def fit(
        self,
        x=None,
        y=None,
        batch_size=32,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        initial_epoch=0,
        validation_batch_size=None,
    ):
        """Trains for `epochs` passes over the data and returns a `History`.

        Args:
            x, y: arrays with one sample a row.
            batch_size: samples in a step; the last batch of an epoch may be shorter.
            epochs: the number of passes, those before `initial_epoch` included.
            verbose: 0 nothing, 1 or "auto" a progress bar, 2 a line for each epoch.
            callbacks: a list of `Callback`s, or one.
            validation_split: this fraction of the samples, the last ones, is kept for validation.
            validation_data: (x, y) to validate on instead.
            shuffle: whether each epoch takes the samples in an order of its own.
            initial_epoch: the epoch to begin with, counted from 0, to go on where an earlier `fit` stopped.
            validation_batch_size: samples in a batch of the validation, by default `batch_size`.
        """
        self._require_compiled("fit")
        x, y = self._as_data("fit", x, y)
        batch_size = _as_batch_size("fit", batch_size)
        validation_batch_size = _as_batch_size(
            "fit", validation_batch_size, default=batch_size, name="validation_batch_size"
        )
        if validation_data is None:
            x, y, *rest = split(x, y, validation_split)
            validation = Batches("fit(validation_split)", *rest, validation_batch_size, first=len(x)) if rest else None
        elif isinstance(validation_data, (tuple, list)) and len(validation_data) == 2:
            operation = "fit(validation_data)"
            validation = Batches(operation, *self._as_data(operation, *validation_data), validation_batch_size)
        else:
            raise ValueError("fit: validation_data must be a tuple of two arrays, (x, y)")
        batches = Batches("fit", x, y, batch_size)
        epochs = range(as_count("fit", "initial_epoch", initial_epoch), as_positive_int("fit", "epochs", epochs))
        callbacks = _as_callbacks(callbacks)
        self.history = History()
        callbacks.append(self.history)
        self._introduce(callbacks, verbose, batches, epochs.stop)
        self.stop_training = False
        with ProgressBar(verbose, len(batches), epochs.stop) as bar:
            self._run(epochs, batches, validation, shuffle, bar if verbose else None, callbacks)
        return self.history

    def evaluate(self, x=None, y=None, batch_size=32, verbose="auto", *, callbacks=None, return_dict=False):
        """Loss and metrics on this data: [loss, *metrics], the loss alone where there are no metrics, or a dict."""
        self._require_compiled("evaluate")
        batches = Batches("evaluate", *self._as_data("evaluate", x, y), _as_batch_size("evaluate", batch_size))
        callbacks = self._introduce(_as_callbacks(callbacks), verbose, batches)
        with ProgressBar(verbose, len(batches)) as bar:
            bar.epoch_begin()
            logs = self._test_epoch(batches, bar if verbose else None, callbacks)
            bar.epoch_end(logs)
        return logs if return_dict else _flat(logs)

    def predict(self, x, batch_size=32, verbose="auto", *, callbacks=None):
        """The outputs for all samples of `x`, computed batch by batch, as one array."""
        x, _ = self._as_data("predict", x, None, labelled=False)
        batch_size = _as_batch_size("predict", batch_size)
        if len(x) <= batch_size and not verbose and callbacks is None and self._predictions is not None:
            y = self._predictions.play(self, x)
            if y is not None:
                return y
        batches = Batches("predict", x, None, batch_size)
        callbacks = self._introduce(_as_callbacks(callbacks), verbose, batches)
        on_begin, on_batch_begin, on_batch_end, on_end = (
            _hooks(callbacks, f"on_predict_{moment}") for moment in ("begin", "batch_begin", "batch_end", "end")
        )
        _tell(on_begin, {})
        outputs = []
        with no_grad(), self._in_mode(False), ProgressBar(verbose, len(batches)) as bar:
            bar.epoch_begin()
            for index, (batch, _) in enumerate(on_device_of(self, batches)):
                _tell(on_batch_begin, index, {})
                outputs.append(beside(self._output(batch), x))
                bar.step(index, dict)
                _tell(on_batch_end, index, {"outputs": outputs[-1]})
            bar.epoch_end({})
        _tell(on_end, {})
        return namespace(x).concatenate(outputs)  # also of one batch, whose outputs may be a view of `x`

    def train_on_batch(self, x, y=None, *, return_dict=False):
        """One step. Returns loss and metrics of this batch, from before the step, in the form of `evaluate`."""
        self._require_compiled("train_on_batch")
        x, y = self._as_data("train_on_batch", x, y)
        logs = self._train_epoch(Batches("train_on_batch", x, y, len(x)), 0, None, (), [])
        return logs if return_dict else _flat(logs)

    def test_on_batch(self, x, y=None, *, return_dict=False):
        """Loss and metrics of this batch, in the form of `evaluate`."""
        self._require_compiled("test_on_batch")
        x, y = self._as_data("test_on_batch", x, y)
        logs = self._test_epoch(Batches("test_on_batch", x, y, len(x)), None, ())
        return logs if return_dict else _flat(logs)

    def predict_on_batch(self, x):
        """The outputs for these samples, taken as one batch."""
        x, _ = self._as_data("predict_on_batch", x, None, labelled=False)
        y = None if self._predictions is None else self._predictions.play(self, x)
        if y is not None:
            return y
        with no_grad(), self._in_mode(False):
            return self._output(x).copy()  # it may be a view of `x`

    def _output(self, x):
        """The model's output for a batch, as the kind of array that `x` is."""
        if self._predictions is None:
            self._predictions = Predictions()
        return self._predictions.compute(self, x, self._eager_output)

    def _eager_output(self, x):
        y = self(made_by(place_input(self, x), None))
        if not isinstance(y, Tensor):
            raise TypeError(f"predict: the model returned a {type(y).__name__}: it must return one tensor")
        return beside(y.data, x)

    # The loops.

    def _introduce(self, callbacks, verbose, batches, epochs=1):
        """Tells the callbacks, which it returns, what they are for."""
        for callback in callbacks:
            callback.set_model(self)
            callback.set_params({"verbose": verbose, "epochs": epochs, "steps": len(batches)})
        return callbacks

    def _run(self, epochs, batches, validation, shuffle, bar, callbacks):
        """Epoch after epoch, until a callback sets `stop_training`."""
        on_epoch_begin, on_epoch_end = _hooks(callbacks, "on_epoch_begin"), _hooks(callbacks, "on_epoch_end")
        logs = {}
        unchecked = [batches] if validation is None else [batches, validation]
        _tell(_hooks(callbacks, "on_train_begin"), {})
        for epoch in epochs:
            _tell(on_epoch_begin, epoch, {})
            if shuffle:
                batches.order = self._next_order(len(batches.x), epoch)
            if bar is not None:
                bar.epoch_begin(epoch)
            logs = self._train_epoch(batches, epoch, bar, callbacks, unchecked)
            if validation is not None:
                measured = self._test_epoch(validation, None, callbacks)
                logs.update({f"val_{name}": value for name, value in measured.items()})
            if bar is not None:
                bar.epoch_end(logs)
            _tell(on_epoch_end, epoch, logs)
            if self.stop_training:
                break
        _tell(_hooks(callbacks, "on_train_end"), logs)

    def _train_epoch(self, batches, epoch, bar, callbacks, unchecked):
        """A step for each batch; returns the means over the epoch.

        `unchecked` lists the batches whose targets are still to be held against the outputs, before the first step.
        """
        on_begin, on_end = _hooks(callbacks, "on_train_batch_begin"), _hooks(callbacks, "on_train_batch_end")
        optimizer, loss_function, measures, steps = self.optimizer, self.loss, self._metrics, self._steps
        means = _Means(measures)
        bound = False

        def check_targets(x, y_pred):
            while unchecked:
                self._check_targets(unchecked[0], x, y_pred)
                unchecked.pop(0)

        def compute(x, y):
            """The eager step, all but the optimizer's: (loss, y_pred)."""
            nonlocal bound
            x, y = place_input(self, x), place_input(self, y, "y")
            y_pred = self(made_by(x, None))
            check_targets(x, y_pred)
            loss = loss_function(y, y_pred)
            if not is_recording():  # else the loss is looked at when the step is over: a GPU has not yet computed it
                check(float(loss.data), x, y)
            if not bound:  # only here, because the first call may have built layers
                bound = self._bind(batches.operation)
            loss.backward()
            for metric in measures:  # before the optimizer's step: one that does not fit leaves the weights as they are
                afterwards(*_follow(metric, y_pred.data, y, steps))
            return loss, y_pred

        def check(loss, x, y):
            if loss - loss != 0:  # NaN or Inf
                raise ValueError(batches.explain_loss(loss, index, epoch, x, y))

        played = steps.begin(self, batches.x)
        try:
            with self._in_mode(True):
                source = on_device_of(self, batches)
                fetch = getattr(source, "fetch", None)
                for index, (x, y) in enumerate(source):
                    if on_begin:
                        _tell(on_begin, index, {})
                        if played:
                            steps.look_at(self)  # they may have changed it
                    if played:
                        value, x, y = steps.take(self, x, y, compute, check_targets, fetch)
                        check(value, x, y)
                        means.add(value, len(x))
                        steps.update(optimizer)
                    else:
                        value = float(compute(x, y)[0].data)
                        means.add(value, len(x))
                        optimizer.step()
                    optimizer.zero_grad()
                    if bar is not None:
                        bar.step(index, means.logs)
                    if on_end:
                        _tell(on_end, index, means.logs())
                        if played:
                            steps.look_at(self)
                    if self.stop_training:
                        break
        finally:
            optimizer.zero_grad()  # what a step leaves that was interrupted
            if played:
                steps.end()
        return means.logs()

    def _test_epoch(self, batches, bar, callbacks):
        """The means over the batches, without training."""
        on_begin, on_batch_begin, on_batch_end, on_end = (
            _hooks(callbacks, f"on_test_{moment}") for moment in ("begin", "batch_begin", "batch_end", "end")
        )
        means = _Means(self._metrics)
        _tell(on_begin, {})
        with no_grad(), self._in_mode(False):
            for index, (x, y) in enumerate(on_device_of(self, batches)):
                _tell(on_batch_begin, index, {})
                x, y = place_input(self, x), place_input(self, y, "y")
                y_pred = self(made_by(x, None))
                if index == 0:
                    self._check_targets(batches, x, y_pred)
                means.add(float(self.loss(y, y_pred).data), len(x))
                for metric in self._metrics:
                    metric.update(y_pred.data, y)
                if bar is not None:
                    bar.step(index, means.logs)
                if on_batch_end:
                    _tell(on_batch_end, index, means.logs())
        logs = means.logs()
        _tell(on_end, logs)
        return logs

    def _check_targets(self, batches, x, y_pred):
        """Holds the targets of all `batches` against the model's outputs, of which `y_pred` are those for `x`."""
        if getattr(y_pred, "shape", ())[:1] != x.shape[:1]:
            return  # not one row of outputs for each sample: what then fits, the loss alone can say
        try:
            shape = y_pred.shape
            if batches.x.shape[1:] != x.shape[1:]:  # sequences of another length
                shape = self.compute_output_shape(batches.x.shape)
            outputs = np.broadcast_to(np.zeros((), y_pred.dtype), (len(batches.x), *shape[1:]))
            self.loss.check_targets(batches.y, outputs, batches.name_target)
        except ValueError as error:
            raise ValueError(f"{batches.operation}: {error}") from error

    def _bind(self, operation):
        """Hands the parameters to the optimizer, without what a `backward()` of the user's own may have left in them.

        False as long as there are layers that no call has built yet.
        """
        weights, built = self.trainable_weights, all(layer.built for layer in self.all_layers())
        if built and not weights:
            raise ValueError(
                f"{operation}: the model {self.name!r} has no trainable weights: set trainable=True for it, or for one "
                "of its layers"
            )
        self.optimizer.bind(weights)
        self.optimizer.zero_grad()
        return built

    def _next_order(self, samples, epoch):
        """The permutation for an epoch. It counts on over repeated calls of `fit`, and from `initial_epoch`."""
        if self._shuffles is None:
            self._shuffles = get_seed(), next_stream()
        seed, stream = self._shuffles
        step = max(epoch, self._epochs_shuffled)
        self._epochs_shuffled = step + 1
        return kernels.permutation(samples, seed=seed, stream=stream, step=step)

    # What comes in.

    def _require_compiled(self, operation):
        if self.optimizer is None:
            raise ValueError(
                f"{operation}: the model {self.name!r} is not compiled: call compile(optimizer=..., loss=...) first"
            )

    def _as_data(self, operation, x, y, labelled=True):
        """Samples and targets as arrays, checked against each other and against the model."""
        if not self.built:
            self._settle_device()
        x = as_array(operation, "x", x)
        check_input_shape(operation, x, self)
        if x.dtype.kind == "f" and x.dtype != self.dtype:  # once, not at every step; integers may be indices
            x = x.astype(self.dtype)
        if not labelled:
            return x, None
        y = as_array(operation, "y", y)
        if len(x) != len(y):
            raise ValueError(f"{operation}: x has {len(x)} samples and y has {len(y)}: they must be as many")
        return x, self.loss.cast_targets(y, self.dtype)


class _Means:
    """The running loss of an epoch, and the metrics beside it."""

    __slots__ = ("total", "samples", "metrics")

    def __init__(self, metrics):
        self.total = 0.0
        self.samples = 0
        self.metrics = metrics
        for metric in metrics:
            metric.reset()

    def add(self, loss, samples):
        self.total += loss * samples
        self.samples += samples

    def logs(self):
        return {"loss": self.total / self.samples, **{metric.name: metric.result() for metric in self.metrics}}


def _follow(metric, y_pred, y, steps):
    """What updates a metric, and its arguments. The user's own, which may keep what it gets, gets arrays that will not
    change, and nothing of a step that is only tried: nobody could set it back."""
    if is_own(metric):
        return metric.follow(y_pred, y)

    def update():
        if not steps.is_trying:
            metric.update(y_pred.copy(), y.copy())

    return (update,)


def _get_metrics(chosen, loss):
    if chosen is None:
        return ()
    if isinstance(chosen, str) or not isinstance(chosen, (tuple, list)):
        raise TypeError(f"compile: metrics must be a list such as ['accuracy'], got {chosen!r}")
    found = tuple(metrics.get(metric, loss=loss) for metric in chosen)
    names = ["loss", *(metric.name for metric in found)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"compile: there are two values named {name!r}: give one metric another name=")
    return found


def _as_callbacks(callbacks):
    """A list of its own for a list of callbacks, a single one or None."""
    if callbacks is None:
        return []
    callbacks = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: each must be a Callback, got {callback!r}")
    return callbacks


def _hooks(callbacks, moment):
    """The callbacks' methods for a moment, without those that do nothing."""
    nothing = getattr(Callback, moment)
    methods = [getattr(callback, moment) for callback in callbacks]
    return [method for method in methods if getattr(method, "__func__", method) is not nothing]


def _tell(hooks, *what):
    for hook in hooks:
        hook(*what)


def _as_batch_size(operation, batch_size, default=32, name="batch_size"):
    return default if batch_size is None else as_positive_int(operation, name, batch_size)


def _flat(logs):
    values = list(logs.values())
    return values if len(values) > 1 else values[0]
