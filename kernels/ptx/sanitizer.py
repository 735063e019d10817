"""What the simulator's order of threads hides: accesses that nothing orders on a GPU, and memory that nobody wrote.

The simulator runs one thread until it waits, then the next, so that a kernel without its barriers may still give the
right result. Here every access to shared memory and to the arguments is noted, and from barrier to barrier they are
compared. A RuntimeError names both threads and their lines:

    in a block        two threads at the same bytes, at least one of them writing, with no barrier between them; within
                      a warp `syncwarp` is enough, but shuffles, votes and products of matrices order no memory
    between blocks    a block writes what another one reads or writes: within a launch nothing orders them
    copies            an asynchronous copy reads and writes at any time from its issue to the wait for it, so that its
                      own thread has to wait too, and others for a barrier after that; a warpgroup's product reads so,
                      of whose operands each thread is told to read a part
    shared memory     is read before anybody in the block has written it; it starts as NaN

Writing what is there already is no excuse. Not found: hazards on paths that the launch does not take, and between two
launches; arguments that nobody has written; records, and numbers that a kernel picks by an array. Atomics are unknown
here: each counts as a read and a write.

An access is noted as one integer, without its line, so that the simulator stays fast. When something is found, the
arguments are put back and the launch runs once more, noting the lines of all accesses to that place: threads always run
in the same order.
"""

import linecache
import math
import sys
from array import array
from collections import defaultdict
from pathlib import Path

import numpy as np
from numba import types

# Kinds of accesses. Of a copy or product: that it was issued, has been waited for, or (both) is still under way.
READ, WRITE, ISSUED, WAITED = 0, 1, 2, 4
UNDER_WAY = ISSUED | WAITED
# The integer: address << ADDRESS | log2(bytes) << SIZE | kind.
ADDRESS, SIZE, KINDS = 6, 3, 7
# Addresses are the sanitizer's own. Those below are shared memory, the others arguments, one after the other.
GLOBAL = 1 << 18
MOST_SHARED = 227 * 1024
NOBODY, SEVERAL = -1, -2


class Hazard(RuntimeError):
    """Accesses without an order, or memory that nobody wrote, at an address."""

    def __init__(self, text, address):
        super().__init__(text)
        self.address = address


def plain(memory):
    """A shared array or an argument as a NumPy array."""
    memory = getattr(memory, "_item", memory)
    return np.asarray(getattr(memory, "_ary", memory))


def _ends(numbers):
    """Where its bytes begin and end."""
    start, reach = _start(numbers), [(n - 1) * step for n, step in zip(numbers.shape, numbers.strides)]
    return start + sum(min(0, r) for r in reach), start + sum(max(0, r) for r in reach) + numbers.itemsize


def _start(numbers):
    return numbers.__array_interface__["data"][0]


def _log2(size):
    """Of the largest power of two that divides it."""
    return (size & -size).bit_length() - 1


class SharedArray(np.ndarray):
    """One that notes when it is indexed in Python's way."""

    def __getitem__(self, index):
        watch.note_plain(self, index, READ)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        watch.note_plain(self, index, WRITE)
        super().__setitem__(index, value)


