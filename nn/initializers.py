"""How parameters get their first values, with Keras's names and formulas.

An initializer is called with a shape and a dtype and returns a NumPy array. Random ones draw from the counter-based
generator under a key (seed, stream): a layer passes the process's seed and a stream of its own, so that every
parameter differs and a seeded program repeats itself on every device. One that was given a `seed` of its own always
returns the same values for a shape, wherever it is used, as Keras's do.
"""

import inspect
import math
import operator

import numpy as np

from .. import kernels
from .utils import did_you_mean, get_seed, next_stream

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "get",
    "serialize",
]

# The standard deviation of a standard normal variable that is cut off at two standard deviations.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer:
    """Base of all: a subclass defines `__call__`, and `get_config` if it has arguments."""

    def __call__(self, shape, dtype=np.float32, *, seed: int | None = None, stream: int | None = None) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: an initializer must define __call__(shape, dtype)")

    def get_config(self) -> dict:
        """The arguments that make the same initializer again."""
        return {}

    @classmethod
    def from_config(cls, config: dict):
        return cls(**config)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_config().items())})"


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape, dtype=np.float32, *, seed=None, stream=None):
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All ones."""

    def __call__(self, shape, dtype=np.float32, *, seed=None, stream=None):
        return np.ones(shape, dtype)


class Constant(Initializer):
    """One value everywhere, or an array that NumPy can broadcast to the shape."""

    def __init__(self, value=0.0):
        self.value = value

    def __call__(self, shape, dtype=np.float32, *, seed=None, stream=None):
        return np.full(shape, self.value, dtype)

    def get_config(self):
        return {"value": np.asarray(self.value).tolist()}


class RandomInitializer(Initializer):
    """Base of the random ones: settles the key and leaves the drawing to `draw(shape, dtype, seed, stream)`."""

    def __init__(self, seed: int | None = None):
        if seed is not None:
            try:
                seed = operator.index(seed)
            except TypeError:
                raise TypeError(f"{type(self).__name__}: seed must be an integer or None, got {seed!r}") from None
            if not 0 <= seed < 2**64:
                raise ValueError(f"{type(self).__name__}: seed must lie between 0 and 2**64 - 1, got {seed}")
        self.seed = seed

    def __call__(self, shape, dtype=np.float32, *, seed=None, stream=None):
        if self.seed is not None:
            seed, stream = self.seed, 0
        seed = get_seed() if seed is None else seed
        stream = next_stream() if stream is None else stream
        return self.draw(tuple(shape), np.dtype(dtype), seed, stream)

    def draw(self, shape: tuple, dtype: np.dtype, seed: int, stream: int) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__}: a random initializer must define draw")

    def get_config(self):
        return {"seed": self.seed}


class RandomUniform(RandomInitializer):
    """Uniform between `minval` and `maxval`."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def draw(self, shape, dtype, seed, stream):
        return kernels.uniform(shape, seed=seed, stream=stream, low=self.minval, high=self.maxval, dtype=dtype)

    def get_config(self):
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class RandomNormal(RandomInitializer):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        if not stddev >= 0:
            raise ValueError(f"{type(self).__name__}: stddev must not be negative, got {stddev}")
        self.mean, self.stddev = mean, stddev

    def draw(self, shape, dtype, seed, stream):
        return kernels.normal(shape, seed=seed, stream=stream, mean=self.mean, stddev=self.stddev, dtype=dtype)

    def get_config(self):
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomNormal):
    """Normal, with values further than two standard deviations from the mean drawn again."""

    def draw(self, shape, dtype, seed, stream):
        return kernels.truncated_normal(
            shape, seed=seed, stream=stream, mean=self.mean, stddev=self.stddev, dtype=dtype
        )


