"""What a rung of pooling is, and what all rungs share: the cells of a window, and chunks of rows."""

from collections.abc import Callable
from typing import NamedTuple

from ...jit import jit

# Cells that a chunk looks at: long enough to be worth a thread's while, short enough that threads share evenly.
CHUNK = 32768
# What one cell costs in arithmetic operations, memory counted in: it decides between threads and none.
WORK = 4


class Rung(NamedTuple):
    """One variant: forward fills y (and offsets), backward fills dx. All arrays are flat."""

    forward: Callable
    backward: Callable


@jit(inline=True)
def cells_of(window, stride, before, size, edge):
    """A window along one axis: where it starts, and the first and the end of its cells that lie in the image."""
    start = window * stride - before
    return start, max(start, 0), min(start + size, edge)


def in_chunks(launch, rows, row_cells, args):
    """Launch a threaded kernel (chunk, rows of a chunk, *args) over so many rows of so many cells."""
    if rows * row_cells > 0:
        together = max(1, CHUNK // row_cells)
        launch(-(-rows // together), WORK * rows * row_cells, together, *args)
