"""Tasks in a process of their own, because CUDA refuses everything to a process one of whose kernels has failed.

The child (`work`) says on its standard output, one line of JSON each, how many tasks there are, which one begins, and
the rows that came of it. When it ends in the midst of a task, or says nothing for too long, the parent (`run`) makes a
row of that and starts another child behind this task.

A task is (name, function without arguments that returns rows); a row is a dict with a name, a status and figures:

    ok         as it should be                       refused    by a ValueError, which is as it should be
    wrong      another result, or an error           fault      the process died, hung or can use CUDA no more
    not run    the text says why
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

# Seconds without a word, after which a child counts as hanging: kernels that have to be compiled take up to a minute.
SILENCE = 300
# Children of one part: where many cases fail, the rest will hardly do better.
CHILDREN = 20
COMMAND = [sys.executable, str(Path(__file__).parent)]
BROKEN = 3  # exit status of a child that can use CUDA no more


def row(name, status, text="", **figures) -> dict:
    return {"name": name, "status": status, "text": text, **figures}


def work(tasks, first) -> int:
    """The child: runs the tasks from number `first` on."""
    say = _channel()
    say(total=len(tasks))
    for number, (name, task) in enumerate(tasks[first:], first):
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


def run(part, arguments, told) -> None:
    """The parent: runs one part to its end. told(message) gets what the children say, and rows for how they died."""
    first = 0
    for _ in range(CHILDREN):
        last, status = _one_child([*arguments, "--work", part, "--first", str(first)], told)
        if last is None:
            if status != 0:
                told({"rows": [row(part, "fault", f"the process ended with status {status} before its first case")]})
            return
        if last["open"]:
            ended = f"said nothing for {SILENCE} s" if last["hung"] else f"ended with status {status}"
            told({"rows": [row(last["begin"], "fault", f"the process {ended}")]})
        elif status == 0:
            return
        first = last["number"] + 1
    told({"rows": [row(part, "not run", f"all cases from number {first + 1} on: {CHILDREN} processes died before")]})


def _one_child(arguments, told):
    """(The task that was begun last, with whether it is still open and hung; the exit status)."""
    last = None
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as child:
        watch = _Watch(child)
        try:
            for line in child.stdout:
                watch.heard()
                message = json.loads(line)
                if "begin" in message:
                    last = {**message, "open": True}
                elif "rows" in message and last:
                    last["open"] = False
                told(message)
        except BaseException:
            child.kill()
            raise
        finally:
            watch.stop()
    if last:
        last["hung"] = watch.killed
    return last, child.returncode


class _Watch:
    """Kills a child that is silent."""

    def __init__(self, child):
        self.child, self.killed = child, False
        self.heard()

    def heard(self):
        self.stop()
        self.timer = threading.Timer(SILENCE, self._kill)
        self.timer.daemon = True
        self.timer.start()

    def stop(self):
        if timer := getattr(self, "timer", None):
            timer.cancel()

    def _kill(self):
        self.killed = True
        self.child.kill()
