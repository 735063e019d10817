"""Real data to train on: `digits` ships with the package, `mnist` is downloaded once and kept."""

from . import digits, mnist

__all__ = ["digits", "mnist"]
