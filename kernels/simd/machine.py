"""What the machine has: instruction sets, the width of a vector, the size of a register tile, caches."""

import re
from pathlib import Path

from numba.core import config


def _features() -> set[str]:
    """Names of the instruction sets that Numba compiles for, in LLVM's spelling."""
    from llvmlite import binding
    from numba.core.codegen import get_host_cpu_features

    if config.CPU_FEATURES is not None:
        listed = config.CPU_FEATURES
    elif config.CPU_NAME in (None, "host", binding.get_host_cpu_name()):
        listed = get_host_cpu_features()
    else:  # a processor given by name, for example NUMBA_CPU_NAME=generic: only what LLVM takes for granted
        listed = ""
    return {flag[1:] for flag in listed.split(",") if flag.startswith("+")}


FEATURES = _features()
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
HAS_FMA = bool(FEATURES & {"fma", "avx512f", "neon", "fp-armv8"})
# AVX-512 masks a load at no cost: kernels need no second loop for the last, partial column of vectors.
FREE_MASKS = "avx512f" in FEATURES

# The register tile of a matrix product: ROWS x COLUMNS accumulators, plus COLUMNS vectors of B and one of A, fill the
# register file: 32 registers with AVX-512 and NEON, 16 with AVX2 and SSE. (NEON takes the multiplier of a multiply-add
# from a register too: 14 x 2 would not fit.)
TILE_ROWS = 14 if "avx512f" in FEATURES else 12 if "neon" in FEATURES else 6
TILE_COLUMNS = 2

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def cache_sizes(folder: Path = CACHES) -> dict[str, int]:
    """Bytes of the data caches by name, "L1" to "L3"; what is usual where the machine does not say."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction" and (number := re.fullmatch(r"(\d+)([KM])", size)):
            found[f"L{level}"] = int(number[1]) << (10 if number[2] == "K" else 20)
    return found or {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 24}
