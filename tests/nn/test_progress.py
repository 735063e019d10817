"""Progress: the lines of a plain output, and what a terminal receives."""

import io
import math
import os
import pty
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from handloom import nn
from handloom.nn import progress
from handloom.nn.progress import ProgressBar

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """Text written to it, as a terminal of 100 columns would get it."""

    def isatty(self):
        return True

    def plain(self):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def open_terminal(monkeypatch):
    """To be called in the test: pytest puts its own output in place between fixtures and test."""

    def opened():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        return terminal

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    return opened


class Clock:
    """Stands in for the clock: each look at it advances by `step` seconds."""

    def __init__(self, step):
        self.now = 100.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


def run(verbose, steps=4, epochs=2, logs=None):
    """Go through all epochs; returns how often the running logs were asked for."""
    asked = []
    with ProgressBar(verbose, steps, epochs) as bar:
        for epoch in range(epochs or 1):
            bar.epoch_begin(epoch)
            for i in range(steps):
                bar.step(i, lambda: asked.append(1) or {"loss": 0.5, "accuracy": 0.25})
            bar.epoch_end(logs or {"loss": 0.3125, "accuracy": 0.92, "val_loss": 0.0000123})
    return len(asked)


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_one_plain_line_an_epoch_where_the_output_is_no_terminal(verbose, capsys, monkeypatch):
    monkeypatch.setattr(progress, "perf_counter", Clock(0.0014))
    assert run(verbose) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 1/2  4/4  1.4 ms/step  loss 0.3125  accuracy 0.9200  val_loss 1.23e-05",
        "Epoch 2/2  4/4  1.4 ms/step  loss 0.3125  accuracy 0.9200  val_loss 1.23e-05",
    ]


def test_a_single_pass_does_not_speak_of_epochs(capsys, monkeypatch):
    monkeypatch.setattr(progress, "perf_counter", Clock(0.5))
    run(2, steps=1, epochs=None, logs={"loss": math.nan})
    assert capsys.readouterr().out == "1/1  500 ms/step  loss nan\n"


def test_verbose_0_prints_nothing(capsys, open_terminal):
    terminal = open_terminal()
    assert run(0) == 0
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_verbose_2_prints_lines_on_a_terminal_too(open_terminal):
    terminal = open_terminal()
    run(2)
    assert terminal.getvalue().count("\n") == 2
    assert "\x1b" not in terminal.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setenv("TERM", "dumb")
    run(1)
    assert "\x1b" not in terminal.getvalue()


def test_plain_lines_do_not_import_rich():
    code = (
        "import sys; from handloom.nn.progress import ProgressBar\n"
        "with ProgressBar(1, 1, 1) as bar:\n"
        "    bar.epoch_begin(0); bar.step(0, dict); bar.epoch_end({'loss': 1})\n"
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)