class VarianceScaling(RandomInitializer):
    """Zero mean and variance `scale / n`, where n counts the weights that meet in one unit.

    Args:
        scale: Positive factor.
        mode: What n is: "fan_in" (inputs of a unit), "fan_out" (outputs of a unit) or "fan_avg" (their mean).
        distribution: "truncated_normal", "untruncated_normal" or "uniform"; all have that variance.
        seed: Fixes the values, see the top of the file.
    """

    MODES = ("fan_in", "fan_out", "fan_avg")
    DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        super().__init__(seed)
        if not scale > 0:
            raise ValueError(f"{type(self).__name__}: scale must be positive, got {scale}")
        if mode not in self.MODES:
            raise ValueError(did_you_mean(f"{type(self).__name__} mode", mode, self.MODES))
        if distribution not in self.DISTRIBUTIONS:
            raise ValueError(did_you_mean(f"{type(self).__name__} distribution", distribution, self.DISTRIBUTIONS))
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def draw(self, shape, dtype, seed, stream):
        fan_in, fan_out = _fans(shape)
        count = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, count)
        key = {"seed": seed, "stream": stream, "dtype": dtype}
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return kernels.uniform(shape, low=-limit, high=limit, **key)
        if self.distribution == "untruncated_normal":
            return kernels.normal(shape, stddev=math.sqrt(variance), **key)
        return kernels.truncated_normal(shape, stddev=math.sqrt(variance) / _TRUNCATED_STDDEV, **key)

    def get_config(self):
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one unit, for weights (..., inputs, outputs) with a window in front."""
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


class _Named(VarianceScaling):
    """A `VarianceScaling` with a name of its own; `_scaling` holds scale, mode and distribution."""

    _scaling: tuple[float, str, str]

    def __init__(self, seed: int | None = None):
        super().__init__(*self._scaling, seed=seed)

    def get_config(self):
        return {"seed": self.seed}


class GlorotUniform(_Named):
    """Uniform within ±sqrt(6 / (fan_in + fan_out)): Glorot and Bengio, 2010. The default for kernels."""

    _scaling = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Named):
    """Truncated normal with variance 2 / (fan_in + fan_out): Glorot and Bengio, 2010."""

    _scaling = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Named):
    """Uniform within ±sqrt(6 / fan_in), for relu: He et al., 2015."""

    _scaling = (2.0, "fan_in", "uniform")


class HeNormal(_Named):
    """Truncated normal with variance 2 / fan_in, for relu: He et al., 2015."""

    _scaling = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Named):
    """Uniform within ±sqrt(3 / fan_in): LeCun et al., 1998."""

    _scaling = (1.0, "fan_in", "uniform")


class LecunNormal(_Named):
    """Truncated normal with variance 1 / fan_in: LeCun et al., 1998."""

    _scaling = (1.0, "fan_in", "truncated_normal")


class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal columns (or rows, where there are fewer of them), times `gain`.

    More than two axes are read as the matrix (all but the last, last). It is the Q of the QR decomposition of a normal
    draw, with the signs that make it uniform over all such matrices (Saxe et al., 2014), computed in float64.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        super().__init__(seed)
        self.gain = gain

    def draw(self, shape, dtype, seed, stream):
        if len(shape) < 2:
            raise ValueError(f"Orthogonal: shape must have at least two axes, got {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(kernels.normal(tall, seed=seed, stream=stream, dtype=np.float64))
        q *= np.where(np.diagonal(r) < 0, -self.gain, self.gain)
        return np.ascontiguousarray(q if rows >= columns else q.T).reshape(shape).astype(dtype)

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


class _Function(Initializer):
    """Wraps a user's function(shape, dtype)."""

    def __init__(self, function):
        self.function = function

    def __call__(self, shape, dtype=np.float32, *, seed=None, stream=None):
        values = np.asarray(self.function(tuple(shape), dtype=dtype), dtype)
        if values.shape != tuple(shape):
            raise ValueError(f"initializer {self!r}: returned shape {values.shape}, must be {tuple(shape)}")
        return values

    def __repr__(self):
        return getattr(self.function, "__name__", repr(self.function))


_BY_NAME = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
}
_BY_CLASS_NAME = {cls.__name__: cls for cls in _BY_NAME.values()}


def get(identifier) -> Initializer:
    """The initializer for a name ("glorot_uniform" or "GlorotUniform"), a `serialize` dict, a class, an instance or
    a function(shape, dtype).

    Example:

    >>> get("he_normal")
    HeNormal(seed=None)
    """
    if isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, dict) and identifier.keys() == {"class_name", "config"}:
        return _lookup(identifier["class_name"]).from_config(identifier["config"])
    if inspect.isclass(identifier) and issubclass(identifier, Initializer):
        return identifier()
    if callable(identifier):
        return _Function(identifier)
    return _lookup(identifier)()


def _lookup(name) -> type[Initializer]:
    cls = (_BY_NAME.get(name) or _BY_CLASS_NAME.get(name)) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(did_you_mean("initializer", name, _BY_NAME))
    return cls


def serialize(initializer: Initializer) -> dict:
    """The initializer as plain data, which `get` turns back into one."""
    name = type(initializer).__name__
    if _BY_CLASS_NAME.get(name) is not type(initializer):
        raise ValueError(f"initializer {initializer!r}: cannot be saved: only handloom's own initializers can")
    return {"class_name": name, "config": initializer.get_config()}
