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

    launch(chunks, work, *args) -> drive(chunks, parallel, args)      compiled once a kernel, small
                                     -> _each_chunk_in_parallel        compiled once, the only parallel loop
                                          -> unpack(chunk, block) -> kernel(chunk, *args)
"""

import os
import threading

from llvmlite import ir
from numba import get_num_threads, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import jit

# Work, in floating-point operations or elements touched, from which threads pay.
THREADS_PAY = 1_000_000

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


@intrinsic
def _unpacker(typingctx, kernel, args):
    """The address of a function f(chunk, block) that calls kernel(chunk, *args), args being the tuple in the block."""
    sig = kernel.get_call_type(typingctx, (types.intp, *args.types), {})

    def codegen(context, builder, _, values):
        compiled = kernel.dispatcher.get_compile_result(sig)
        context.add_linking_libs([compiled.library])
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        unpack = ir.Function(builder.module, kind, f"unpack.{compiled.fndesc.mangled_name}")
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
        return builder.ptrtoint(unpack, _I64)

    return types.intp(kernel, args), codegen


@intrinsic
def _call(typingctx, function, chunk, block):
    """Call a function by its address."""

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@jit(parallel=True, inner=True)
def _each_chunk_in_parallel(chunks, function, block):
    for chunk in prange(chunks):
        _call(function, chunk, block)


def threaded(kernel):
    """A function launch(chunks, work, *args) that runs kernel(0, *args) ... kernel(chunks - 1, *args).

    work : about how many arithmetic operations all chunks need together; below THREADS_PAY they run one after another.
    `launch.in_turn(chunks, *args)` always does that.
    """
    kernel.targetoptions["no_cpython_wrapper"] = True

    @jit(name=f"{kernel.py_func.__module__}.{kernel.py_func.__qualname__}-drive")
    def drive(chunks, parallel, *args):
        function, block = _unpacker(kernel, args), _block_of(args)
        if parallel:
            _each_chunk_in_parallel(chunks, function, block)
        else:
            for chunk in range(chunks):
                _call(function, chunk, block)

    def launch(chunks, work, *args):
        if chunks > 1 and work >= THREADS_PAY and not _forked and get_num_threads() > 1 and _region.acquire(False):
            try:
                drive(chunks, True, *args)
            finally:
                _region.release()
        else:
            drive(chunks, False, *args)

    def in_turn(chunks, *args):
        drive(chunks, False, *args)

    launch.kernel, launch.in_turn = kernel, in_turn
    return launch
