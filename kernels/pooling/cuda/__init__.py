"""Pooling on an NVIDIA GPU. Nothing here adds to memory that another thread may add to.

    forward    a thread owns the channels in 16 bytes (four of float32, two of float64) of one output; where the window
               has at least 32 cells, a block shares it
    backward   a thread owns as many channels of one cell of dx, and collects from the windows over it

Channels lie next to each other in memory, so neighbouring threads read and write whole cache lines. Where pixels are
no whole 16 bytes, or an array starts between, a thread owns one channel. Offsets of neighbouring channels are read and
written as one integer.

In the kernels `height`, `width` ... are the contract's Geometry: H, W, C, KH, KW, SH, SW, top, left, OH, OW, with
channels counted in `vectors`, of as many as a thread owns. `wide_factor` and `wide_shift` are the reciprocal of `wide`
(kernels/quotients.py), and so on. To be read in this order: windows.py, maxima.py, means.py.
"""

from .maxima import max_vectors
from .means import avg_vectors

__all__ = ["avg_vectors", "max_vectors"]
