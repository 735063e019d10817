"""Speed, measured: what this machine can do, how close the kernels come to it, and how they stand against others.

    handloom bench                    limits, the main cases, whole training steps; peers that are installed beside them
    handloom bench --only conv2d      a family, an operation, or one row by its name
    handloom bench --full             more cases, and more samples of each
    handloom bench --survey           all cases: grids of sizes, every convolution of two networks; over an hour
    handloom bench --json FILE        what was found, for --compare and `make tables`
    handloom bench --report DIR       a page to show: DIR/index.html
    handloom bench --compare FILE     what is slower or faster than there; exit status 1 where one is slower
    pytest bench/                     the main cases under pytest-benchmark

A case (cases/, one file a family) says what is computed, how many operations and bytes that takes, and who else can
do it (peers/). `measure.py` verifies it against the plain NumPy reference, times it (`timing.py`) and verifies again.
"""

from .command import main

__all__ = ["main"]
