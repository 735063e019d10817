"""The machine code of the activations: what memory-bound kernels must have, and those that hardly compute."""

import pytest
import sass
from numba import float32, float64

sass.required()
pytestmark = pytest.mark.xdist_group("activation")

from handloom.kernels.activation.cuda import elementwise, softmax  # noqa: E402
from handloom.kernels.teams import team_of  # noqa: E402


@pytest.mark.parametrize("T", [float32, float64], ids=str)
@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_functions_that_hardly_compute(name, T):
    width = 128 // T.bitwidth
    forward = sass.code(elementwise.apply(getattr(elementwise, f"_{name}"), T, width))
    backward = sass.code(elementwise.apply_slope(getattr(elementwise, f"_{name}_slope"), T, width))
    for found in (forward, backward):
        assert not found.spills
        assert T is float64 or not found.count(r"(D[A-Z]+|F2F.*)\b.*")


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
def test_elementwise_functions_take_16_bytes_at_once(arch):
    forward = sass.code(elementwise.apply(elementwise._gelu, float32, 4), arch)
    backward = sass.code(elementwise.apply_slope(elementwise._gelu_slope, float32, 4), arch)
    assert forward.count(r"LDG\.E\.128.*") == 1 and forward.count(r"STG\.E\.128.*") == 1
    assert backward.count(r"LDG\.E\.128.*") == 2 and backward.count(r"STG\.E\.128.*") == 1


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("op", softmax.RESULTS)
def test_a_team_reads_its_row_once_and_computes_each_exponential_once(op, arch):
    team = team_of(1000, 4, 4)
    forward = sass.code(softmax.registers(op, float32, team), arch)
    backward = sass.code(softmax.registers_backward(op, float32, team), arch)
    assert forward.count(r"MUFU\.EX2") == team.held
    for found, arrays in (forward, 1), (backward, 2):
        assert found.count(r"LDG\.E\.128.*") == arrays * team.count and found.count(r"STG\.E\.128.*") == team.count
        assert not found.count(r"(LDG|STG)\.E") and found.resources["REG"] <= 128


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("op", softmax.RESULTS)
def test_a_warp_shuffles_and_reads_16_bytes_at_once(op, arch):
    forward = sass.code(softmax.warp_per_row(op, float32, 4), arch)
    backward = sass.code(softmax.warp_per_row_backward(op, float32, 4), arch)
    assert forward.count(r"SHFL.*") >= 2 and backward.count(r"SHFL.*") >= 1  # in loops: as often as lanes double
    for found in (forward, backward):
        assert found.count(r"LDG\.E\.128.*") and found.count(r"STG\.E\.128.*")
        assert not found.count(r"(LDG|STG)\.E")
