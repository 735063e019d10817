"""Random numbers from a counter: `uniform`, `normal`, `truncated_normal`, `permutation`, and `dropout`.

Nothing is stored between calls. Philox4x32-10 turns a counter of four 32-bit words, under a key of two, into four
words that pass every test of randomness, so each element can be drawn alone, in any order, by any thread or device:

    word[4 j : 4 j + 4] = Philox(counter = (j mod 2³², j div 2³², step, stream), key = (seed mod 2³², seed div 2³²))
    long[i]             = word[2 i] + 2³² word[2 i + 1]

What an element i becomes, in row-major order, depends on (seed, stream, step, i) alone, never on the shape:

    uniform, dropout, float32   U = (word[i] div 2⁸) / 2²⁴
    uniform, float64            U = (long[i] div 2¹¹) / 2⁵³
    normal, elements 2k, 2k+1   r cos 2πt, r sin 2πt   with r = √(-2 ln u), u = (long[2k] div 2¹¹ + 1) / 2⁵³,
                                                            t = (long[2k + 1] div 2¹¹) / 2⁵³
    truncated normal            √2 erf⁻¹(v)   with v = erf(√2) (2p - 1), p = (long[i] div 2¹² + 1/2) / 2⁵²
    permutation                 the order of the numbers long[i] div 2, equal ones in the order of i

A stream is one purpose (a layer, a parameter), a step one use of it (a batch, an epoch). The normal ones are computed
in float64 and then rounded, so both dtypes get the same numbers. Only `permutation` takes a workspace; `dropout` copies
an array that is not C-contiguous first.

A GPU draws the same words. Its uniform numbers, permutations and masks are the CPU's, bit by bit; its normal ones have
another logarithm and may differ from the CPU's in the last two bits of float64, and so, rarely, in the last of float32.

J. Salmon, M. Moraes, R. Dror, D. Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11.
G. Box, M. Muller: "A Note on the Generation of Random Normal Deviates", Ann. Math. Stat. 29 (1958).
"""

import operator
from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import namespace
from ..dispatch import Variants, device_of

# One kernel an operation: the bits are the contract, so there is no ladder of versions to choose from.
_KERNELS = {
    name: Variants(name, __name__, cpu={"vectors": f"cpu:{name}"}, cuda={"vectors": f"cuda:{name}"})
    for name in ("uniform", "normal", "truncated_normal", "permutation", "dropout")
}


class DropoutSaved(NamedTuple):
    """What `dropout_backward` needs: how to draw the mask again."""

    shape: tuple
    rate: float
    seed: int
    stream: int
    step: int


def uniform(shape, *, seed, stream=0, step=0, low=0.0, high=1.0, dtype=np.float32, like=None):
    """low + (high - low) U, in [low, high).

    Parameters
    ----------
    shape : an integer or a tuple of them
    seed : 0 to 2**64 - 1;  stream, step : 0 to 2**32 - 1
    low, high : finite, as is high - low; low <= high (low everywhere if they are equal)
    dtype : float32 | float64; 24 or 53 random bits
    like : an array on whose device the result is made; None: a NumPy array

    Returns an array of that shape and dtype.
    Raises ValueError : numbers outside these ranges.  TypeError : another dtype, a seed that is no integer.

    >>> from handloom import kernels
    >>> kernels.uniform(3, seed=1)
    array([0.89025915, 0.8946847 , 0.5857259 ], dtype=float32)
    """
    device, out, key = _prepare("uniform", shape, dtype, seed, stream, step, like)
    low, high = (_finite("uniform", out.dtype, name, value) for name, value in (("low", low), ("high", high)))
    if high < low:
        raise ValueError(f"uniform: low is {low} and high is {high}: low must not be above high")
    _finite("uniform", out.dtype, "high - low", high - low)
    _KERNELS["uniform"].launcher(device, None)(out.reshape(-1), low, high, key)
    return out


def normal(shape, *, seed, stream=0, step=0, mean=0.0, stddev=1.0, dtype=np.float32, like=None):
    """mean + stddev Z, Z normally distributed.

    Parameters and errors as `uniform`; stddev >= 0.

    >>> from handloom import kernels
    >>> kernels.normal((1, 2), seed=1)
    array([[-0.1136802 , -0.45786965]], dtype=float32)
    """
    device, out, key = _prepare("normal", shape, dtype, seed, stream, step, like)
    mean, stddev = _mean_and_stddev("normal", out.dtype, mean, stddev)
    _KERNELS["normal"].launcher(device, None)(out.reshape(-1), mean, stddev, key)
    return out


def truncated_normal(shape, *, seed, stream=0, step=0, mean=0.0, stddev=1.0, dtype=np.float32, like=None):
    """mean + stddev Z, Z normally distributed on the condition that |Z| <= 2.

    The distribution of draws that are repeated until they lie within two standard deviations, but with one draw an
    element: the inverse of its distribution function. Parameters and errors as `normal`.

    >>> from handloom import kernels
    >>> kernels.truncated_normal((1, 2), seed=1)
    array([[1.158777  , 0.52916735]], dtype=float32)
    """
    device, out, key = _prepare("truncated_normal", shape, dtype, seed, stream, step, like)
    mean, stddev = _mean_and_stddev("truncated_normal", out.dtype, mean, stddev)
    _KERNELS["truncated_normal"].launcher(device, None)(out.reshape(-1), mean, stddev, key)
    return out


