"""No kernel computes with what happens to lie in memory, not even in lanes whose results nobody wants: where these are
denormal numbers, an instruction may take tens of times as long.

An x86 processor notes in its register MXCSR that an operand was denormal. So fresh arrays, scratch memory and the stack
are filled with such numbers before every case of the contract, forward and backward, on one thread.
"""

import functools
import platform

import numpy as np
import pytest
from harness import arrays, flat, load_cases, run_backward
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from handloom import kernels
from handloom.kernels import threads, workspace
from handloom.kernels.jit import jit
from handloom.kernels.simd import lanes, stack_array, vfill, viewed, vstore

CASES = {}
for case in load_cases():
    CASES.setdefault(getattr(kernels, case.op).__module__, []).append(case)
FLAGS, DENORMAL = 0x3F, 0x02
STACK_BYTES = 1 << 20


@functools.cache
def control_register(access):
    """A function of an address, to which it stores MXCSR, or from where it loads it."""

    @intrinsic
    def instruction(typingctx, address):
        def codegen(context, builder, sig, args):
            pointer = ir.IntType(8).as_pointer()
            function = builder.module.declare_intrinsic(access, (), ir.FunctionType(ir.VoidType(), [pointer]))
            builder.call(function, [builder.inttoptr(args[0], pointer)])
            return context.get_dummy_value()

        return types.void(types.intp), codegen

    @jit(name=f"{__name__}.{access}")
    def call(address):
        instruction(address)

    return call


@jit
def fill_stack(x):
    room = viewed(stack_array(np.uint8, STACK_BYTES), x)
    for i in range(0, STACK_BYTES // 4, lanes(x)):
        vstore(room, i, vfill(x, 0.0) + x[0])
    return room[x.size]


def fill(array):
    """With denormals, put there as integers."""
    if array.dtype.kind == "f":
        array.reshape(-1).view(f"i{array.itemsize}")[...] = 70_000
    return array


def filled(make):
    return lambda *args, **kwargs: fill(make(*args, **kwargs))


@pytest.fixture
def denormals_met(monkeypatch):
    """A function: whether an operand was denormal in a call, before which all memory was filled with denormals."""
    if platform.machine() != "x86_64":
        pytest.skip(f"{platform.machine()} keeps no such flag where it could be read")
    store, load = (control_register(f"llvm.x86.sse.{name}mxcsr") for name in ("st", "ld"))
    register, leftover = np.zeros(1, np.uint32), fill(np.zeros(64, np.float32))
    monkeypatch.setattr(np, "empty", filled(np.empty))
    monkeypatch.setattr(np, "empty_like", filled(np.empty_like))
    monkeypatch.setattr(threads, "_forked", True)  # all in this thread
    monkeypatch.setattr(workspace, "_local", workspace.threading.local())

    def met(call):
        workspace._local.buffers = {}
        fill_stack(leftover)
        store(register.ctypes.data)
        register[0] &= ~np.uint32(FLAGS)
        load(register.ctypes.data)
        call()
        store(register.ctypes.data)
        return bool(register[0] & DENORMAL)

    return met


def test_a_denormal_operand_is_noticed(denormals_met):
    x = np.full(5, 1e-40, np.float32)
    kernels.relu(x)
    assert denormals_met(lambda: kernels.relu(x) * 2)
    x[:] = 1
    assert not denormals_met(lambda: kernels.relu(x) * 2)


@pytest.mark.parametrize(
    "module", [pytest.param(module, marks=pytest.mark.xdist_group(f"{module}-float32")) for module in sorted(CASES)]
)
def test_no_case_meets_what_nobody_wrote(module, denormals_met):
    found = []
    for case in CASES[module]:
        if "wide-range" in case.id:  # whose own numbers are so small
            continue
        found += [f"{case} {name}" for name, call in passes(case).items() if denormals_met(call)]
    assert not found


def passes(case):
    """What computes a case, forward and backward, in the variant that the operation chooses; compiled, which is
    arithmetic as well."""
    given, options = arrays(case, "float32"), case.options
    if case.variants is not None:
        *_, variant = (name for name in kernels.VARIANTS[case.op]["cpu"] if name in case.variants)
        options = {**options, "variant": variant}
    op = getattr(kernels, f"{case.op}_forward" if case.wrt else case.op)
    calls = {"forward": lambda: op(*given.values(), **options)}
    results = calls["forward"]()
    if case.wrt:
        outputs, saved = results
        douts = [np.full(np.shape(y), 0.5, np.asarray(y).dtype) for y in flat(outputs)]
        calls["backward"] = lambda: run_backward(case, douts, saved)
        calls["backward"]()
    return calls
