"""The machine code of CUDA kernels, compiled without a GPU and read with the toolkit's own programs."""

import os
import re
import shutil
import struct
import subprocess
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90a")
FLOAT64 = r"(DADD|DMUL|DFMA|DSETP|F2F\.F64.*|F2F\.F32\.F64)\b.*"


def program(name: str) -> str | None:
    """The path of one of the toolkit's programs, from a wheel or on the machine."""
    wheels = Path(sysconfig.get_path("purelib"), "nvidia").glob(f"*/bin/{name}")
    return next(map(str, wheels), None) or shutil.which(name)


def missing() -> list[str]:
    """What of the toolkit is not installed."""
    from importlib.util import find_spec

    absent = [name for name in ("cuobjdump", "nvdisasm") if program(name) is None]
    if find_spec("numba_cuda") is None:
        absent.append("numba-cuda")
    return absent


def required() -> None:
    """Skip the module that calls this where no machine code can be made; under `make test-cuda` its tests then fail."""
    import pytest
    from numba.core import config

    if config.ENABLE_CUDASIM:
        pytest.skip("in the simulator nothing is compiled", allow_module_level=True)
    if (absent := missing()) and not os.environ.get("HANDLOOM_CUDA"):
        pytest.skip(f"no {', '.join(absent)}: make test-cuda", allow_module_level=True)


@dataclass(frozen=True)
class Code:
    """The code of one kernel for one architecture."""

    # Registers (REG), bytes of stack (STACK: spilled registers and arrays not in registers), shared memory.
    resources: dict[str, int]
    lines: list[tuple[int, str]]  # address, instruction without its predicate

    @cached_property
    def instructions(self) -> Counter:
        """How often each instruction stands in the code, with its suffixes: LDG.E.128 and so on."""
        return Counter(text.split()[0] for _, text in self.lines)

    def count(self, pattern: str) -> int:
        return sum(number for name, number in self.instructions.items() if re.fullmatch(pattern, name))

    @property
    def spills(self) -> bool:
        return self.resources["STACK"] > 0 or self.count(r"(LDL|STL)\b.*") > 0

    @cached_property
    def loops(self) -> list[Counter]:
        """The instructions of every loop, the shortest first: from where a branch leads back to, to that branch."""
        found = []
        for address, text in self.lines:
            back = re.match(r"BRA\b.*\b0x([0-9a-f]+)$", text)
            if back and (start := int(back[1], 16)) < address:
                found.append(Counter(t.split()[0] for a, t in self.lines if start <= a <= address))
        return sorted(found, key=lambda loop: loop.total())


@cache
def code(kernel, arch: str = "sm_90a") -> Code:
    """One kernel's code for an architecture."""
    return read([kernel], arch)[0]


def read(kernels, arch: str) -> list[Code]:
    """The code of kernels for an architecture. What takes time is that the disassembler begins: it reads all as one."""
    from handloom.kernels.launch import kept_cubin

    cubins = [kept_cubin(kernel, arch) for kernel in kernels]
    parts = [_text(cubin) for cubin in cubins]
    listing = _run([program("nvdisasm"), "--binary", arch.upper().replace("_", "").replace("A", "a")], b"".join(parts))
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([^;]*?)\s*;", listing)
    lines, begin, codes = [(int(address, 16), text) for address, text in found], 0, []
    for cubin, part in zip(cubins, parts):
        end = begin + len(part)
        codes.append(Code(_resources(cubin), [line for line in lines if begin <= line[0] < end]))
        begin = end
    return codes


def _resources(cubin):
    usage = _run([program("cuobjdump"), "-res-usage"], cubin)
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}


def _text(cubin):
    """The instructions in a cubin, which is an ELF file: its one section whose name begins with .text."""
    (table,), (size, count, names) = struct.unpack_from("<Q", cubin, 0x28), struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    (text,) = (s for s in sections if cubin.startswith(b".text.", sections[names][4] + s[0]))
    return cubin[text[4] : text[4] + text[5]]


def _run(command, content):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(content)
        file.flush()
        done = subprocess.run([*command, file.name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def share(loop: Counter, pattern: str) -> float:
    """The share of a loop's instructions that a pattern matches."""
    return sum(number for name, number in loop.items() if re.fullmatch(pattern, name)) / loop.total()
