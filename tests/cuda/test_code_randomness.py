"""The machine code of randomness: products of words, wide accesses, and kernels that no dtype rules."""

import pytest
import sass
from numba import float32, float64

sass.required()
pytestmark = pytest.mark.xdist_group("randomness")

from handloom.kernels.randomness import cuda  # noqa: E402

DOUBLE = r"(DADD|DMUL|DFMA|DSETP)\b.*"


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("make", [cuda.uniform_kernel, cuda.dropout_kernel], ids=["uniform", "dropout"])
def test_a_product_of_words_is_one_instruction(make, arch):
    """Philox takes two products a round, ten rounds; the first of them may move to the unit for uniform numbers."""
    found = sass.code(make(float32, 4), arch)
    assert 19 <= found.count(r"U?IMAD\.(WIDE|HI)\.U32.*") <= 22
    assert found.count(r"STG\.E\.128.*") == 1


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("T", [float32, float64], ids=str)
@pytest.mark.parametrize("make", [cuda.normal_kernel, cuda.truncated_normal_kernel], ids=["normal", "truncated"])
def test_normal_numbers_are_computed_in_float64_for_both_dtypes(make, T, arch):
    found = sass.code(make(T), arch)
    assert found.count(DOUBLE) and not found.count(r"F(ADD|MUL|FMA)\b.*")
    assert not found.spills


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("name", ["draw_pairs", "merge_far", "merge_near"])
def test_sorting_stays_in_registers(name, arch):
    found = sass.code(getattr(cuda, name), arch)
    assert not found.spills
    assert not found.count(DOUBLE)
