"""The machine code of the losses: what memory-bound kernels must have, and those on integers."""

import pytest
import sass
from numba import float32, float64, int64

sass.required()
pytestmark = pytest.mark.xdist_group("losses")

from handloom.kernels.losses.cuda import elements, labels, parts, rows  # noqa: E402


@pytest.mark.parametrize(
    "kernel",
    [
        labels.find_outside,
        labels.find_lowest,
        parts.add_up(int64),
        *(labels.count_rows(T, labelled) for T in (float32, float64) for labelled in (False, True)),
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
def test_rows_are_read_16_bytes_at_once(name, labelled, arch):
    forward = sass.code(getattr(rows, f"{name}_loss")(labelled, float32, 4), arch)
    backward = sass.code(getattr(rows, f"{name}_loss_backward")(labelled, float32, 4), arch)
    passes = {"softmax": 1 if labelled else 3, "probability": 2 if labelled else 3}  # of a label one number is read
    assert forward.count(r"LDG\.E\.128.*") == passes[name] and forward.count(r"SHFL.*") >= 2 + 5
    assert backward.count(r"LDG\.E\.128.*") == (1 if labelled else 2) and backward.count(r"STG\.E\.128.*") == 1