def permutation(n, *, seed, stream=0, step=0, like=None):
    """The numbers 0 to n - 1 in random order, as int64 (n,).

    Seed, stream, step, like and their errors as in `uniform`. Workspace: 32 n bytes; on a GPU 16 m, with m the next
    power of two from n and 512 on.

    >>> from handloom import kernels
    >>> kernels.permutation(4, seed=1).tolist()
    [3, 1, 2, 0]
    """
    n = _index("permutation", "n", n)
    device, out, key = _prepare("permutation", (n,), np.int64, seed, stream, step, like)
    _KERNELS["permutation"].launcher(device, None)(out, key)
    return out


def dropout(x, rate, *, seed, stream=0, step=0):
    """y[i] = x[i] / (1 - rate) where U[i] >= rate, else 0, whatever x[i] is.

    Parameters
    ----------
    x : any shape, float32 | float64; the mask is the same for both
    rate : 0 <= rate < 1, rounded up to a multiple of 2**-24 for the mask
    seed, stream, step : as in `uniform`; or step as an array of one int64 beside x, which the kernel reads when it runs

    Returns y, as x; x itself where the rate is 0.
    Raises as `uniform`; ValueError for a rate outside the range.
    Saved for backward: the key, of which the mask is drawn again.  Gradient: dX is dropout of dY by the same mask.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> kernels.dropout(np.ones(8), 0.5, seed=1)
    array([2., 2., 2., 2., 2., 2., 0., 2.])
    """
    device = device_of("dropout", x=x)
    launcher = _KERNELS["dropout"].launcher(device, None)
    checks.floats("dropout", x=x)
    rate = _rate(rate)
    later = getattr(step, "dtype", None) == np.int64 and getattr(step, "shape", None) == (1,)
    if later:
        device_of("dropout", x=x, step=step)
    number = int(step[0]) if later and device == "cpu" else 0 if later else step  # a GPU's would have to be waited for
    key = _key("dropout", seed, stream, number)
    if not rate:
        return x
    return launcher(x, rate, key, step) if later else launcher(x, rate, key)


def dropout_forward(x, rate, *, seed, stream=0, step=0):
    """`dropout`, and what its backward needs."""
    y = dropout(x, rate, seed=seed, stream=stream, step=step)
    return y, DropoutSaved(x.shape, rate, seed, stream, step)


def dropout_backward(dy, saved, needs=None):
    """(dX,) from dY, of the shape of x; (None,) where `needs`, one bool, says so. dY itself where the rate is 0."""
    shape, rate, seed, stream, step = saved
    device_of("dropout_backward", dy=dy)
    checks.floats("dropout_backward", dy=dy)
    checks.shape("dropout_backward", shape, dy=dy)
    if needs is not None and not checks.wanted("dropout_backward", needs, ("x",))[0]:
        return (None,)
    return (dropout(dy, rate, seed=seed, stream=stream, step=step),)


def _prepare(op, shape, dtype, seed, stream, step, like):
    """The device, the output, not yet filled, and the key."""
    device = device_of(op, {"like": like})
    dtype = np.dtype(dtype)
    if dtype not in checks.FLOATS and op != "permutation":
        raise TypeError(f"{op}: dtype is {dtype}: must be float32 or float64")
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    sizes = tuple(_index(op, "shape", size) for size in sizes)
    key = _key(op, seed, stream, step)
    return device, (np if device == "cpu" else namespace(like)).empty(sizes, dtype), key


def _key(op, seed, stream, step):
    """(step, stream, low and high half of the seed), each below 2**32."""
    if type(seed) is not int:
        seed = _index(op, "seed", seed)
    if type(stream) is not int:
        stream = _index(op, "stream", stream)
    if type(step) is not int:
        step = _index(op, "step", step)
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"{op}: seed must lie between 0 and 2**64 - 1, got {seed}")
    if not 0 <= stream < 1 << 32:
        raise ValueError(f"{op}: stream must lie between 0 and 2**32 - 1, got {stream}")
    if not 0 <= step < 1 << 32:
        raise ValueError(f"{op}: step must lie between 0 and 2**32 - 1, got {step}")
    return step, stream, seed & 0xFFFFFFFF, seed >> 32


def _index(op, name, value):
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be an integer, got {value!r}") from None
    if number < 0:
        raise ValueError(f"{op}: {name} must not be negative, got {number}")
    return number


def _finite(op, dtype, name, value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{op}: {name} must be a number, got {value!r}") from None
    if not abs(number) <= float(np.finfo(dtype).max):
        raise ValueError(f"{op}: {name} must be finite in {dtype}, got {number}")
    return number


def _mean_and_stddev(op, dtype, mean, stddev):
    mean, stddev = _finite(op, dtype, "mean", mean), _finite(op, dtype, "stddev", stddev)
    if stddev < 0:
        raise ValueError(f"{op}: stddev must not be negative, got {stddev}")
    return mean, stddev


def _rate(rate):
    number = float(rate)
    if not 0 <= number < 1:
        raise ValueError(f"dropout: rate must be at least 0 and below 1, got {rate}")
    return number
