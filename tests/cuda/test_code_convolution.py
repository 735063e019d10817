"""The machine code of the convolutions: wide accesses, and how much of a loop multiplies and adds."""

import pytest
import sass
from numba import float32

sass.required()
pytestmark = pytest.mark.xdist_group("convolution")


def code(make, arch, shape, *whole):
    from handloom.kernels.convolution.cuda import implicit

    return sass.code(getattr(implicit, make)(float32, *shape, *whole), arch)


def main_loop(found):
    """The loop over the sums' terms, eight at a time."""
    return max(found.loops, key=lambda loop: sass.share(loop, "FFMA.*") * loop.total())


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("make", ["convolve", "correlate"])
def test_the_widest_tile_multiplies_and_adds_most_of_the_time(make, arch):
    found = code(make, arch, (16, 8), True, True)
    assert found.count(r"LDG\.E\.128.*") and found.count(r"LDS\.128") and found.count(r"STG\.E\.128.*")
    assert found.resources["REG"] <= 128, "two blocks no longer fit on a processor"
    main = main_loop(found)
    assert sass.share(main, "FFMA.*") > 0.75
    assert sum(number for name, number in main.items() if name.startswith("FFMA")) == 8 * 64


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("make", ["convolve", "correlate"])
def test_where_rows_are_no_whole_vectors_the_tile_still_does(make, arch):
    found = code(make, arch, (16, 8), False, False)
    assert not found.count(r"LDG\.E\.128.*") and found.count(r"LDS\.128")
    assert sass.share(main_loop(found), "FFMA.*") > 0.6


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("make", ["convolve", "correlate"])
def test_there_is_no_division_in_the_loop(make, arch):
    # Divisions of integers start from a reciprocal of floating point.
    main = main_loop(code(make, arch, (16, 8), True, True))
    assert not any(name.startswith(("MUFU", "I2F", "F2I")) for name in main)


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
def test_turning_the_weights_needs_no_stack(arch):
    from handloom.kernels.convolution.cuda import rung

    assert sass.code(rung.turn(float32), arch).resources["STACK"] == 0


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("make, by_matrices", [("convolve", 8), ("correlate", 0)])
def test_tensor_cores_are_fed_without_a_detour(make, by_matrices, arch):
    """Tiles pass from memory to shared memory in 16 bytes and from there to the tensor cores: rows of windows by
    `ldmatrix`; what has to be turned, numbers of 32 bits, one by one."""
    from handloom.kernels.convolution.cuda import tensor_cores

    found = sass.code(getattr(tensor_cores, make)(), arch)
    assert not found.spills
    assert not found.count(sass.FLOAT64)
    assert found.count(r"STG\.E\.128.*") and found.count(r"STS\.64") and found.count("HMMA.*") == 64
    main = max(found.loops, key=lambda loop: sass.share(loop, "HMMA.*") * loop.total())
    counts = {name: sum(n for i, n in main.items() if i.startswith(name)) for name in ("HMMA", "LDSM", "LDGSTS")}
    assert counts == {"HMMA": 64, "LDSM": by_matrices, "LDGSTS": 8}
    assert all(name.endswith("128") for name in main if name.startswith("LDGSTS"))
    assert sass.share(main, "HMMA.*") > 0.12
    assert not [name for name in main if name.startswith(("LDG.", "STG", "STS", "MUFU", "I2F", "F2I"))]
