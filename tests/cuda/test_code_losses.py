"""The machine code of the losses: what memory-bound kernels must have, and those on integers."""

import pytest
import sass
from numba import float32, float64, int64

sass.required()
pytestmark = pytest.mark.xdist_group("losses")

from handloom.kernels.losses.cuda import elements, labels, parts, rows  # noqa: E402
from handloom.kernels.teams import team_of  # noqa: E402


@pytest.mark.parametrize(
    "kernel",
    [
        labels.find_outside,
        labels.find_lowest,
        parts.add_up(int64),
        *(elements.count(T, width) for T in (float32, float64) for width in (1, 128 // T.bitwidth)),
        *(
            labels.count_rows(T, team_of(length, 1, T.bitwidth // 8), labelled)
            for T in (float32, float64)
            for labelled in (False, True)
            for length in (10, 5000)
        ),
    ],
    ids=lambda kernel: kernel.file_name("")[:-22],
)
def test_integers_stay_integers_and_nothing_is_spilled(kernel):
    found = sass.code(kernel)
    assert not found.spills
    assert not found.count(r"D(ADD|MUL|FMA)\b.*|[IF]2F.*|F2I.*")


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
def test_elements_are_read_16_bytes_at_once_and_added_up_by_shuffles(arch):
    forward = sass.code(elements.mean(elements._squared, float32, 4), arch)
    assert forward.count(r"LDG\.E\.128.*") >= 2 and forward.count(r"SHFL.*") >= 5
    backward = sass.code(elements.mean_backward(elements._squared_slope, float32, 4), arch)
    assert backward.count(r"LDG\.E\.128.*") == 2 and backward.count(r"STG\.E\.128.*") == 1


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("labelled", [False, True], ids=["given", "label"])
@pytest.mark.parametrize("name", ["softmax", "probability"])
def test_rows_are_read_16_bytes_at_once_and_no_number_twice(name, labelled, arch):
    team = team_of(1000, 4, 4)
    forward = sass.code(getattr(rows, f"{name}_loss")(labelled, float32, team), arch)
    backward = sass.code(getattr(rows, f"{name}_loss_backward")(labelled, float32, team), arch)
    for found in forward, backward:
        assert found.count(r"LDG\.E\.128.*") == (1 if labelled else 2) * team.count
    assert forward.count(r"SHFL.*") >= 2 * 5 and backward.count(r"STG\.E\.128.*") == team.count
