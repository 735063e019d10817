"""Rows for teams: neighbouring threads of a CUDA kernel that share a row and hold it in registers.

    team = team_of(length, width, itemsize)         on the host, for rows of so many numbers, of which an access takes
                                                    `width`: 1, or as many as are in 16 bytes, which divide the length
    team.blocks(rows)                               the blocks of THREADS threads that so many rows want
    place, take, give, add_up, highest_of = teamwork(T, team)

A team is one lane, 2, 4, 8, 16, a warp, or a whole block. For short rows one thread is best: it computes nothing that
others compute too, and no shuffle has to join what they found. But neighbouring threads then read numbers that lie a
row apart, and a processor looks for one cache line at a time; so where a row takes more than five accesses, as many
share it as read a sector of memory at once. From there on a thread holds as much as its registers allow.

    place()                                         (row, member): the row of this thread, and its place in the team
    take(x, start, left, member, empty, numbers)    numbers = the member's part of the row that starts at x[start] and
                                                    has `left` numbers left, `empty` where there are no more
    give(y, start, left, member, numbers)           and back
    add_up(number, shared), highest_of(number, shared)
                                                    the sum, or the largest, of the members' numbers, in each of them.
                                                    All threads of the block take part. `shared`: shared memory for a
                                                    number of each warp, used where a team is a block.

A row that not even a block can hold is taken in chunks, of team.chunk numbers each. Loops go over

    for first in range(0, chunk if whole else length, chunk)

which is one round, and the compiler knows it, where the team holds the whole row.
"""

from functools import cache, lru_cache
from typing import NamedTuple

from numba import cuda, int32, int64, uint32

from .ptx import load, load4, shift_right, store, store4
from .reductions import THREADS, WARP, block_highest, block_sum, device, group_highest, group_sum
from .wide import VECTOR, vector_of

# Bytes of a row that a thread holds; bytes that are read from memory together; and how many accesses apart from that.
HELD, SECTOR, ACCESSES = 128, 32, 5


class Team(NamedTuple):
    """`size` threads; each holds `count` accesses of `width` numbers, together those of the `whole` row or a chunk."""

    size: int
    width: int
    count: int
    whole: bool

    @property
    def held(self) -> int:
        """Numbers that a thread holds."""
        return self.count * self.width

    @property
    def chunk(self) -> int:
        """Numbers that the team holds."""
        return self.size * self.held

    def blocks(self, rows: int) -> int:
        return -(-rows * self.size // THREADS)


@lru_cache(maxsize=1024)
def team_of(length: int, width: int, itemsize: int) -> Team:
    """The team for rows of so many numbers."""
    accesses = length // width
    for size in (1, 2, 4, 8, 16, WARP):
        count = -(-accesses // size)
        if count * width * itemsize <= HELD and (count <= ACCESSES or size * width * itemsize >= SECTOR):
            return Team(size, width, count, True)
    most = HELD // (width * itemsize)
    count = -(-accesses // THREADS)
    return Team(THREADS, width, min(count, most), count <= most)


@cache
def teamwork(T, team):
    """Device functions for a team's threads: (place, take, give, add_up, highest_of), as above."""
    size, width, count, whole = team
    bits, rows = size.bit_length() - 1, THREADS // size
    vector = vector_of(8 * VECTOR // T.bitwidth)

    @device
    def place():
        thread = int32(cuda.threadIdx.x)
        number = int32(shift_right(uint32(thread), bits))
        return int64(cuda.blockIdx.x) * rows + number, int32(thread - number * size)

    @device
    def take(memory, start, left, member, empty, numbers):
        for k in range(count):
            at = (k * size + member) * width
            if (whole and k < count - 1) or at < left:
                if width > 1:
                    loaded = load4(memory, start + at)
                    for v in range(width):
                        numbers[k * width + v] = loaded[v]
                else:
                    numbers[k] = load(memory, start + at)
            else:
                for v in range(width):
                    numbers[k * width + v] = empty

    @device
    def give(memory, start, left, member, numbers):
        for k in range(count):
            at = (k * size + member) * width
            if (whole and k < count - 1) or at < left:
                if width > 1:
                    store4(memory, start + at, vector(numbers, k * width))
                else:
                    store(memory, start + at, numbers[k])

    @device
    def add_up_lanes(number, shared):
        return group_sum(number, size)

    @device
    def highest_of_lanes(number, shared):
        return group_highest(number, size)

    joined = (add_up_lanes, highest_of_lanes) if size <= WARP else (block_sum, block_highest)
    return place, take, give, *joined
