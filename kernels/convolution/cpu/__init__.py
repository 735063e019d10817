"""Convolutions on a CPU, from the textbook to the register file.

    naive     the loops of the definition                                                            naive.py
    im2col    every window copied into a row of a matrix, then a matrix product                      im2col.py
    direct    the same product in a register tile, without the matrix: tables say where its rows lie direct.py
    threaded  the same, chunk by chunk over several threads                                          direct.py
              and few pixels that meet many weights                                                  far.py
              and its data gradient for very few channels                                            few.py
              and the gradient of the weights of few filters, or few channels                        turned.py
              and all passes of narrow groups, depthwise ones among them              grouped.py, rows.py, boxes.py
    winograd  windows of 3 x 3 with four times fewer multiplications, where that pays                winograd.py

With a maximum over 2 x 2 pixels at the end, `conv2d_max_pool2d` has rungs of its own, pooled.py.

A rung does all passes: `forward`, `data_gradient`, `weight_gradient` (../rung.py). Their arrays are C-contiguous.
"""

from .direct import conv2d_direct, conv2d_threaded
from .im2col import conv2d_im2col
from .naive import conv2d_naive
from .pooled import (
    conv2d_max_pool2d_direct,
    conv2d_max_pool2d_separate,
    conv2d_max_pool2d_winograd,
    window_weight_gradient,
)
from .winograd import conv2d_winograd

__all__ = [
    "conv2d_direct",
    "conv2d_im2col",
    "conv2d_max_pool2d_direct",
    "conv2d_max_pool2d_separate",
    "conv2d_max_pool2d_winograd",
    "conv2d_naive",
    "conv2d_threaded",
    "conv2d_winograd",
    "window_weight_gradient",
]
