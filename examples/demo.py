"""A CNN and an LSTM on real handwritten digits, over three seeds: accuracies, times, curves and models.

Behind `handloom demo` and `make demo`.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.table import Table

from handloom.nn.callbacks import Callback, History
from handloom.nn.datasets import digits
from handloom.nn.layers import LSTM, Conv2D, Dense, Dropout, Flatten, MaxPooling2D
from handloom.nn.models import Sequential
from handloom.nn.optimizers import Adam
from handloom.nn.utils import set_random_seed, to_categorical

BATCH = 32


def cnn(device: str) -> Sequential:
    model = Sequential(device=device)
    model.add(Conv2D(filters=16, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Conv2D(filters=32, kernel_size=(3, 3), activation="relu"))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Flatten())
    model.add(Dense(units=128, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(units=10, activation="softmax"))
    model.compile(optimizer=Adam(0.002), loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def lstm(device: str) -> Sequential:
    """Reads an image as 8 rows of 8 pixels and decides by its state after the last."""
    model = Sequential(device=device)
    model.add(LSTM(units=64, input_shape=(None, 8)))
    model.add(Dense(units=10, activation="softmax"))
    model.compile(optimizer=Adam(0.005), loss="categorical_crossentropy", metrics=["accuracy"])
    return model


@dataclass(frozen=True)
class Task:
    name: str
    build: Callable[[str], Sequential]
    size: int  # height and width of the images
    shape: tuple  # what the network takes one image as
    epochs: int


TASKS = (Task("CNN", cnn, 28, (28, 28, 1), epochs=20), Task("LSTM", lstm, 8, (8, 8), epochs=30))


@dataclass(frozen=True)
class Run:
    """One training from one seed."""

    model: Sequential
    history: History
    accuracy: float
    seconds: float
    step_us: float


class Stopwatch(Callback):
    """Seconds of every epoch's training, without its validation."""

    def on_train_begin(self, logs=None):
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.epochs.append(time.perf_counter() - self.start)


def load(task: Task, samples: int | None):
    """Training and test data, pixels from 0 to 1, labels one-hot."""

    def ready(x, y):
        return x[:samples].reshape(-1, *task.shape) / 16, to_categorical(y[:samples], 10)

    train, test = digits.load_data(size=task.size)
    return ready(*train), ready(*test)


def train(task: Task, seed: int, options, data, verbose: int) -> Run:
    set_random_seed(seed)
    start = time.perf_counter()
    (x, y), test = data
    model, watch = task.build(options.device), Stopwatch()
    epochs = 2 if options.smoke else task.epochs
    history = model.fit(x, y, BATCH, epochs, verbose=verbose, validation_data=test, callbacks=[watch])
    seconds = time.perf_counter() - start
    steps = -(-len(x) // BATCH)
    accuracy = history.history["val_accuracy"][-1]
    return Run(model, history, accuracy, seconds, median(watch.epochs) / steps * 1e6)


def save(console: Console, task: Task, run: Run, folder: Path) -> None:
    """The first seed's model and curves."""
    model = folder / f"{task.name.lower()}.safetensors"
    run.model.save(model)
    console.print(f"model   {model}", soft_wrap=True)
    curves = folder / f"{task.name.lower()}-curves.png"
    try:
        run.history.plot(curves)
    except ModuleNotFoundError as error:
        console.print(f"no curves: {error}")
    else:
        console.print(f"curves  {curves}", soft_wrap=True)


def results(runs: dict[str, list[Run]]) -> Table:
    seeds = len(next(iter(runs.values())))
    table = Table(title=f"Test accuracy on handwritten digits, {seeds} {'seed' if seeds == 1 else 'seeds'}")
    for column in ("network", "parameters", "mean", "lowest", "highest", "seconds", "us a step"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, of_task in runs.items():
        accuracies = [run.accuracy for run in of_task]
        table.add_row(
            name,
            f"{of_task[0].model.count_params():,}",
            f"{mean(accuracies):.2%}",
            f"{min(accuracies):.2%}",
            f"{max(accuracies):.2%}",
            f"{median(run.seconds for run in of_task):.1f}",
            f"{median(run.step_us for run in of_task):,.0f}",
        )
    return table


def main(argv=None) -> dict[str, list[Run]]:
    parser = argparse.ArgumentParser(prog="handloom demo", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--smoke", action="store_true", help="one seed, two epochs, a part of the data")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each network (default 3)")
    parser.add_argument("--out", type=Path, default=Path("demo-results"), help="folder for models and curves")
    options = parser.parse_args(argv)
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    try:
        Sequential(device=options.device)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))

    console = Console(highlight=False)
    seeds = 1 if options.smoke else options.seeds
    runs = {}
    for task in TASKS:
        data = load(task, samples=256 if options.smoke else None)
        runs[task.name] = []
        for seed in range(1, seeds + 1):
            console.print(f"[bold]{task.name}[/bold], seed {seed} of {seeds}")
            run = train(task, seed, options, data, verbose=1 if seed == 1 else 0)
            runs[task.name].append(run)
            console.print(f"test accuracy {run.accuracy:.2%} after {run.seconds:.1f} s")
        save(console, task, runs[task.name][0], options.out)
    console.print(results(runs))
    console.print(f"Everything lies in {options.out.resolve()}", soft_wrap=True)
    return runs


if __name__ == "__main__":
    main()
