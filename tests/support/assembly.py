"""The machine code of kernels, compiled for this or that processor and read, never run.

    code = assembly("kernels.matmul(a, a)", AVX512)     {name of a kernel: its assembly, for each signature}
    innermost_loops(code["multiply_panels"][0], AVX512)

A process of its own compiles, since Numba compiles for one processor a process. There a kernel that Python calls is
compiled for these arguments, and that is all: the processor may be another one. The outputs stay undefined.
"""

import gc
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Dialect:
    """How an instruction set writes what tests look for: patterns for one instruction, from its start.

    In `packed`, {t} stands for what says the dtype and {v} for a whole vector register.
    """

    comment: str
    packed: dict
    float64: str  # arithmetic, packed or not
    scalar: str  # arithmetic with floats one at a time
    estimate: str  # of a quotient or root
    call: str
    jump: str  # with or without a condition; where to stands last
    end: str  # what never goes on to the next instruction
    stack_store: str
    types: dict  # {t} by dtype


X86 = Dialect(
    comment="#",
    packed={
        "multiply-add": r"vfn?m(?:add|sub)\d+p{t}\s.*{v}",
        "multiply": r"vmulp{t}\s.*{v}",
        "add": r"v(?:add|sub)p{t}\s.*{v}",
        "divide": r"vdivp{t}\s.*{v}",
        "root": r"vsqrtp{t}\s.*{v}",
        "compare": r"vcmp\w*p{t}\s.*{v}",
        "compare integers": r"vpcmp\w*d\s.*{v}",
        "multiply integers": r"vpmuludq\s.*{v}",
    },
    float64=r"v?(?:add|sub|mul|div|sqrt|min|max|fn?m\w+\d+)[sp]d\s",
    scalar=r"v?(?:add|sub|mul|div|sqrt|min|max|fn?m\w+\d+)s[sd]\s",
    estimate=r"v?r(?:cp|sqrt)\w*\s",
    call=r"call",
    jump=r"j\w+\s",
    end=r"jmp|ret|ud2",
    stack_store=r"(?!cmp|test|i?mul|i?div|jmp|call).*\(%rsp[^)]*\)$",
    types={"float32": "s", "float64": "d"},
)
_FLOAT = r"f(?:add|sub|mul|nmul|div|sqrt|min\w*|max\w*|n?madd|n?msub|ml[as])\s+"
ARM = Dialect(
    comment="//",
    packed={
        "multiply-add": r"fml[as]\s+v\d+\.{t}",
        "multiply": r"fmul\s+v\d+\.{t}",
        "add": r"f(?:add|sub)\s+v\d+\.{t}",
        "divide": r"fdiv\s+v\d+\.{t}",
        "root": r"fsqrt\s+v\d+\.{t}",
        "compare": r"fcm\w+\s+v\d+\.{t}",
        "compare integers": r"cm\w+\s+v\d+\.{t}",
        "multiply integers": r"umull2?\s+v\d+\.2d",
    },
    float64=_FLOAT + r"(?:d\d|v\d+\.2d)",
    scalar=_FLOAT + r"[sd]\d",
    estimate=r"fr(?:ecp|sqrt)e\s",
    call=r"blr?\s",
    jump=r"(?:b|b\.\w+|cbn?z|tbn?z)\s",
    end=r"(?:b|br|ret|brk)\b(?!\.)",
    stack_store=r"st\w+\s.*\[sp",
    types={"float32": "4s", "float64": "2d"},
)


@dataclass(frozen=True, eq=False)
class Target:
    """A processor to compile for."""

    name: str
    dialect: Dialect
    triple: str
    cpu: str
    features: str  # those that kernels/simd looks at
    vector: str  # {v}

    def __str__(self):
        return self.name

    def packed(self, instruction: str, dtype: str) -> re.Pattern:
        """An instruction that works on a whole vector of this dtype."""
        pattern = self.dialect.packed[instruction]
        return re.compile(pattern.format(t=self.dialect.types[dtype], v=self.vector))


AVX512 = Target("avx512", X86, "x86_64-linux-gnu", "skylake-avx512", "+avx,+avx2,+fma,+avx512f", "%zmm")
AVX2 = Target("avx2", X86, "x86_64-linux-gnu", "haswell", "+avx,+avx2,+fma", "%ymm")
NEON = Target("neon", ARM, "aarch64-linux-gnu", "neoverse-n1", "+neon,+fp-armv8", "")


