"""Distances in units of the last place."""

import numpy as np


def ulps(actual, exact) -> np.ndarray:
    """How far each number is from the exact one (given in a wider type), in units of the last place there.

    Inf and NaN must stand where the exact result, rounded, has them; where they do not the distance is Inf.
    """
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(actual.dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    finite = np.isfinite(actual) & np.isfinite(rounded)
    with np.errstate(over="ignore", invalid="ignore"):
        unit = np.spacing(np.abs(np.where(finite, rounded, 1))).astype(exact.dtype)
        distance = np.abs(actual.astype(exact.dtype) - exact) / unit
    return np.where(finite, distance, np.where(same, 0, np.inf))


def spread(dtype, low, high, count=100_000) -> np.ndarray:
    """Points of a function's domain: from low to high, normally distributed, tiny ones of both signs, and odd ones."""
    rng = np.random.default_rng(5)
    info = np.finfo(dtype)
    tiny = np.ldexp(rng.uniform(1, 2, count), rng.integers(-60, 0, count)) * rng.choice([-1, 1], count)
    odd = [0.0, -0.0, 1, -1, info.tiny, -info.tiny, info.smallest_subnormal, info.max, info.min]
    points = [odd, [np.inf, -np.inf, np.nan], rng.uniform(low, high, count), rng.normal(0, 1, count), tiny]
    return np.concatenate(points).astype(dtype)
