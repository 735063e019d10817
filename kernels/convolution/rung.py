"""What every variant of conv2d offers, on any device."""

from collections.abc import Callable
from typing import NamedTuple


class Rung(NamedTuple):
    """One variant of conv2d; all arrays C-contiguous, `geometry` the sizes from the contract."""

    forward: Callable  # (x, w, b or None, y, geometry, activation)
    data_gradient: Callable  # (dz, w, dx, geometry)
    weight_gradient: Callable  # (x, dz, dw, geometry)
