"""The machine code of the CUDA kernels: registers, spills, width of accesses, share of multiply-adds. No GPU is needed.

`make test-cuda` installs the toolkit; there, a part of it that is missing is a failure.
"""

import runpy
from functools import cache
from pathlib import Path

import processes
import pytest
import sass
from numba import float32, float64

sass.required()

# "gemm": {"gemm-naive": how to make the kernel for a type}. Each family has a file with its own.
FAMILIES = {
    file.stem: runpy.run_path(str(file))["KERNELS"] for file in sorted((Path(__file__).parent / "code").glob("*.py"))
}
# One process reads a family: its kernels are compiled for all architectures at once, and disassembled together.
POINTS = [
    pytest.param(family, name, T, arch, id=f"{name}-{T}-{arch}", marks=pytest.mark.xdist_group(family))
    for family, kernels in FAMILIES.items()
    for name in kernels
    for T in (float32, float64)
    for arch in sass.ARCHITECTURES
]


@cache
def codes(family, arch):
    makes = {(name, T): make for name, make in FAMILIES[family].items() for T in (float32, float64)}
    return dict(zip(makes, sass.read([make(T) for (_, T), make in makes.items()], arch)))


@pytest.mark.parametrize("family, name, T, arch", POINTS)
def test_nothing_is_spilled_and_float32_stays_float32(family, name, T, arch):
    found = codes(family, arch)[name, T]
    assert not found.spills
    if T is float32:
        assert not found.count(sass.FLOAT64)
        assert found.count(r"F(FMA|ADD|MUL)\b.*")
    else:
        assert found.count(r"D(FMA|ADD|MUL)\b.*")


@pytest.mark.xdist_group("gemm")
@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("name", ["gemm-vectors", "gemm-vectors-transposed"])
def test_the_widest_rung_multiplies_and_adds_most_of_the_time(name, arch):
    found = codes("gemm", arch)[name, float32]
    assert found.count(r"LDG\.E\.128.*") and found.count(r"LDS\.128")
    assert found.resources["REG"] <= 128, "two blocks no longer fit on a processor"
    main = found.loops[-1]
    assert sass.share(main, "FFMA.*") > 0.8
    assert sum(number for instruction, number in main.items() if instruction.startswith("FFMA")) == 8 * 64


@pytest.mark.xdist_group("gemm")
@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
def test_each_rung_multiplies_and_adds_for_a_larger_share(arch):
    shares = []
    for name in ("gemm-naive", "gemm-shared", "gemm-vectors"):
        shares.append(max(sass.share(loop, "FFMA.*") for loop in codes("gemm", arch)[name, float32].loops))
    assert shares == sorted(shares) and shares[0] < 0.1 and shares[-1] > 0.8


def test_an_error_of_the_compiler_names_the_kernel():
    from handloom.kernels.launch import compile_cubin, kernel, pointer

    @kernel(threads=32)
    def broken(x: pointer(float32)):
        x.nothing()

    with pytest.raises(RuntimeError, match="broken: cannot be compiled for sm_80"):
        compile_cubin(broken, "sm_80")


def test_kernels_are_compiled_for_a_newer_numpy(tmp_path):
    """Without `row_stack`, as from 2.5 on."""
    code = """
import warnings
import numpy as np
warnings.filterwarnings("ignore", "The 'generic' unit", DeprecationWarning)  # numba-cuda's
if hasattr(np, "row_stack"):
    del np.row_stack
from handloom.bench.gpu import limits
from handloom.kernels.launch import compile_cubin
print(compile_cubin(limits.multiply_add, "sm_90a")[:4], hasattr(np, "row_stack"))
"""
    out, _ = processes.run(code, tmp_path)
    assert out.split() == [repr(b"\x7fELF"), "False"]


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize(
    "name, instructions",
    [
        ("copy", (r"LDGSTS.*", r"LDS\.128", r"STG\.E\.128.*")),
        ("multiply_tf32", (r"HMMA\.1688\.F32\.TF32",)),
        ("multiply_bf16", (r"LDSM\.16\.M88\.4", r"LDSM\.16\.MT88\.4", r"HMMA\.16816\.F32\.BF16")),
    ],
)
def test_intrinsics_become_the_instructions_they_are_named_after(name, instructions, arch):
    import warps

    found = sass.code(getattr(warps, name), arch)
    assert all(found.count(pattern) for pattern in instructions), found.instructions


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize(
    "name, instruction, count", [("float32", "FFMA", 16), ("TF32", "HMMA.1688", 8), ("bfloat16", "HMMA.16816", 8)]
)
def test_what_measures_the_arithmetic_does_hardly_anything_else(name, instruction, count, arch):
    from handloom.bench.gpu import limits

    found = sass.code(limits.KERNELS[name], arch)
    assert not found.spills
    unrolled = max(found.loops, key=lambda loop: sum(loop.values()))
    times = sum(number for one, number in unrolled.items() if one.startswith(instruction))
    assert times % count == 0 and times > 2 * count  # several rounds at a time
    assert times / sum(unrolled.values()) > 0.5
