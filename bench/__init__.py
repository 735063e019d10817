"""Speed, measured: every figure a ratio against a peer in the same run, after checking that the results agree.

    python -m handloom.bench                the machine's limits, all groups; peers that are not installed are named
    python -m handloom.bench --only matmul  one group: limits, matmul, convolution, programs
    python -m handloom.bench --json FILE    the rows, the limits, the machine and the versions as JSON
    python -m handloom.bench --compare FILE what is slower or faster than there; exit status 1 where one is slower

How it measures is written in `timing.py`; how each peer is called, in `peers/`.
"""

from .command import main

__all__ = ["main"]
