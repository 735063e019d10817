"""Vector functions against NumPy's extended precision, in units of the last place, over their whole range."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from ulp import spread, ulps

from handloom.kernels import vecmath
from handloom.kernels.jit import jit
from handloom.kernels.simd import lanes, vload_part, vstore_part

WIDE = np.longdouble
pytestmark = pytest.mark.skipif(
    np.finfo(WIDE).eps == np.finfo(np.float64).eps, reason="NumPy's longdouble is no wider than float64 here"
)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


EXACT = {
    "vexp": np.exp,
    "vexpm1": np.expm1,
    "vlog": np.log,
    "vlog1p": np.log1p,
    "vsigmoid": sigmoid,
    "vtanh": np.tanh,
}
# Where results run from zero to Inf.
RANGE = {np.float32: (-104, 89), np.float64: (-746, 710)}
# Where vexp and vexpm1 end.
EXP_HIGHEST = {np.float32: 40, np.float64: 345}


def over_arrays(function):
    @jit(name=f"test_{function.py_func.__name__}")
    def loop(x, y):
        for i in range(0, x.size, lanes(x)):
            vstore_part(y, i, function(vload_part(x, i, x.size - i)), x.size - i)

    def call(x):
        y = np.empty_like(x)
        loop(x, y)
        return y

    return call


CALLS = {name: over_arrays(getattr(vecmath, name)) for name in EXACT}


def points(name, dtype):
    x = spread(dtype, *RANGE[dtype])
    if name in ("vexp", "vexpm1"):
        return x[~(x > EXP_HIGHEST[dtype])]
    if name == "vlog":  # all magnitudes
        rng = np.random.default_rng(6)
        info = np.finfo(dtype)
        exponents = rng.integers(info.minexp - 20, info.maxexp, x.size)
        return np.concatenate([x, np.ldexp(rng.uniform(1, 2, x.size), exponents)])
    return x


@pytest.mark.parametrize("dtype", RANGE)
@pytest.mark.parametrize("name", EXACT)
def test_ulps(name, dtype):
    x = points(name, dtype).astype(dtype)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(WIDE))
    distance = ulps(CALLS[name](x), exact)
    worst = distance.argmax()
    assert distance[worst] < 3, f"{name}({x[worst]!r}) is {CALLS[name](x[worst : worst + 1])}, not {exact[worst]}"


@pytest.mark.parametrize("dtype", RANGE)
def test_denormal_results_are_not_flushed(dtype):
    x = np.linspace(np.log(np.finfo(dtype).tiny), np.log(np.finfo(dtype).smallest_subnormal), 100).astype(dtype)
    y = CALLS["vexp"](x)
    assert (y[1:] > 0).all() and (y[1:] < np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("dtype", RANGE)
def test_tanh_is_odd(dtype):
    x = spread(dtype, -20, 20, 1000)
    np.testing.assert_array_equal(CALLS["vtanh"](-x), -CALLS["vtanh"](x))
    assert np.signbit(CALLS["vtanh"](np.array([-0.0], dtype)))


OTHERS = {"generic": {"NUMBA_CPU_NAME": "generic"}}
if platform.machine() == "x86_64":
    OTHERS["avx2"] = {"NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}


@pytest.mark.parametrize("setting", OTHERS.values(), ids=OTHERS)
def test_ulps_on_other_instruction_sets(setting):
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", __file__, "-k", "test_ulps and not instruction"]
    done = subprocess.run(command, env={**os.environ, **setting}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