class Watch:
    """The launch that runs now: its memory, and what it has done with it since the last barrier."""

    def __init__(self):
        self.accesses = array("q")
        self.runs = array("q")  # whenever a thread goes on: number of accesses, thread, number of syncwarps passed
        self.views = {}  # of memory that was accessed, by its id: what `look` found
        self._begin(None)

    def launch(self, function, args, run):
        """run(), which runs the kernel `function` on `args`."""
        before = [(arg._ary, arg._ary.copy()) for arg in args if hasattr(arg, "_ary")]
        try:
            self._begin(function)
            try:
                return run()
            except Hazard as error:
                found = error
            for numbers, copy in before:
                numbers[...] = copy
            self._begin(function, found.address)
            run()
            raise found
        finally:
            self._begin(None)

    def _begin(self, function, wanted=None):
        """`wanted`: the address whose accesses shall be told with their lines."""
        self.function, self.wanted, self.laid_out = function, wanted, False
        self.sites, self.history = {}, []  # lines of accesses, by their number; what earlier blocks did at the address
        self.note = self.accesses.append if wanted is None else self._note_with_site
        self.views.clear()
        self._next_interval()

    # Memory

    def begin_block(self, place, blocks, args):
        """The block at `place`, of so many, is going to run on `args`."""
        if not self.laid_out:
            self._lay_out(blocks, args)
        self.place, self.number = place, self.number + 1
        self.shared[: self.top] = 0xFF
        self.written[: self.top] = False

    def _lay_out(self, blocks, args):
        """An address for every byte of shared memory and of the arguments; those that lie in one place have one."""
        self.laid_out, self.blocks, self.number = True, blocks, -1
        self.shared = np.empty(GLOBAL + 128, np.uint8)
        self.shared = self.shared[-_start(self.shared) % 128 :][:GLOBAL]
        self.written = np.zeros(GLOBAL, bool)
        self.top, self.dynamic, self.arrays, self.names = 0, None, {}, []
        names = self.function.__code__.co_varnames
        given = [(plain(arg), name) for arg, name in zip(args, names) if hasattr(arg, "_item")]
        given = [(*_ends(numbers), name) for numbers, name in given if numbers.ndim and numbers.size]
        self.regions, free = [(_start(self.shared), _start(self.shared) + GLOBAL, 0, "shared memory")], GLOBAL
        while given:
            # All that overlap the first of those that are left, or one another.
            (start, end, _), size = given[0], 0
            while size < (size := sum(a < end and start < b for a, b, _ in given)):
                together = [(a, b, name) for a, b, name in given if a < end and start < b]
                start, end = min(a for a, _, _ in together), max(b for _, b, _ in together)
            offset = free + (start - free) % 16 - start
            self.regions += [(a, b, a + offset, name) for a, b, name in together]
            given = [region for region in given if region not in together]
            free = end + offset
        # Addresses are compared in units of so many bits fewer: the size of the smallest numbers.
        self.shift = self.shift_global = min([3, *(_log2(arg.itemsize) for arg in args if hasattr(arg, "_item"))])
        self.owner = np.full((free >> self.shift) + 1, NOBODY, np.int32)  # of units; for `Interval`, which puts it back
        if blocks > 1:
            self.writers, self.readers = (np.full(self.owner.size, NOBODY, np.int32) for _ in range(2))

    def allocate(self, frame, shape, dtype, dynamic):
        """The shared array that this place in the code asks for: of shape 0 the dynamic one, of so many bytes."""
        place = frame.f_code, frame.f_lasti
        if place not in self.arrays:
            dtype = np.dtype(str(dtype)) if isinstance(dtype, types.Type) else np.dtype(dtype)
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if shape == 0:
                size = dynamic // dtype.itemsize * dtype.itemsize
                if self.dynamic is None:
                    self.dynamic = self._room(dynamic, "the dynamic array")
                at, shape = self.dynamic, -1
            else:
                size = math.prod(np.atleast_1d(shape).tolist()) * dtype.itemsize
                at = self._room(size, line.partition("=")[0].strip())
            if (shift := min(self.shift, _log2(dtype.itemsize))) < self.shift:
                self.shift, self.owner = shift, np.full(self.owner.size << self.shift - shift, NOBODY, np.int32)
            self.arrays[place] = self.shared[at : at + size].view(dtype).reshape(shape).view(SharedArray)
        return self.arrays[place]

    def _room(self, size, name):
        at = -(-self.top // 16) * 16
        if at + size > MOST_SHARED:
            raise MemoryError(f"{self._name()}: {at + size} bytes of shared memory: a GPU has {MOST_SHARED} at most")
        self.top = at + size
        self.shared[at : self.top] = 0xFF
        self.names.append((at, name))
        return at

    def _address(self, numbers):
        """Of its first byte; None if it is neither shared memory nor in an argument."""
        real = _start(numbers)
        return next((to + real - start for start, end, to, _ in self.regions if start <= real < end), None)

    def look(self, memory):
        """(memory, its numbers in a row, how many; accesses without their kind: to the first number, what to add for
        each beyond, to the first 16 bytes)"""
        numbers = plain(memory).reshape(-1).view(np.ndarray)
        address = self._address(numbers) if self.laid_out and numbers.size else 0
        if address is None:
            raise TypeError(f"{self._name()}: access to memory that is neither shared nor an argument without gaps")
        first, size = address << ADDRESS, numbers.itemsize
        view = memory, numbers, numbers.size, first | _log2(size) << SIZE, size << ADDRESS, first | 4 << SIZE
        if self.laid_out:
            self.views[id(memory)] = view
        return view

    # Accesses

    def go_on(self, thread):
        """What follows is done by this thread."""
        self.runs.extend((len(self.accesses), thread.thread_id, thread.syncwarps))

    def note_all(self, accesses, kind, site):
        """Of a copy, which was issued at `site`."""
        if self.wanted is not None:
            self.sites.update(dict.fromkeys(range(len(self.accesses), len(self.accesses) + len(accesses)), site))
        self.accesses.extend([access | kind for access in accesses])

    def note_plain(self, memory, index, kind):
        """memory[index], as Python indexes."""
        numbers = plain(memory)
        if isinstance(index, str):
            return
        part = np.ndarray.__getitem__(numbers, (*index, ...) if isinstance(index, tuple) else (index, ...))
        whole = part.itemsize in (1, 2, 4, 8, 16)
        if not self.laid_out or not whole or part.size == 0 or (kind == READ and part.ndim):
            return
        if (address := self._address(part)) is not None:
            for place in np.ndindex(part.shape):
                at = address + sum(i * step for i, step in zip(place, part.strides))
                self.note(at << ADDRESS | _log2(part.itemsize) << SIZE | kind)

    def _note_with_site(self, access):
        if access >> ADDRESS <= self.wanted < (access >> ADDRESS) + (1 << (access >> SIZE & KINDS)):
            self.sites[len(self.accesses)] = self.site()
        self.accesses.append(access)

    def site(self):
        """The line that is running, and the one in the kernel that called it."""
        if self.wanted is None:
            return None
        frame, lines = sys._getframe(1), []
        while frame is not None:
            in_kernel = frame.f_code is self.function.__code__
            if in_kernel or not lines and Path(frame.f_code.co_filename).parent != Path(__file__).parent:
                lines.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            frame = None if in_kernel else frame.f_back
        return ", called at ".join(lines)

    # What is found

    def end_interval(self):
        """At a barrier, and at the end of a block."""
        if self.laid_out and self.accesses:
            interval = Interval(self.accesses, self.runs, self.shift)
            if interval.has_no_order(self.owner):
                self._report(interval, *interval.pair())
            if (row := interval.unwritten(self.written, self.owner)) is not None:
                self._report(interval, row)
            if self.blocks > 1:
                self._compare_blocks(interval)
        self._next_interval()

    def _next_interval(self):
        self.sites.clear()
        del self.accesses[:], self.runs[:]

    def _compare_blocks(self, interval):
        """Of each unit of the arguments: the block that wrote it, and the one (or SEVERAL) that read it."""
        rows = np.flatnonzero(interval.unit >= GLOBAL >> self.shift)
        unit, write = interval.unit[rows] >> self.shift_global - self.shift, (interval.kind[rows] & WRITE) > 0
        writers, readers = self.writers[unit], self.readers[unit]
        others = (writers != NOBODY) & (writers != self.number)
        others |= write & (readers != NOBODY) & (readers != self.number)
        if others.any():
            self._report_blocks(interval, rows[np.argmax(others)])
        self.writers[unit[write]] = self.number
        alone = (readers == NOBODY) | (readers == self.number)
        self.readers[unit[~write]] = np.where(alone, self.number, SEVERAL)[~write]
        if self.wanted is not None:
            for row in rows[unit == self.wanted >> self.shift_global]:
                self.history.append((interval.kind[row], f"block {self.place}: {self._tell(interval, row)}"))

    def _report(self, interval, row, other=None):
        text = f"{self._name()}: block {self.place}: {self._tell(interval, row)}"
        if other is None:
            text += ", which no thread of the block has written before"
        else:
            text += f" and {self._tell(interval, other, again=True)} "
            first, second = interval.thread[[row, other]]
            if first == second:
                text += "without waiting for the copy"
            else:
                text += f"with no barrier{' or syncwarp' if first // 32 == second // 32 else ''} between them"
                if (interval.kind[[row, other]] & UNDER_WAY).any():
                    what = "product" if "multiplies" in text else "copy"
                    text += f"; a {what} lasts until it has been waited for"
        raise Hazard(text, interval.address(row))

    def _report_blocks(self, interval, row):
        before = [text for kind, text in self.history if (kind | interval.kind[row]) & WRITE][:1]
        text = " and ".join([*before, f"block {self.place}: {self._tell(interval, row, again=bool(before))}"])
        raise Hazard(f"{self._name()}: {text}: nothing orders blocks", interval.address(row))

    def _tell(self, interval, row, again=False):
        """What a row of the interval is: "thread 3 reads a at byte 8 (simple.py:57)"."""
        kind, address = interval.kind[row], interval.address(row)
        from_shared = "multiplies" if address < GLOBAL else "copies from"
        verb = (from_shared, "copies to") if kind & UNDER_WAY else ("reads", "writes")
        if again:
            what = "it"
        elif address < GLOBAL:
            at, name = max(found for found in self.names if found[0] <= address)
            what = f"shared memory at byte {address - at} of {name}"
        else:
            at, name = next((to, name) for start, end, to, name in self.regions if to <= address < to + end - start)
            what = f"{name} at byte {address - at}"
        site = self.sites.get(interval.access[row])
        return f"thread {interval.thread[row]} {verb[kind & WRITE]} {what}" + (f" ({site})" if site else "")

    def _name(self):
        return self.function.__name__


class Interval:
    """The accesses of a block between two barriers, in the order in which they were made: a row for each unit of bytes
    that one touches, with its thread and the number of syncwarps before it."""

    def __init__(self, accesses, runs, shift):
        packed, runs, self.shift = np.array(accesses), np.array(runs).reshape(-1, 3), shift
        lengths = np.diff(runs[:, 0], append=packed.size)
        units = np.maximum(1 << (packed >> SIZE & KINDS) >> shift, 1)
        self.access = np.repeat(np.arange(packed.size), units)
        first = np.repeat(np.cumsum(units) - units, units)  # row of the access
        self.unit = (packed >> ADDRESS + shift)[self.access] + np.arange(self.access.size) - first
        self.kind = (packed & KINDS)[self.access]
        self.thread, self.syncwarps = (np.repeat(runs[:, i], lengths)[self.access] for i in (1, 2))

    def address(self, row):
        return int(self.unit[row]) << self.shift

    def has_no_order(self, owner):
        """Whether there are two rows of one unit, at least one of them a write, that may come in any order."""
        return self._threads_clash(owner) or self._copies_clash(owner)

    def _threads_clash(self, owner):
        """Those of different threads."""
        write = (self.kind & WRITE) > 0
        written = self.unit[write]
        owner[written] = self.thread[write]
        writer = owner[self.unit]
        owner[written] = NOBODY
        clash = (writer != NOBODY) & (writer != self.thread)
        if not clash.any():
            return False
        rows = np.isin(self.unit, self.unit[clash])
        unit, thread, write, number = self.unit[rows], self.thread[rows], write[rows], self.syncwarps[rows]
        at_once = (unit * 32 + thread // 32) * (number.max() + 1) + number  # the same for what a syncwarp does not part
        return _mixed(unit, thread // 32, write) or _mixed(at_once, thread, write)

    def _copies_clash(self, owner):
        """Those of one thread, of which the first is a copy that it has not waited for at the second."""
        issued = (self.kind & ISSUED) > 0
        if not issued.any():
            return False
        copied = self.unit[issued]
        owner[copied] = 0
        suspect = (owner[self.unit] != NOBODY) & (self.kind < ISSUED)
        owner[copied] = NOBODY
        targets = self.unit[self.kind == WRITE | ISSUED]
        targets, times = np.unique(targets, return_counts=True)
        rows = np.isin(self.unit, [*self.unit[suspect], *targets[times > 1]])
        return rows.any() and self.pair(rows) is not None

    def unwritten(self, written, owner):
        """The first row that reads shared memory which was never written; marks in `written` what now is."""
        shared, written = self.unit < GLOBAL >> self.shift, written.reshape(-1, 1 << self.shift)
        write = np.flatnonzero(shared & (self.kind & (WRITE | ISSUED) == WRITE))
        read = np.flatnonzero(shared & (self.kind & WRITE == 0))
        read = read[~written[self.unit[read], 0]]
        if read.size:
            backwards = write[::-1]
            owner[self.unit[backwards]] = backwards  # the first write of each unit stays
            when = owner[self.unit[read]]
            owner[self.unit[write]] = NOBODY
            read = read[(when == NOBODY) | (when > read)]
        written[self.unit[write]] = True
        return read[0] if read.size else None

    def pair(self, rows=...):
        """Two of these rows without an order, found one by one; None if there are none."""
        columns = self.unit, self.thread, self.kind, self.syncwarps, np.arange(self.unit.size)
        written = set(self.unit[rows][(self.kind[rows] & WRITE) > 0].tolist())
        before = defaultdict(dict)  # unit -> {thread, kind, syncwarps: row}
        for unit, thread, kind, number, row in zip(*(column[rows].tolist() for column in columns)):
            if unit not in written:
                continue
            for (thread_before, kind_before, number_before), row_before in before[unit].items():
                if thread == thread_before:
                    clash = kind_before & ISSUED and not kind & WAITED
                else:
                    clash = thread // 32 != thread_before // 32 or number == number_before
                if clash and (kind | kind_before) & WRITE:
                    return row_before, row
            if kind & UNDER_WAY == WAITED:
                before[unit] = {key: r for key, r in before[unit].items() if key[0] != thread or not key[1] & ISSUED}
            before[unit].setdefault((thread, kind, number), row)
        return None


def _mixed(key, what, write):
    """Whether rows of one key are of different `what`, and one of them writes."""
    order = np.argsort(key, kind="stable")
    key, what = key[order], what[order]
    starts = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    differ = np.maximum.reduceat(what, starts) != np.minimum.reduceat(what, starts)
    return bool(np.any(differ & np.logical_or.reduceat(write[order], starts)))


watch = Watch()