def assembly(call: str, target: Target) -> dict[str, list[str]]:
    """Compile what `call` (Python statements) runs, and return the assembly of each kernel that Python calls: by name,
    a text for each signature, with everything that the kernel itself calls."""
    environment = {**os.environ, "NUMBA_CPU_NAME": target.cpu, "NUMBA_CPU_FEATURES": target.features}
    command = [sys.executable, __file__, target.triple]
    done = subprocess.run(command, input=call, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _compile(call: str, triple: str) -> dict[str, list[str]]:
    """`assembly` in this process, which can never again run anything that Numba compiles."""
    gc.disable()  # nearly all objects live until a kernel is compiled
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    binding.get_process_triple = binding.get_default_triple = lambda: triple

    import numba
    from numba.core import codegen, dispatcher

    # Compiled as far as to assembly, and not loaded.
    codegen.JITCPUCodegen._add_module = lambda *_: None
    codegen.JITCPUCodegen.set_env = lambda *_: None
    codegen.JITCodeLibrary._finalize_specific = lambda *_: None
    found = {}

    def compile_only(called, *args):
        if called.py_func.__qualname__ == "threaded.<locals>.drive":  # the kernel itself, without what runs the chunks
            called, args = inspect.getclosurevars(called.py_func).nonlocals["kernel"], (0, *args[3:])
        types = tuple(map(numba.typeof, args))
        called.get_call_template(types, {})
        found[called, types] = called._cache.key[0].rpartition(".")[2]

    dispatcher.Dispatcher.__call__ = compile_only

    from handloom.kernels import jit

    # Code that comes from the cache cannot be disassembled.
    jit.KernelCache.load_overload = jit.KernelCache.save_overload = lambda *_: None
    exec(call, {})
    code = {}
    for (kernel, types), name in found.items():
        library = kernel.overloads[types].library
        if isinstance(library, jit.LinkedLibrary):  # it would be optimized as a part of `drive`
            codegen.JITCodeLibrary._optimize_final_module(library)
        code.setdefault(name, []).append(library.get_asm_str())
    return code


def instructions(text: str, target: Target) -> list[str]:
    """The instructions of an assembly, and its labels, which end with a colon."""
    lines = (line.split(target.dialect.comment)[0].strip() for line in text.splitlines())
    return [line for line in lines if line and (line[0] != "." or line[-1] == ":")]


def innermost_loops(text: str, target: Target) -> list[list[str]]:
    """The instructions of every loop that contains no other loop, with all its branches."""
    blocks, successors, entries = _flow(text, target)
    predecessors = [[] for _ in blocks]
    for block, following in enumerate(successors):
        for after in following:
            predecessors[after].append(block)
    entries |= {block for block, before in enumerate(predecessors) if not before}
    dominators = _dominators(predecessors, entries)
    bodies = {}
    for block, following in enumerate(successors):
        for head in following:
            if dominators[block] >> head & 1:  # a jump back to where every way to here begins: a loop
                body, todo = bodies.setdefault(head, {head}), [block]
                while todo:
                    if (inside := todo.pop()) not in body:
                        body.add(inside)
                        todo += predecessors[inside]
    return [
        [line for block in sorted(body) for line in blocks[block]]
        for body in bodies.values()
        if len(body & bodies.keys()) == 1
    ]


def _flow(text, target):
    """Basic blocks in their order, for each those that follow it, and those with which a function begins."""
    blocks, labels, entries = [[]], {}, {0}
    jump, end = re.compile(target.dialect.jump), re.compile(target.dialect.end)
    for line in instructions(text, target):
        if line.endswith(":"):
            if blocks[-1]:
                blocks.append([])
            labels[line[:-1]] = len(blocks) - 1
            if not line.startswith(".L"):
                entries.add(len(blocks) - 1)
        else:
            blocks[-1].append(line)
            if jump.match(line) or end.match(line):
                blocks.append([])
    successors = []
    for number, block in enumerate(blocks):
        last, following = block[-1] if block else "", []
        if jump.match(last) and last.split()[-1].startswith(".L"):
            following.append(labels[last.split()[-1]])
        if not end.match(last) and number + 1 < len(blocks) and number + 1 not in entries:
            following.append(number + 1)
        successors.append(following)
    return blocks, successors, entries


def _dominators(predecessors, entries):
    """For each block, as bits, the blocks that every way to it leads through."""
    dominators = [1 << block if block in entries else -1 for block in range(len(predecessors))]
    changed = True
    while changed:
        changed = False
        for block, before in enumerate(predecessors):
            if block not in entries:
                through = -1
                for other in before:
                    through &= dominators[other]
                through |= 1 << block
                changed |= through != dominators[block]
                dominators[block] = through
    return dominators


if __name__ == "__main__":
    json.dump(_compile(sys.stdin.read(), sys.argv[1]), sys.stdout)
