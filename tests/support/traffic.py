"""What a kernel's accesses cost the memory of a GPU, counted in the simulator.

    found = traffic(lambda: kernels.matmul(a, b))       one Site for each line that reads or writes

Threads of a warp that access memory at the same place in the code, for the same time, are one request. In shared memory
it takes a turn for every 32 lanes of up to 4 bytes, 16 lanes of 8 or 8 lanes of 16; and another one for each further
word that a bank (of 32, word by word) has to give. In global memory it moves sectors of 32 bytes, whatever is asked of
them; arrays begin on one.
"""

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from greenlet import getcurrent

from handloom.kernels.ptx import sanitizer
from handloom.kernels.ptx.sanitizer import ADDRESS, GLOBAL, ISSUED, KINDS, SIZE, UNDER_WAY, WRITE, watch

WARP, BANKS, WORD, SECTOR = 32, 32, 4, 32
INSIDE = Path(sanitizer.__file__).parent


@dataclass
class Site:
    """The accesses of one line."""

    kernel: str
    line: str  # file:line
    shared: bool
    store: bool
    requests: int = 0
    cost: int = 0  # turns, or sectors
    least: int = 0  # that so many bytes may cost

    @property
    def ratio(self):
        return self.cost / self.least


def traffic(run) -> list[Site]:
    """The sites of all launches in run()."""
    seen = defaultdict(list)  # one request: [(address, bytes) of each lane]
    times = Counter()  # how often a thread was at a place
    plain_begin, plain_all = type(watch)._begin, type(watch).note_all
    launches = 0

    def note(access):
        watch.accesses.append(access)
        if access & UNDER_WAY in (0, ISSUED):
            see(access)

    def see(access):
        thread, frame = getcurrent(), sys._getframe(1)
        while Path(frame.f_code.co_filename).parent in (INSIDE, Path(__file__).parent):
            frame = frame.f_back
        address, store = access >> ADDRESS, bool(access & WRITE)
        code, shared = frame.f_code, address < GLOBAL
        mine = launches, watch.number, thread.thread_id, code, frame.f_lasti, shared, store
        times[mine] += 1
        line = f"{Path(code.co_filename).name}:{frame.f_lineno}"
        key = (*mine[:2], thread.thread_id // WARP, *mine[3:], times[mine], watch.function.__name__, line)
        seen[key].append((address - (0 if shared else start_of(address)), 1 << (access >> SIZE & KINDS)))

    def start_of(address):
        return max(to for _, _, to, _ in watch.regions if to <= address)

    def begin(self, *args):
        nonlocal launches
        launches += 1
        plain_begin(self, *args)
        self.note = note

    def note_all(self, accesses, kind, site):
        plain_all(self, accesses, kind, site)
        if kind == ISSUED:
            for access in accesses:
                see(access)

    try:
        type(watch)._begin, type(watch).note_all = begin, note_all
        run()
    finally:
        type(watch)._begin, type(watch).note_all = plain_begin, plain_all
        watch._begin(None)
    return _sites(seen)


def _sites(seen):
    sites = {}
    for (*_, shared, store, _, kernel, line), lanes in seen.items():
        site = sites.setdefault((kernel, line, shared, store), Site(kernel, line, shared, store))
        cost, least = (_turns if shared else _sectors)(lanes)
        site.requests += 1
        site.cost += cost
        site.least += least
    return sorted(sites.values(), key=lambda site: (site.kernel, site.line))


def _turns(lanes):
    at_once, turns, groups = WARP * WORD // max(max(size for _, size in lanes), WORD), 0, 0
    for first in range(0, len(lanes), at_once):
        words = {
            word
            for address, size in lanes[first : first + at_once]
            for word in range(address // WORD, (address + size - 1) // WORD + 1)
        }
        turns += max(Counter(word % BANKS for word in words).values())
        groups += 1
    return turns, groups


def _sectors(lanes):
    size = sum(size for _, size in set(lanes))
    touched = {s for address, n in lanes for s in range(address // SECTOR, (address + n - 1) // SECTOR + 1)}
    return len(touched), -(-size // SECTOR)
