"""Recordings: a thread's launches, kept and run again on the same memory without the Python around them.

    with Recording() as recording:              run as ever, and remember
        y = kernels.dense(x, w, b)
        loss = kernels.mean_squared_error(y, t)
    x[...], t[...] = another_x, another_t
    recording.replay()                          y and loss are those of the new x and t

A kernel's launch is remembered as its function, its rounds and chunks, and a block of memory with its arguments; the
arrays among them stay alive as long as the recording. Replaying is one call of machine code that goes from launch to
launch: 1 microsecond, where the Python of a small network's training step takes 50. The bits are the same, since the
chunks are. For launches on a GPU there are two other kinds, which the same functions speak to: graphs (graphs.py), and
`Launches`, which are made again from Python but without what chose and checked them.

What is computed between launches in NumPy is not seen, unless it is said: `on_host(function, *args)` calls a function
now and at each replay. Code that must not be replayed at all says `refuse(reason)`. Numbers among the arguments stay
what they were, but for those that a kernel takes from an array `changing(*numbers)`: `replay` can be given others.
Whoever replays has to make sure that nothing else happened, for example by comparing (nn/steps.py).

A recording may go on where another ends, `Recording(after=another)`. What was computed there at last and is wanted
only here may then be computed here instead (`computed`, `taken_over`): an optimizer's step takes a product that is a
gradient tile by tile, and writes no gradient to memory.

One thread at a time records, and a recording remembers the launches of that thread alone. Its scratch memory is its
own, so that any thread may replay it, though only one at a time.
"""

import threading
from contextlib import nullcontext

import numpy as np

from . import threads, workspace

_one_at_a_time = threading.RLock()  # a thread may begin another inside `on_host`


class Recorder:
    """What both kinds share: it remembers while it is entered; `refused` then says why it must not be replayed, or is
    None."""

    def __init__(self):
        self.refused = self.thread = self._outer = None
        self._parts = []  # functions without arguments, and what else a kind replays
        self._kept = []  # what the launches need

    def __enter__(self):
        _one_at_a_time.acquire()
        self.thread, self._outer = threading.get_ident(), threads.recorder
        _tell(self)
        return self

    def __exit__(self, *error):
        self._leave(error[0] is not None)

    def _leave(self, failed):
        _tell(self._outer)
        self.thread = None
        _one_at_a_time.release()
        if failed:
            self.refused = "an error ended it"
        refuse("another recording began inside")

    # What threads.py, workspace.py and launch.py tell it, and ask.

    def launched(self, drive, rounds, chunks, parallel, args):
        """A kernel runs on the CPU."""
        raise NotImplementedError

    def captured(self, kernel, grid, args, shared):
        """A kernel runs on a GPU."""
        raise NotImplementedError

    def scratch(self):
        """The scratch memory of this thread, by name; None: what the thread keeps itself."""

    # What the functions below tell it.

    def changing(self, numbers):
        return np.array(numbers)

    def computed(self, y, what):
        """The launch before has computed y; `what` says from what."""

    def take_over(self, y):
        """`what` of a `computed(y, what)`, or None."""

    def own_memory(self):
        """See `own_memory`."""
        return nullcontext()

    def beforehand(self, function, args):
        self.on_host(function, args)

    def afterwards(self, function, args):
        self.on_host(function, args)

    def bring(self, array):
        """An array of NumPy's that holds what is in this one when a replay is over."""
        return array

    def on_host(self, function, args):
        self._parts.append(lambda: function(*args))
        self._call(function, args)

    def _call(self, function, args):
        _tell(None)  # launches inside belong to the function
        try:
            function(*args)
        finally:
            _tell(self)


