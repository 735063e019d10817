"""The machine code of pooling: 16 bytes of channels an access, and their offsets as one integer."""

import pytest
import sass
from numba import float32, float64

sass.required()
pytestmark = pytest.mark.xdist_group("pooling")

from handloom.kernels.pooling.cuda import maxima, means  # noqa: E402


def wide(T):
    return 128 // T.bitwidth


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("T", [float32, float64], ids=str)
@pytest.mark.parametrize("make", [maxima.max_forward, maxima.max_forward_shared], ids=["thread", "block"])
def test_maxima_are_compared_in_registers(make, T, arch):
    """What the general test asks for, of kernels that neither add nor multiply."""
    for lanes, bits in ((wide(T), 8), (wide(T), 0), (1, 16)):
        found = sass.code(make(T, lanes, bits), arch)
        assert not found.spills
        assert not found.count(r"(DADD|DMUL|DFMA|F2F\.F64.*|F2F\.F32\.F64)\b.*")
        assert bool(found.count(r"DSETP\b.*")) == (T is float64)
        assert found.count(r"STG\.E.*") == 1 + bool(bits)
        if lanes > 1:
            assert found.count(r"LDG\.E\.128.*") == found.count(r"LDG\..*") and found.count(r"STG\.E\.128.*") == 1


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("T", [float32, float64], ids=str)
def test_channels_are_read_and_written_16_bytes_at_a_time(T, arch):
    for kernel, stores in (
        (means.avg_forward(T, wide(T)), 1),
        (means.avg_forward_shared(T, wide(T)), 1),
        *((means.avg_backward(T, wide(T), own), own) for own in (1, 2)),
    ):
        found = sass.code(kernel, arch)
        assert found.count(r"LDG\.E\.128.*") == found.count(r"LDG\..*") > 0
        assert found.count(r"STG\.E\.128.*") == found.count(r"STG\..*") == stores
    for own in 1, 2:
        found = sass.code(maxima.max_backward(T, wide(T), 8, own), arch)
        wide_loads = found.count(r"LDG\.E\.128.*")
        assert wide_loads and found.count(r"LDG\..*") == 2 * wide_loads  # a number for the offsets with each
        assert found.count(r"STG\.E\.128.*") == found.count(r"STG\..*") == own
