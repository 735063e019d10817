"""The machine code of the optimizers: every array is read and written 16 bytes at a time, and once."""

import pytest
import sass
from numba import float32, float64

sass.required()
pytestmark = pytest.mark.xdist_group("optimizers")

from handloom.kernels.optimizers import cuda  # noqa: E402


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("T", [float32, float64], ids=str)
@pytest.mark.parametrize(
    "make, read, written",
    [
        (cuda.sgd_kernel, 2, 1),
        (cuda.momentum_kernel, 3, 2),
        (lambda T, width: cuda.rmsprop_kernel(T, width, True, True), 5, 4),
        (cuda.adam_kernel, 4, 3),
    ],
    ids=["sgd", "momentum", "rmsprop", "adam"],
)
def test_each_array_takes_one_wide_access(make, read, written, T, arch):
    found = sass.code(make(T, 128 // T.bitwidth), arch)
    assert found.count(r"LDG\.E\.128.*") == read
    assert found.count(r"STG\.E\.128.*") == written
