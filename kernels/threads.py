"""Running a kernel over chunks: on the threads of Numba's pool, or one after another.

A kernel is a serial function over one chunk, `kernel(chunk, *args)`; `threaded(kernel)` runs it for all of them. The
arithmetic of a chunk and the number of chunks never depend on the number of threads, so the results are the same bits
for any of them.

Chunks run one after another where threads do not pay (little work: a parallel region costs 2 microseconds warm, and
up to milliseconds when its threads have fallen asleep), in a child process after a fork (OpenMP's threads do not
survive one), and while another Python thread is inside a parallel region (not every threading layer can be entered
twice).

Numba takes half a second and more to compile a parallel loop, and copies everything the loop calls into it. So there
is one such loop for all kernels: it calls the kernel by its address, and the arguments wait for it in a block of
memory on the caller's stack.

    launch(chunks, work, *args) -> drive(rounds, chunks, how, *args)   compiled once a kernel, small
                                     -> _each_chunk_in_parallel         compiled once, the only parallel loop
                                          -> unpack(chunk, block) -> kernel(chunk, *args)

Such a block may also be kept: `keep(drive, args)` writes it to memory of its own, and `run_kept` runs any number of
kept launches in one call (recording.py).
"""

import os
import threading

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import jit

# Work, in floating-point operations or elements touched, from which threads pay.
THREADS_PAY = 1_000_000
# Room for what a kept launch needs.
KEPT_BYTES = 4096
# How `drive` runs the chunks; other numbers are the address where it shall keep the launch.
IN_TURN, IN_PARALLEL = 0, 1

# While launches are recorded, who is told of them (recording.py).
recorder = None

_region = threading.Lock()
_forked = False


def _after_fork() -> None:
    global _forked, _region
    _forked, _region = True, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

_I64 = ir.IntType(64)


@intrinsic
def _block_of(typingctx, args):
    """The address of a copy of a tuple on the stack."""

    def codegen(context, builder, sig, values):
        return builder.ptrtoint(cgutils.alloca_once_value(builder, values[0]), _I64)

    return types.intp(args), codegen


def _signature(typingctx, kernel, args):
    return kernel.get_call_type(typingctx, (types.intp, *args.types), {})


def _unpacking_function(context, builder, kernel, args, sig):
    """The address of a function f(chunk, block) that calls kernel(chunk, *args), args being the tuple in the block."""
    compiled = kernel.dispatcher.get_compile_result(sig)
    context.add_linking_libs([compiled.library])
    kind = ir.FunctionType(ir.VoidType(), [_I64, _I64])
    name = f"unpack.{compiled.fndesc.mangled_name}"
    if name not in builder.module.globals:
        unpack = ir.Function(builder.module, kind, name)
        unpack.linkage = "internal"
        body = ir.IRBuilder(unpack.append_basic_block())
        chunk, block = unpack.args
        tuple_type = context.get_value_type(args)
        tuple_value = body.load(body.inttoptr(block, tuple_type.as_pointer()))
        unpacked = [body.extract_value(tuple_value, i) for i in range(len(args.types))]
        callee = context.declare_function(builder.module, compiled.fndesc)
        argtypes = compiled.fndesc.argtypes
        context.call_conv.call_function(body, callee, compiled.fndesc.restype, argtypes, [chunk, *unpacked])
        body.ret_void()
    return builder.ptrtoint(builder.module.globals[name], _I64)


@intrinsic
def _unpacker(typingctx, kernel, args):
    """`_unpacking_function` in compiled code."""
    sig = _signature(typingctx, kernel, args)

    def codegen(context, builder, _, values):
        return _unpacking_function(context, builder, kernel, args, sig)

    return types.intp(kernel, args), codegen


