"""Random numbers in plain NumPy: what the kernels are checked against."""

import math
from statistics import NormalDist

import numpy as np

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(blocks, *, seed, stream=0, step=0):
    """Four 32-bit words for each block number, as uint64 (n, 4)."""
    blocks = np.asarray(blocks, np.uint64)
    counter = [blocks & _LOW, blocks >> _HALF, np.full_like(blocks, step), np.full_like(blocks, stream)]
    key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        first, second = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        counter = [
            (second >> _HALF) ^ counter[1] ^ key[0],
            second & _LOW,
            (first >> _HALF) ^ counter[3] ^ key[1],
            first & _LOW,
        ]
        key = [(key[0] + np.uint64(0x9E3779B9)) & _LOW, (key[1] + np.uint64(0xBB67AE85)) & _LOW]
    return np.stack(counter, axis=-1)


def words(n, **key):
    """The first n 32-bit words."""
    return philox(np.arange(-(-n // 4)), **key).reshape(-1)[:n]


def longs(n, **key):
    """The first n 64-bit words."""
    pairs = words(2 * n, **key).reshape(n, 2)
    return pairs[:, 0] | pairs[:, 1] << _HALF


def uniform(*, shape, low=0.0, high=1.0, dtype=np.float32, **key):
    n = math.prod(np.atleast_1d(shape))
    if np.dtype(dtype) == np.float32:
        unit = (words(n, **key) >> np.uint64(8)) * 2.0**-24
    else:
        unit = (longs(n, **key) >> np.uint64(11)) * 2.0**-53
    return np.clip(low + (high - low) * unit, low, np.nextafter(np.dtype(dtype).type(high), low)).reshape(shape)


def normal(*, shape, mean=0.0, stddev=1.0, dtype=np.float32, **key):
    n = math.prod(np.atleast_1d(shape))
    bits = (longs(n + n % 2, **key) >> np.uint64(11)).reshape(-1, 2).astype(np.float64)
    radius = np.sqrt(-2 * np.log((bits[:, 0] + 1) * 2.0**-53))
    angle = 2 * np.pi * bits[:, 1] * 2.0**-53
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return mean + stddev * pairs.reshape(-1)[:n].reshape(shape)


def truncated_normal(*, shape, mean=0.0, stddev=1.0, dtype=np.float32, **key):
    n = math.prod(np.atleast_1d(shape))
    below, above = NormalDist().cdf(-2), NormalDist().cdf(2)
    p = ((longs(n, **key) >> np.uint64(12)) + 0.5) * 2.0**-52
    drawn = np.array([NormalDist().inv_cdf(below + (above - below) * chance) for chance in p])
    return mean + stddev * drawn.reshape(shape)


def permutation(*, n, **key):
    return np.argsort(longs(n, **key) >> np.uint64(1), kind="stable")


def _keep(shape, rate, key):
    return uniform(shape=shape, **key) >= rate


def dropout(x, *, rate, **key):
    return np.where(_keep(x.shape, rate, key), x / (1 - rate), 0)


def dropout_backward(dy, x, *, rate, **key):
    return (np.where(_keep(x.shape, rate, key), dy / (1 - rate), 0),)