class Recording(Recorder):
    """Of launches on the CPU."""

    def __init__(self, after=None):
        """after : a recording that is always replayed before this one, of which parts may be taken over."""
        super().__init__()
        self.after = after
        self._buffers = {}
        self._changing = {}  # arrays, by the numbers in them when they were recorded
        self._computed = {}  # by the place of an array in memory: (what, its launch, how many were before)
        self._taken = set()  # launches of `after` that belong to this one now

    def __exit__(self, *error):
        super().__exit__(*error)
        self._parts = [_together(part) if isinstance(part, list) else part for part in self._parts]
        if self._taken and self.refused is None:
            self.after.drop(self._taken)

    def replay(self, *numbers):
        """Do it all again, with these in place of the changing numbers if there are any."""
        if numbers:
            for array in self._changing.values():
                array[:] = numbers
        for part in self._parts:
            if callable(part):
                part()
            else:
                threads.run_kept(*part)

    def launched(self, drive, rounds, chunks, parallel, args):
        if self.thread != threading.get_ident():
            return
        memory, function, block = threads.keep(drive, args)
        self._kept.append((memory, args))
        if not self._parts or callable(self._parts[-1]):
            self._parts.append([])
        self._parts[-1].append((function, block, rounds, chunks, parallel))

    def captured(self, kernel, grid, args, shared):
        refuse("a kernel ran on a GPU")

    def on_host(self, function, args):
        self._kept.append((None, (getattr(function, "__self__", None), *args)))
        super().on_host(function, args)

    def changing(self, numbers):
        return self._changing.setdefault(numbers, super().changing(numbers))

    def computed(self, y, what):
        self._computed[_place(y)] = what, self._parts[-1][-1], len(self._kept)

    def take_over(self, y):
        """See `taken_over`: from the recording before this one."""
        found = None if self.after is None else self.after.untouched(y)
        if found is None:
            return None
        what, launch = found
        self._taken.add(launch)
        return what

    def untouched(self, y):
        """(What, launch) of `computed(y, what)`; None where something else has had y since, or the operands may be
        other numbers by the end: those in scratch memory."""
        what, launch, before = self._computed.get(_place(y), (None, None, 0))
        if what is None or any(_shares(y, args) for _, args in self._kept[before:]):
            return None
        return None if any(_shares(buffer, what) for buffer in self._buffers.values()) else (what, launch)

    def drop(self, launches):
        """Do without these from now on."""
        parts = []
        for part in self._parts:
            if not callable(part):
                rows = [row for row in map(tuple, part[0].tolist()) if row not in launches]
                part = _together(rows) if rows else None
            if part is not None:
                parts.append(part)
        self._parts = parts

    def scratch(self):
        return self._buffers if self.thread == threading.get_ident() else None


class Launches(Recorder):
    """Of launches on a GPU, made again one by one: with other numbers, which those of a graph cannot have."""

    def launched(self, drive, rounds, chunks, parallel, args):
        refuse("a kernel ran on the CPU")

    def captured(self, kernel, grid, args, shared):
        if self.thread == threading.get_ident():
            self._parts.append((kernel, grid, list(args), shared))

    def on_host(self, function, args):
        refuse("a function was called")
        self._call(function, args)

    def replay(self, *numbers):
        """Do it all again, with these as the first of the floating-point numbers that each kernel takes."""
        for kernel, grid, args, shared in self._parts:
            for i, number in zip(kernel.floats, numbers):
                args[i] = number
            kernel(grid, *args, shared=shared)


def _place(array):
    return array.ctypes.data, array.size, array.dtype


def _shares(array, args):
    """Whether an array may share memory with one of these, or of the tuples among them."""
    return any(
        _shares(array, arg) if isinstance(arg, tuple) else type(arg) is np.ndarray and np.may_share_memory(array, arg)
        for arg in args
    )


def _together(launches):
    """Launches one after the other as `threads.run_kept` takes them."""
    return np.array(launches, np.int64), any(parallel for *_, parallel in launches)


def _tell(recorder):
    threads.recorder = workspace.recorder = recorder


def is_recording():
    """Whether this thread is."""
    recorder = threads.recorder
    return recorder is not None and recorder.thread == threading.get_ident()


def on_host(function, *args):
    """function(*args), now and at each replay. It must write its results to arrays among its arguments."""
    if is_recording():
        threads.recorder.on_host(function, args)
    else:
        function(*args)


def own_memory():
    """A context for making arrays, while something is recorded, in memory that nothing inside has had before."""
    return threads.recorder.own_memory()


def beforehand(function, *args):
    """`on_host` for a function that reads nothing computed inside: a replay may call it before everything else. What it
    writes to needs memory of its own."""
    if is_recording():
        threads.recorder.beforehand(function, args)
    else:
        function(*args)


def afterwards(function, *args):
    """`on_host` for a function on whose results nothing inside depends: a replay on a GPU calls it after everything
    else, with copies in the host's memory for the arrays among its arguments."""
    if is_recording():
        threads.recorder.afterwards(function, args)
    else:
        function(*args)


def changing(*numbers):
    """An array of these floats for a kernel on the CPU. A recording has one for all launches with the same."""
    return threads.recorder.changing(numbers) if is_recording() else np.array(numbers)


def computed(y, what):
    """Says that the launch just made has computed all of y, a flat array, which could be done elsewhere: what says it,
    a tuple with the operands, to whoever asks `taken_over(y)`."""
    if is_recording():
        threads.recorder.computed(y, what)


def taken_over(y):
    """`what` of `computed(y, what)` from a recording that goes before this one, and does not compute y any more; None
    where y has to be taken as it is."""
    return threads.recorder.take_over(y) if is_recording() else None


def refuse(reason):
    """What this thread is recording, if it is, must not be replayed."""
    if is_recording():
        threads.recorder.refused = threads.recorder.refused or reason