@intrinsic
def _call(typingctx, function, chunk, block):
    """Call a function by its address."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@intrinsic
def _store(typingctx, memory, kernel, args):
    """Write what a launch needs to an address: the unpacking function's own, and after 16 bytes the block.

    The block's arrays lose their owner, an object that dies with the call that made it: whoever keeps the block keeps
    the arrays.
    """

    def disowned(context, builder, kind, value):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, value)
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()
        if isinstance(kind, types.BaseTuple):
            for i, part in enumerate(kind.types):
                item = disowned(context, builder, part, builder.extract_value(value, i))
                value = builder.insert_value(value, item, i)
        return value

    called = _signature(typingctx, kernel, args)

    def codegen(context, builder, sig, values):
        address, _, block = values
        kind = context.get_value_type(args)
        if 16 + context.get_abi_sizeof(kind) > KEPT_BYTES:
            raise NotImplementedError(f"a launch's arguments take more than {KEPT_BYTES} bytes: {args}")
        function = _unpacking_function(context, builder, kernel, args, called)
        builder.store(function, builder.inttoptr(address, _I64.as_pointer()))
        target = builder.inttoptr(builder.add(address, _I64(16)), kind.as_pointer())
        builder.store(disowned(context, builder, args, block), target)
        return context.get_dummy_value()

    return types.void(types.intp, kernel, args), codegen


@jit(parallel=True, inner=True)
def _each_chunk_in_parallel(first, end, function, block):
    for chunk in prange(first, end):
        _call(function, chunk, block)


@jit(inline=True)
def _round_after_round(rounds, chunks, parallel, function, block):
    if parallel:
        for r in range(rounds):
            _each_chunk_in_parallel(r * chunks, (r + 1) * chunks, function, block)
    else:
        for chunk in range(rounds * chunks):
            _call(function, chunk, block)


@jit
def _run_kept(launches, parallel):
    """Launch after launch: each row is (function, block, rounds, chunks, whether threads pay)."""
    for i in range(len(launches)):
        function, block, rounds, chunks = launches[i, 0], launches[i, 1], launches[i, 2], launches[i, 3]
        _round_after_round(rounds, chunks, parallel and launches[i, 4] != 0, function, block)


def keep(drive, args):
    """(memory, address of the function, address of the block) of a launch that `run_kept` may run as long as the memory
    and the arrays among the arguments live."""
    memory = np.empty(KEPT_BYTES // 8, np.int64)
    address = memory.ctypes.data
    drive(0, 0, address, *args)
    return memory, int(memory[0]), address + 16


def run_kept(launches, parallel):
    """Run kept launches, rows (function, block, rounds, chunks, whether threads pay) of an int64 array, in one call.

    parallel : whether threads pay for any.
    """
    if parallel and not _forked and _region.acquire(False):
        try:
            _run_kept(launches, True)
        finally:
            _region.release()
    else:
        _run_kept(launches, False)


def threaded(kernel):
    """A function launch(chunks, work, *args) that runs kernel(0, *args) ... kernel(chunks - 1, *args).

    work : about how many arithmetic operations all chunks need together; below THREADS_PAY they run one after another.
    `launch.in_turn(chunks, *args)` always does that.

    With launch(chunks, work, *args, rounds=n) that is one round of n: kernel(chunks, *args) begins when all chunks of
    the first round are done, and so on up to kernel(n * chunks - 1, *args).
    """
    kernel.targetoptions |= {"no_cpython_wrapper": True, "_nrt": False}

    @jit(name=f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}-drive")
    def drive(rounds, chunks, how, *args):
        if how != IN_TURN and how != IN_PARALLEL:
            _store(how, kernel, args)
            return
        _round_after_round(rounds, chunks, how == IN_PARALLEL, _unpacker(kernel, args), _block_of(args))

    def launch(chunks, work, *args, rounds=1):
        parallel = chunks > 1 and work >= THREADS_PAY
        if (told := recorder) is not None:
            told.launched(drive, rounds, chunks, parallel, args)
        if parallel and not _forked and _region.acquire(False):
            try:
                drive(rounds, chunks, IN_PARALLEL, *args)
            finally:
                _region.release()
        else:
            drive(rounds, chunks, IN_TURN, *args)

    def in_turn(chunks, *args):
        if (told := recorder) is not None:
            told.launched(drive, 1, chunks, False, args)
        drive(1, chunks, IN_TURN, *args)

    launch.kernel, launch.in_turn = kernel, in_turn
    return launch
