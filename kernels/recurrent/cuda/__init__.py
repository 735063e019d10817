"""The LSTM on an NVIDIA GPU: a product and the gates one after the other, or both in one launch a step.

    stepwise   every step is a matrix product into memory, and an elementwise kernel that makes gates and state of it
    fused      every step is one launch: a block sums the four gates of 16 rows and 16 units, and applies them there

In both, one matrix product gives x W + b of all steps beforehand, and after the way back two give dx and dW above dU.
What one step leaves to the next passes through memory between two launches, the only place where all blocks wait for
each other. around.py holds what both share.

A variant is a pair of launchers:

    forward(x, w, u, b, h0, c0, keep) -> y, inputs, gates, cells
    backward(saved, needs, dy, dh, dc) -> dx, dw, du, db, dh0, dc0

`x` is C-contiguous. `inputs` (N, T, I + H) holds x and h before each step side by side, so that one product gives dW
above dU; `gates` (N, T, 4H) holds i, f, g, o after their activations, `cells` (N, T + 1, H) c before each step and
after the last. Unless `keep`, inputs is None and gates are x W + b.
"""

from .fused import FUSED
from .stepwise import STEPWISE

__all__ = ["FUSED", "STEPWISE"]
