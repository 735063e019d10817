"""The machine code of kernels: compiled in a process of its own with an empty cache, since code that comes from the
cache cannot be disassembled."""

import json
import os
import subprocess
import sys
import tempfile

_SCRIPT = """
import json, sys
from importlib import import_module
exec({call!r})
found = {{}}
for module in {modules!r}:
    for name, value in vars(import_module(module)).items():
        for part in (name, value), (name, getattr(value, "kernel", None)):
            if hasattr(part[1], "inspect_asm") and part[1].signatures:
                found[part[0]] = "\\n".join(part[1].inspect_asm().values())
json.dump(found, sys.stdout)
"""


def assembly(call: str, *modules: str, **environment: str) -> dict[str, str]:
    """Run `call` (Python statements) and return the assembly of every kernel in `modules` that it compiled, by name."""
    script = _SCRIPT.format(call=call, modules=modules)
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "HANDLOOM_CACHE_DIR": cache, **environment}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=cache)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def register(vector_bytes: int) -> str:
    """How assembly names a vector register of this width."""
    return {64: "zmm", 32: "ymm", 16: "xmm"}[vector_bytes]


def innermost_loops(text: str) -> list[list[str]]:
    """Bodies of the loops that contain no other label: from a label to the jump back to it."""
    loops, label, body = [], None, []
    for line in text.splitlines():
        line = line.strip()
        if line.endswith(":"):
            label, body = line[:-1], []
        elif line and not line.startswith((".", "#")):
            body.append(line)
            if label and line.startswith("j") and line.split()[-1] == label:
                loops.append(body)
                label = None
    return loops
