"""Tasks in a process of their own, because CUDA refuses everything to a process one of whose kernels has failed.

The child (`work`) says on its standard output, one line of JSON each, which tasks there are, which one begins, and the
rows that came of it. When it ends in the midst of a task, or says nothing for too long, the parent (`run`) makes a row
of that and starts another child behind this task.

A task is (name, function without arguments that returns rows), and a third may be the group that it stands in with its
neighbours; a row is a dict with a name, a status and figures:

    ok         as it should be                       refused    by a ValueError, which is as it should be
    wrong      another result, or an error           fault      the process died, hung or can use CUDA no more
    not run    the text says why

A machine may be lent for minutes. So what has failed over and over is not tried to the end, and what is left is rows
`not run`: the rest of a group that ended FAULTS processes, of a part whose last ALIKE tasks failed alike or that ended
CHILDREN processes, and whatever a time limit cuts off.
"""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Seconds without a word, after which a child counts as hanging. Training on the CPU, Numba compiles up to a minute.
SILENCE = 180
CHILDREN = 20
FAULTS = 3
ALIKE = 25
LATE = "the time of --limit was over"
COMMAND = [sys.executable, str(Path(__file__).parent)]
BROKEN = 3  # exit status of a child that can use CUDA no more


class Task(NamedTuple):
    name: str
    run: Callable
    group: str | None = None


def row(name, status, text="", **figures) -> dict:
    return {"name": name, "status": status, "text": text, **figures}


def work(tasks, first) -> int:
    """The child: runs the tasks from number `first` on."""
    tasks = [Task(*task) for task in tasks]
    say = _channel()
    say(tasks=[(task.name, task.group) for task in tasks])
    for number, (name, task, _) in enumerate(tasks[first:], first):
        say(begin=name, number=number)
        try:
            rows = task()
        except AssertionError as error:
            rows = [row(name, "wrong", str(error))]
        except Exception as error:
            rows = [row(name, "wrong" if _usable() else "fault", _text_of(error))]
        say(rows=rows)
        if not _usable():
            return BROKEN
    return 0


def _channel():
    """A function that writes to what was standard output; whatever else is printed goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(**message):
        stream.write(json.dumps(message) + "\n")

    return say


def _usable() -> bool:
    """Whether the GPU still does what this process asks it, if it did so before."""
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return True
    try:
        cupy.cuda.runtime.deviceSynchronize()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return "NoDevice" in str(error) or "InsufficientDriver" in str(error)
    return True


def _text_of(error) -> str:
    return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])


def run(part, arguments, told, silence=SILENCE, deadline=math.inf) -> None:
    """The parent: runs one part to its end, or until time.monotonic() is `deadline`, when a task that runs is ended.

    told(message) gets what the children say, and rows for how they died and for what was not run.
    """
    heard = _Heard(told)
    for _ in range(CHILDREN):
        heard.begun = False
        command = [*COMMAND, *arguments, "--work", part, "--first", str(heard.first)]
        status, killed = _one_child(command, heard, silence, deadline)
        if time.monotonic() >= deadline:
            heard.enough = LATE
            if not heard.tasks:
                told({"rows": [row(part, "not run", LATE)]})
        elif heard.open and not heard.enough:
            ended = f"said nothing for {silence} s" if killed else f"ended with status {status}"
            heard({"rows": [row(heard.tasks[heard.first][0], "fault", f"the process {ended}")]})
        elif status != 0 and not heard.begun:
            heard.enough = f"the process ended with status {status} before its first case"
            told({"rows": [row(part, "fault", heard.enough)]})
        heard.leave_out_group()
        if heard.enough:
            heard.leave_out(len(heard.tasks), heard.enough)
        if heard.first >= len(heard.tasks):
            return
    heard.leave_out(len(heard.tasks), f"{CHILDREN} processes died before")


class _Heard:
    """What the children of one part have said.

    tasks : (name, group) of each; first : the number of the first that has no rows yet; open : whether that one runs;
    begun : whether this child has begun any; enough : why no other shall begin, once that is known.
    """

    def __init__(self, told):
        self.told, self.tasks, self.first = told, [], 0
        self.open, self.begun, self.enough = False, False, ""
        self.faults, self.gist, self.alike = Counter(), "", 0

    def __call__(self, message):
        self.tasks = message.get("tasks", self.tasks)
        if "begin" in message:
            self.first, self.open, self.begun = message["number"], True, True
        if "rows" in message:
            for one in message["rows"]:
                self._count(one)
            self.first, self.open = self.first + 1, False
        self.told(message)

    def _count(self, one):
        if one["status"] == "fault":
            self.faults[self.tasks[self.first][1]] += 1
        gist = _gist(one["text"]) if one["status"] in ("wrong", "fault") else ""
        self.gist, self.alike = gist, self.alike + 1 if gist == self.gist else 1
        if gist and self.alike >= ALIKE:
            self.enough = f"the {ALIKE} before failed alike: {gist}"

    def leave_out_group(self):
        """The rest of the group in which a task ran last, if that has ended too many processes."""
        group = self.tasks[self.first - 1][1] if self.first else None
        if group and self.faults[group] >= FAULTS:
            others = (number for number in range(self.first, len(self.tasks)) if self.tasks[number][1] != group)
            self.leave_out(next(others, len(self.tasks)), f"{group} ended {FAULTS} processes before")

    def leave_out(self, end, why):
        """All tasks without rows up to number `end`."""
        if left := self.tasks[self.first : end]:
            self.told({"rows": [row(name, "not run", why) for name, _ in left]})
            self.first = end


def _gist(text) -> str:
    """The first line of an error, without what differs from launch to launch: the kernel, and behind a semicolon the
    grid and the arguments."""
    line = next(filter(None, map(str.strip, text.splitlines())), "")
    return re.sub(r"handloom\.[\w.<>]+: ", "", line.partition(";")[0])


def _one_child(command, heard, silence, deadline):
    """(Its exit status, whether it was killed because it was silent, or late.)"""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        watch = _Watch(child, silence, deadline)
        try:
            for line in child.stdout:
                watch.heard()
                if line.endswith("\n"):  # else the child was killed while it wrote
                    heard(json.loads(line))
                if heard.enough:
                    child.kill()
        except BaseException:
            child.kill()
            raise
        finally:
            watch.stop()
    return child.returncode, watch.killed


class _Watch:
    """Kills a child that is silent, or whose time is over."""

    def __init__(self, child, silence, deadline):
        self.child, self.silence, self.deadline, self.killed = child, silence, deadline, False
        self.heard()

    def heard(self):
        self.stop()
        self.timer = threading.Timer(min(self.silence, self.deadline - time.monotonic()), self._kill)
        self.timer.daemon = True
        self.timer.start()

    def stop(self):
        if timer := getattr(self, "timer", None):
            timer.cancel()

    def _kill(self):
        self.killed = True
        self.child.kill()
