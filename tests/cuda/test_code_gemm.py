"""The machine code of the products on tensor cores, and of what else there is for bfloat16."""

import pytest
import sass
from numba import float32, uint16

sass.required()
pytestmark = pytest.mark.xdist_group("gemm")

ARCHITECTURES = pytest.mark.parametrize("arch", sass.ARCHITECTURES)


@ARCHITECTURES
@pytest.mark.parametrize("b_along", [True, False], ids=["b-by-columns", "b-by-rows"])
@pytest.mark.parametrize("a_along", [True, False], ids=["a-by-rows", "a-by-columns"])
@pytest.mark.parametrize("E", [uint16, float32], ids=["bfloat16", "tf32"])
def test_tensor_cores_are_fed_without_a_detour(E, a_along, b_along, arch):
    """Tiles pass from memory to shared memory and from there to the tensor cores: what 32 of a warp's instructions
    multiply comes by 8 of `ldmatrix`, but for numbers of 32 bits that have to be turned, which come one by one."""
    from handloom.kernels.gemm.cuda import tensor

    found = sass.code(tensor(E, E, a_along, b_along), arch)
    assert not found.spills
    assert not found.count(sass.FLOAT64)
    assert found.count(r"STG\.E\.128.*") and found.count(r"STS\.64") and found.count("HMMA.*") == 64
    main = max(found.loops, key=lambda loop: sass.share(loop, "HMMA.*"))
    counts = {name: sum(n for i, n in main.items() if i.startswith(name)) for name in ("HMMA", "LDSM", "LDGSTS")}
    turned = (E is float32) * 8 * ((not a_along) + (not b_along))
    assert counts == {"HMMA": 64, "LDSM": 16 - turned, "LDGSTS": 8}
    assert sass.share(main, "HMMA.*") > (0.28 if E is uint16 else 0.16)
    assert not [name for name in main if name.startswith(("LDG.", "STG", "STS"))]


@pytest.mark.parametrize("b_along", [True, False], ids=["b-by-columns", "b-by-rows"])
@pytest.mark.parametrize("a_along", [True, False], ids=["a-by-rows", "a-by-columns"])
def test_warpgroups_begin_a_product_before_the_last_one_has_ended(a_along, b_along):
    """A tile's four follow one another, and what is waited for, once, are those of the tile before."""
    from handloom.kernels.gemm.cuda import warpgroup

    found = sass.code(warpgroup(uint16, a_along, b_along), "sm_90a")
    assert not found.spills
    assert not found.count(sass.FLOAT64)
    assert found.count(r"STG\.E\.128.*") and found.count(r"STS\.64") and found.count("HGMMA.*") == 4
    main = max(found.loops, key=lambda loop: sass.share(loop, "HGMMA.*"))
    counts = {n: sum(c for i, c in main.items() if i.startswith(n)) for n in ("HGMMA", "WARPGROUP.DEPBAR", "LDGSTS")}
    assert counts == {"HGMMA": 4, "WARPGROUP.DEPBAR": 1, "LDGSTS": 12}
    # For a tile the tensor cores take 1024 cycles, in which a processor's four schedulers have two warps each.
    assert main.total() < 256
    assert not [name for name in main if name.startswith(("LDG.", "STG", "STS", "LDS."))]


@ARCHITECTURES
@pytest.mark.parametrize("name", ["epilogue_backward", "add_parts"])
def test_gradients_of_bfloat16_are_float32_in_between(name, arch):
    from handloom.kernels.gemm import cuda

    found = sass.code(getattr(cuda, name)(uint16), arch)
    assert not found.spills
    assert found.count("FADD.*") and found.count(r"F2FP\.BF16.*")
    assert not found.count(sass.FLOAT64)
