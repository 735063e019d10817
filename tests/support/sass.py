"""The machine code of CUDA kernels, compiled without a GPU and read with the toolkit's own programs."""

import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90a")


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


@dataclass(frozen=True)
class Code:
    """The code of one kernel for one architecture."""

    cubin: bytes

    def _read(self, *command: str) -> str:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(self.cubin)
            file.flush()
            done = subprocess.run([*command, file.name], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    @cached_property
    def resources(self) -> dict[str, int]:
        """Registers (REG), bytes of stack (STACK: spilled registers and arrays not in registers), shared memory."""
        usage = self._read(program("cuobjdump"), "-res-usage")
        return {name: int(number) for name, number in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}

    @cached_property
    def lines(self) -> list[tuple[int, str]]:
        """(address, instruction without its predicate)"""
        found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([^;]*?)\s*;", self._assembly)
        return [(int(address, 16), text) for address, text in found]

    @cached_property
    def _assembly(self) -> str:
        return self._read(program("nvdisasm"), "-c")

    @cached_property
    def instructions(self) -> Counter:
        """How often each instruction stands in the code, with its suffixes: LDG.E.128 and so on."""
        return Counter(text.split()[0] for _, text in self.lines)

    def count(self, pattern: str) -> int:
        return sum(number for name, number in self.instructions.items() if re.fullmatch(pattern, name))

    @cached_property
    def loops(self) -> list[Counter]:
        """The instructions of every loop, the shortest first: from a label to a branch back to it."""
        labels, pending = {}, []
        for line in self._assembly.splitlines():
            if label := re.match(r"\s*(\.L_\w+):", line):
                pending.append(label[1])
            elif address := re.match(r"\s*/\*([0-9a-f]{4,})\*/", line):
                labels.update(dict.fromkeys(pending, int(address[1], 16)))
                pending = []
        found = []
        for address, text in self.lines:
            target = re.match(r"BRA.*`\((\.L_\w+)\)", text)
            if target and labels.get(target[1], address) < address:
                found.append(Counter(t.split()[0] for a, t in self.lines if labels[target[1]] <= a <= address))
        return sorted(found, key=lambda loop: loop.total())


def share(loop: Counter, pattern: str) -> float:
    """The share of a loop's instructions that a pattern matches."""
    return sum(number for name, number in loop.items() if re.fullmatch(pattern, name)) / loop.total()