def test_a_terminal_gets_a_live_bar(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(progress, "perf_counter", Clock(0.06))
    assert run(1) > 0
    text = terminal.plain()
    assert re.search(r"Epoch 1/2 .* 2/4 +60 ms/step +ETA 120 ms +loss 0\.5000 +accuracy 0\.2500", text)
    last = terminal.plain().split("\n")[-2].split("\r")[-1]
    assert re.fullmatch(r"Epoch 2/2  4/4  \d+ ms/step  loss 0\.3125  accuracy 0\.9200  val_loss 1\.23e-05", last)
    assert terminal.getvalue().count(HIDE_CURSOR) == terminal.getvalue().count(SHOW_CURSOR) == 2
    assert terminal.getvalue().rindex(SHOW_CURSOR) < terminal.getvalue().rindex("Epoch 2/2")


def test_a_terminal_is_drawn_ten_times_a_second_at_most(open_terminal, monkeypatch):
    open_terminal()
    monkeypatch.setattr(progress, "perf_counter", Clock(0.001))
    assert run(1, steps=1000, epochs=1) == pytest.approx(10, abs=1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_middle_leaves_the_terminal_clean(error, open_terminal):
    terminal = open_terminal()
    with pytest.raises(error), ProgressBar(1, 4, 2) as bar:
        bar.epoch_begin(0)
        bar.step(0, dict)
        raise error
    assert terminal.getvalue().count(HIDE_CURSOR) == terminal.getvalue().count(SHOW_CURSOR) == 1
    assert terminal.getvalue().endswith("\x1b[2K")  # the bar's line is empty, the cursor at its start
    assert sys.stdout is terminal


def test_prints_in_between_stand_above_the_bar(open_terminal):
    terminal = open_terminal()
    with ProgressBar(1, 2, 1) as bar:
        bar.epoch_begin(0)
        bar.step(0, dict)
        print("from a callback")
        bar.epoch_end({"loss": 1.0})
    lines = [line.split("\r")[-1].rstrip() for line in terminal.plain().split("\n")]
    assert "from a callback" in lines
    assert lines.index("from a callback") < max(i for i, line in enumerate(lines) if "loss 1.0000" in line)


def test_names_are_not_read_as_markup(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(progress, "perf_counter", Clock(1.0))
    with ProgressBar(1, 2, 1) as bar:
        bar.epoch_begin(0)
        bar.step(0, lambda: {"[red]loss": 1.0})
        assert "[red]loss 1.0000" in terminal.plain()


def test_a_real_terminal_is_left_clean_by_an_interrupt():
    code = (
        "import os, signal; from handloom.nn.progress import ProgressBar\n"
        "try:\n"
        "    with ProgressBar(1, 5, 1) as bar:\n"
        "        bar.epoch_begin(0); bar.step(0, dict)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        import time; time.sleep(10)\n"
        "except KeyboardInterrupt:\n"
        "    print('after')\n"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 4096):
            chunks.append(chunk)
    except OSError:  # Linux ends a pseudo-terminal with an error
        pass
    os.close(ours)
    assert process.wait() == 0
    text = b"".join(chunks).decode()
    assert HIDE_CURSOR in text
    assert text.rindex(SHOW_CURSOR) < text.rindex("after")
    assert "Epoch 1/1" in text


def test_a_step_costs_next_to_nothing(open_terminal):
    open_terminal()
    with ProgressBar(1, 20_000, 1) as bar:
        bar.epoch_begin(0)
        started = time.perf_counter()
        for i in range(20_000):
            bar.step(i, dict)
        assert (time.perf_counter() - started) / 20_000 < 5e-6  # a few hundred ns on a quiet machine


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2e-7, "0.2 us"),
        (87.4e-6, "87 us"),
        (0.0014, "1.4 ms"),
        (0.25, "250 ms"),
        (3.21, "3.2 s"),
        (59.0, "59 s"),
        (185.0, "3:05 min"),
    ],
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


@pytest.mark.parametrize("verbose", [3, -1, "yes", None])
def test_other_verbosities_are_refused(verbose):
    with pytest.raises(ValueError, match=re.escape(f"verbose: must be 0, 1, 2 or 'auto', got {verbose!r}")):
        ProgressBar(verbose, 1, 1)


class TestInFit:
    """The same with a real model."""

    X, Y = np.random.default_rng(0).random((12, 4), np.float32), np.zeros((12, 1), np.float32)

    def model(self):
        model = nn.Sequential([nn.Dense(1, input_dim=4)])
        model.compile("sgd", "mse", metrics=["mae"])
        return model

    @pytest.mark.parametrize("verbose", [1, 2, "auto"])
    def test_fit_evaluate_and_predict_print_their_lines(self, verbose, capsys):
        model = self.model()
        model.fit(self.X, self.Y, batch_size=5, epochs=2, validation_split=0.25, verbose=verbose)
        model.evaluate(self.X, self.Y, batch_size=5, verbose=verbose)
        model.predict(self.X, batch_size=5, verbose=verbose)
        lines = capsys.readouterr().out.splitlines()
        time, value = r"[\d.]+ (us|ms|s)/step", r"[\d.e-]+"
        for epoch, line in enumerate(lines[:2], 1):
            values = "  ".join(f"{name} {value}" for name in ("loss", "mae", "val_loss", "val_mae"))
            assert re.fullmatch(f"Epoch {epoch}/2  2/2  {time}  {values}", line)
        assert re.fullmatch(f"3/3  {time}  loss {value}  mae {value}", lines[2])
        assert re.fullmatch(f"3/3  {time}", lines[3])
        assert len(lines) == 4

    def test_verbose_0_is_silent(self, capsys):
        model = self.model()
        model.fit(self.X, self.Y, verbose=0)
        model.evaluate(self.X, self.Y, verbose=0)
        model.predict(self.X, verbose=0)
        assert capsys.readouterr() == ("", "")

    def test_an_error_in_a_callback_leaves_the_terminal_clean(self, open_terminal):
        def fail(*_):
            raise RuntimeError("no more")

        terminal = open_terminal()
        with pytest.raises(RuntimeError, match="no more"):
            self.model().fit(self.X, self.Y, callbacks=[nn.callbacks.LambdaCallback(on_train_batch_end=fail)])
        assert terminal.getvalue().count(HIDE_CURSOR) == terminal.getvalue().count(SHOW_CURSOR) == 1
        assert sys.stdout is terminal
