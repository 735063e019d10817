"""What `fit`, `evaluate` and `predict` print: a line for each epoch, and on a terminal a live bar until it is due."""

import math
import os
import sys
from collections.abc import Callable
from time import perf_counter

__all__ = ["ProgressBar"]

_SECONDS_BETWEEN_DRAWINGS = 0.1


class ProgressBar:
    """Shows where a run stands; use it in a `with`, which leaves the terminal clean whatever happens inside.

    A step costs one look at the clock: the bar is drawn ten times a second at most, and only then are the running
    logs asked for.

    Args:
        verbose: 0 prints nothing; 1 or "auto" draws a live bar if the output is a terminal, else does as 2;
            2 prints one line an epoch.
        steps: Steps in an epoch.
        epochs: Number of epochs; None for a single pass, whose line then does not speak of epochs.

    Example:

    >>> with ProgressBar(2, steps=3, epochs=1) as bar:
    ...     bar.epoch_begin(0)
    ...     for step in range(3):
    ...         bar.step(step, lambda: {"loss": 0.5})
    ...     bar.epoch_end({"loss": 0.25})  # doctest: +ELLIPSIS
    Epoch 1/1  3/3  ... us/step  loss 0.2500
    """

    def __init__(self, verbose: int | str, steps: int, epochs: int | None = None):
        if verbose not in (0, 1, 2, "auto"):
            raise ValueError(f"verbose: must be 0, 1, 2 or 'auto', got {verbose!r}")
        self.steps = steps
        self.epochs = epochs
        self._verbose = verbose
        self._live = verbose in (1, "auto") and _is_terminal()
        self._bar = None
        self._title = ""
        self._start = self._first = self._last = 0.0  # begin of the epoch, end of its first and of its latest step
        self._next_drawing = math.inf

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def epoch_begin(self, epoch: int = 0) -> None:
        """Start an epoch, counted from 0."""
        self._title = f"Epoch {epoch + 1}/{self.epochs}" if self.epochs else ""
        self._start = self._first = self._last = perf_counter()
        if self._live:
            self._open_bar()
            self._next_drawing = self._last + _SECONDS_BETWEEN_DRAWINGS

    def step(self, i: int, logs_fn: Callable[[], dict]) -> None:
        """Step `i`, counted from 0, is done; `logs_fn` gives the running logs and is called only to draw them."""
        self._last = now = perf_counter()
        if i == 0:
            self._first = now
        if now >= self._next_drawing:
            text = "  ".join(self._texts(i + 1, logs_fn()))
            self._bar.update(self._bar.task_ids[0], completed=i + 1, text=text, refresh=True)
            self._next_drawing = perf_counter() + _SECONDS_BETWEEN_DRAWINGS

    def epoch_end(self, logs: dict) -> None:
        """Finish the epoch: a line with its final logs takes the place of the bar."""
        self.close()
        if self._verbose:
            parts = [self._title, f"{self.steps}/{self.steps}", *self._texts(self.steps, logs)]
            print("  ".join(part for part in parts if part), flush=True)

    def close(self) -> None:
        """Take a live bar down: nothing of it stays, cursor and output are as before."""
        self._next_drawing = math.inf
        if self._bar is not None:
            bar, self._bar = self._bar, None
            bar.stop()

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.close()
        title = [TextColumn("{task.description}", markup=False)] if self._title else []
        self._bar = Progress(
            *title,
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=sys.stdout),
            auto_refresh=False,
            transient=True,
        )
        self._bar.add_task(self._title, total=self.steps, text="")
        self._bar.start()

    def _texts(self, done: int, logs: dict) -> list[str]:
        """Time per step, time to go, and the logs.

        The first step does not count where it is not the only one: it may have compiled kernels.
        """
        seconds = (self._last - self._first) / (done - 1) if done > 1 else self._last - self._start
        texts = [f"{_duration(seconds)}/step"]
        if done < self.steps:
            texts.append(f"ETA {_duration(seconds * (self.steps - done))}")
        return texts + [f"{name} {_number(value)}" for name, value in logs.items()]


def _is_terminal() -> bool:
    """Whether the output can move its cursor."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _duration(seconds: float) -> str:
    """A time in the unit that suits it; ASCII alone, for outputs that take no more."""
    if seconds >= 60:
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02} min"
    if seconds >= 1:
        count, unit = seconds, "s"
    elif seconds >= 1e-3:
        count, unit = seconds * 1e3, "ms"
    else:
        count, unit = seconds * 1e6, "us"
    return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"


def _number(value) -> str:
    value = float(value)
    return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.2e}"
