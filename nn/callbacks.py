"""Callbacks: what else happens while a model trains, with Keras's names and arguments."""

import csv
import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from . import metrics
from .layers.arguments import as_count
from .utils import did_you_mean

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
]


class Callback:
    """Base of all: subclasses override the moments they care about.

    Attributes:
        model: The model at work; setting `self.model.stop_training = True` ends `fit` after the step, or the epoch.
        params: A dict with `epochs`, `steps` and `verbose`.
    """

    def __init__(self):
        self.model = None
        self.params = {}

    def set_model(self, model) -> None:
        self.model = model

    def set_params(self, params: dict) -> None:
        self.params = params

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Before the first epoch of `fit`."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """After the last epoch of `fit`."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """After an epoch and its validation; `logs` holds what `History` records."""

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Before a step of training, counted from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """After a step of training; `logs` holds the means of the epoch so far."""

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Before `evaluate`, or a validation."""

    def on_test_end(self, logs: dict | None = None) -> None:
        """After `evaluate`, or a validation."""

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Before a batch of `evaluate`."""

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """After a batch of `evaluate`."""

    def on_predict_begin(self, logs: dict | None = None) -> None:
        """Before `predict`."""

    def on_predict_end(self, logs: dict | None = None) -> None:
        """After `predict`."""

    def on_predict_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Before a batch of `predict`."""

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """After a batch of `predict`."""


class LambdaCallback(Callback):
    """Functions in place of methods: `LambdaCallback(on_epoch_end=lambda epoch, logs: print(logs))`."""

    def __init__(self, **functions: Callable | None):
        super().__init__()
        moments = [name for name in dir(Callback) if name.startswith("on_")]
        for name, function in functions.items():
            if name not in moments:
                raise ValueError(did_you_mean("LambdaCallback argument", name, moments))
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: {name} must be a function, got {function!r}")
            setattr(self, name, function)


class History(Callback):
    """Records what every epoch ends with; `fit` returns one.

    Attributes:
        history: For each name ("loss", "val_loss", "accuracy" ...) the list of its values.
        epoch: The numbers of the epochs, from 0.
    """

    def __init__(self):
        super().__init__()
        self.history: dict[str, list] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs=None):
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | os.PathLike) -> None:
        """Draw the curves to an image file: one panel for each quantity, training and validation together.

        Needs the `plot` extra. Nothing of matplotlib's global state is touched.

        Args:
            path: Where to; its ending chooses the format, ".png" for a PNG.
        """
        if not self.history:
            raise ValueError("History.plot: nothing is recorded yet: train for an epoch first")
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("History.plot: drawing needs matplotlib: pip install 'handloom[plot]'") from error
        panels = list(dict.fromkeys(name.removeprefix("val_") for name in self.history))
        figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            for name, label in ((panel, "training"), (f"val_{panel}", "validation")):
                values = self.history.get(name)
                if values:
                    axes.plot(range(1, len(values) + 1), values, label=label, marker="." if len(values) < 30 else "")
            axes.set_title(panel)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path, dpi=120)


