"""What every variant of lstm offers, on any device."""

from typing import NamedTuple


class Passes(NamedTuple):
    """Both passes of one variant."""

    forward: object
    backward: object
