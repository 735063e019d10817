"""Pooling on a CPU.

    naive   the loops of the definition, one number at a time; backward adds to dx wherever a window says so    naive.py
    simd    a vector of windows at a time, chunk by chunk over several threads                                forward.py
            backward, each row of dx collects from the windows over it                          gather.py, backward.py
            and where channels are fewer than lanes, it is made on the stack                                   narrow.py
            a maximum's, where that is less work: each number of dy is added where its maximum was            scatter.py

Channels lie next to each other in memory, and so do pixels: a vector of them is as many windows at once. A chunk is
some rows: of y forward, of dx backward (or an image). A number of dx is the sum over the windows that cover it, in
rising order, and one thread's alone: windows may overlap as they like, and the bits are the same either way.

A rung does both passes (rung.py). `geometry` is the contract's Geometry as a plain tuple: N, H, W, C, KH, KW, SH, SW,
top, left, OH, OW.
"""

from .backward import avg_backward, max_backward
from .forward import avg_forward, max_forward
from .naive import avg_naive, max_naive
from .rung import Rung

max_simd = Rung(max_forward, max_backward)
avg_simd = Rung(avg_forward, avg_backward)

__all__ = ["avg_naive", "avg_simd", "max_naive", "max_simd"]