class _Monitor(Callback):
    """Base of those that watch one quantity and remember its best value."""

    def __init__(self, monitor: str, mode: str, min_delta: float, best: float | None):
        super().__init__()
        kind = type(self).__name__
        if mode not in ("auto", "min", "max"):
            raise ValueError(did_you_mean(f"{kind} mode", mode, ("auto", "min", "max")))
        if mode == "auto":
            mode = "min" if monitor.endswith("loss") else metrics.direction(monitor.removeprefix("val_"))
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best = best

    def check_direction(self) -> None:
        if self.mode is None:
            raise ValueError(
                f"{type(self).__name__}: monitor={self.monitor!r}: whether more or less of it is better is not known: "
                "pass mode='min' or mode='max'"
            )

    def value_in(self, logs: dict | None) -> float | None:
        """The quantity; None, with a warning, where it is missing: a training may be too long to be lost for that."""
        logs = logs or {}
        if self.monitor not in logs:
            kind = type(self).__name__
            hint = " (names with val_ need validation data)" if self.monitor.startswith("val_") else ""
            text = did_you_mean(f"{kind} does nothing: monitor", self.monitor, logs)
            warnings.warn(text + hint, stacklevel=3)
            return None
        return float(logs[self.monitor])

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` beats `best` by more than `min_delta`; anything but NaN beats nothing."""
        if best is None:
            return value == value
        return value < best - self.min_delta if self.mode == "min" else value > best + self.min_delta


class EarlyStopping(_Monitor):
    """Stops training when a quantity has not improved for `patience` epochs.

    Args:
        monitor: Name in the logs, as in `History.history`.
        min_delta: A change of no more than this is no improvement.
        patience: Epochs without improvement after which training stops.
        verbose: 1 prints when it stops.
        mode: "min", "max", or "auto", which knows losses and handloom's metrics.
        baseline: A value to beat: an epoch that does not beat it does not reset the patience.
        restore_best_weights: Whether to go back to the weights of the best epoch at the end.
        start_from_epoch: Epochs before this one do not count at all.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta, None)
        self.check_direction()
        self.patience = as_count("EarlyStopping", "patience", patience)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = as_count("EarlyStopping", "start_from_epoch", start_from_epoch)
        self.wait = self.best_epoch = self.stopped_epoch = 0
        self.best_weights = None

    def on_train_begin(self, logs=None):
        self.best = None
        self.wait = self.best_epoch = self.stopped_epoch = 0
        self.best_weights = None

    def on_epoch_end(self, epoch, logs=None):
        value = self.value_in(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True
            if self.verbose:
                print(f"Epoch {epoch + 1}: early stopping, {self.monitor} was best in epoch {self.best_epoch + 1}")

    def on_train_end(self, logs=None):
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model, or its weights alone, as training goes on; what is best so far stays so from `fit` to `fit`.

    Args:
        filepath: Where to; `{epoch}` (from 1) and the names in the logs are filled in, as in
            "{epoch:02d}-{val_loss:.3f}.safetensors".
        monitor: Name in the logs; matters with `save_best_only`.
        verbose: 1 prints when it saves.
        save_best_only: Whether to save only when the quantity has improved.
        save_weights_only: Whether to save the weights without the configuration.
        mode: "min", "max", or "auto", which knows losses and handloom's metrics.
        save_freq: "epoch", or a number of batches.
        initial_value_threshold: A value that the first save has to beat.
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode, 0, initial_value_threshold)
        if save_best_only:
            self.check_direction()
        if save_freq != "epoch" and not (type(save_freq) is int and save_freq > 0):
            raise ValueError(f"ModelCheckpoint: save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._epoch = 0
        self._batches = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch":
            self._batches += 1
            if self._batches % self.save_freq == 0:
                self._save(logs, batch=batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(logs)

    def _save(self, logs: dict | None, **names) -> None:
        if self.save_best_only:
            value = self.value_in(logs)
            if value is None or not self.improves(value, self.best):
                return
            self.best = value
        names = {"epoch": self._epoch + 1, **names, **(logs or {})}
        try:
            path = Path(self.filepath.format(**names))
        except KeyError as error:
            raise ValueError(did_you_mean("ModelCheckpoint filepath", error.args[0], names)) from error
        except IndexError:
            raise ValueError(
                f"ModelCheckpoint: filepath is {self.filepath!r}: braces must hold a name, such as {{epoch}}"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: saved {path}")


class LearningRateScheduler(Callback):
    """Sets the optimizer's learning rate at the start of each epoch to `schedule(epoch, learning_rate)`.

    Args:
        schedule: Called with the epoch, from 0, and the present learning rate, or with the epoch alone where it takes
            no more; returns the new rate.
        verbose: 1 prints the new rate.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: schedule must be a function, got {schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = _takes_two(schedule)

    def on_epoch_begin(self, epoch, logs=None):
        optimizer = self.model.optimizer
        rate = self.schedule(epoch, float(optimizer.learning_rate)) if self._takes_rate else self.schedule(epoch)
        try:
            optimizer.learning_rate = float(rate)
        except (TypeError, ValueError):
            raise TypeError(f"LearningRateScheduler: schedule must return a number, got {rate!r}") from None
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


def _takes_two(function: Callable) -> bool:
    """Whether a function can be called with two arguments, as far as its signature can be seen."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # compiled functions may hide theirs
        pass
    return True


class CSVLogger(Callback):
    """Writes a line for each epoch to a CSV file, at once, so that the file can be watched.

    Args:
        filename: The file; its first line names the columns.
        separator: Between the values.
        append: Whether to go on with a file that is there.
    """

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename = Path(filename)
        self.separator = separator
        self.append = append

    def on_train_begin(self, logs=None):
        if not self.append:
            self.filename.write_text("")

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch, **(logs or {})}
        with self.filename.open("a+", newline="", encoding="utf-8") as file:
            file.seek(0)
            columns = next(csv.reader(file, delimiter=self.separator), None)
            writer = csv.DictWriter(file, columns or row, delimiter=self.separator, extrasaction="ignore")
            if not columns:
                writer.writeheader()
            writer.writerow(row)
