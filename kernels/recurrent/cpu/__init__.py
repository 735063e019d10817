"""The LSTM on a CPU: one number after another, or register tiles for the rows of the batch.

    steps   every gate of every row and step is a dot product, in plain loops                                   steps.py
    fused   each thread takes a few rows through all steps: one matrix product for all their inputs, then step by
            step a small product for the state, and the gates in vectors                                        fused.py
            and where U is larger than a second-level cache, each thread takes a few units of all rows          wide.py
            a single step is two products with weights that are not packed                                      once.py

A variant is a pair of launchers:

    forward(x, w, u, b, h0, c0, keep) -> y, inputs, gates, cells
    backward(saved, needs, dy, dh, dc) -> dx, dw, du, db, dh0, dc0

`x` is C-contiguous. `inputs` (N, T, I + H) holds x and h before each step side by side, so that one product gives dW
above dU; `gates` (N, T, 4H) holds i, f, g, o after their activations, `cells` (N, T + 1, H) c before each step and
after the last. Unless `keep`, these three lie in scratch memory.
"""

from .fused import FUSED
from .steps import STEPS

__all__ = ["FUSED", "STEPS"]
