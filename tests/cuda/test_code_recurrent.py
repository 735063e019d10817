"""The machine code of the LSTM's fused steps: how they read, and what their loops do most of the time."""

import runpy
from pathlib import Path

import pytest
import sass
from numba import float32, float64

sass.required()
pytestmark = pytest.mark.xdist_group("recurrent")

KERNELS = runpy.run_path(str(Path(__file__).parent / "code" / "recurrent.py"))["KERNELS"]


@pytest.mark.parametrize("arch", sass.ARCHITECTURES)
@pytest.mark.parametrize("T", [float32, float64], ids=str)
@pytest.mark.parametrize("name", ["recurrent-fused-forward", "recurrent-fused-backward"])
def test_a_fused_step_reads_16_bytes_at_once_and_mostly_multiplies_and_adds(name, T, arch):
    found = sass.code(KERNELS[name](T), arch)
    assert found.count(r"LDGSTS\..*128.*"), "tiles are copied without passing through registers"
    assert found.resources["REG"] <= 128, "two blocks no longer fit on a processor"
    main = found.loops[-1]
    # Of float64, the same shared memory holds half as many terms, for the same copies.
    fused = "FFMA.*" if T is float32 else "DFMA.*"
    assert sass.share(main, fused) > (0.6 if T is float32 else 0.4)
    # A number of U serves four rows and a number of h four gates; on the way back one of dz serves two units.
    terms = (4 if name.endswith("forward") else 2) * 4 * (16 if T is float32 else 8)
    assert sum(number for instruction, number in main.items() if instruction.startswith(fused[:4])) == terms
    assert not sass.share(main, r"LDG\b.*")
