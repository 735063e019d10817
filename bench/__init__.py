"""Speed, measured: every figure a ratio against a peer in the same run, after checking that the results agree.

    python -m handloom.bench                    all groups; peers that are not installed are left out and named
    python -m handloom.bench --only matmul      one group: matmul, convolution, programs
    python -m handloom.bench --json FILE        the rows, the machine and the versions as JSON

How it measures is written in `timing.py`; how each peer is called, in `peers/`.
"""

from .command import main

__all__ = ["main"]
