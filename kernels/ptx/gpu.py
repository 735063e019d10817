"""The instructions on a GPU: LLVM loads and stores in the right address space, and inline PTX."""

# libdevice's, for the dtype they are called with
from math import erf, erfc, exp, expm1, log, log1p, sqrt, tanh  # noqa: F401

from llvmlite import ir
from numba import types
from numba.core.errors import RequireLiteralValue
from numba.cuda.extending import intrinsic
from numba.cuda.typing import signature

F32, I32, I64, VOID = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.VoidType()
GLOBAL, SHARED = 1, 3  # address spaces
VECTOR, PAIR = 16, 8  # bytes


def _element(context, builder, kind, memory, index, index_type):
    """The address of memory[index] in its address space. A pointer means global memory, an array shared memory."""
    if index.type.width < 64:
        index = builder.sext(index, I64) if index_type.signed else builder.zext(index, I64)
    pointer = memory if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, memory).data
    pointer = builder.gep(pointer, [index])
    space = GLOBAL if isinstance(kind, types.CPointer) else SHARED
    return builder.addrspacecast(pointer, ir.PointerType(pointer.type.pointee, space))


def _as_vector(context, builder, kind, pointer, size=VECTOR):
    count = size * 8 // kind.dtype.bitwidth
    vector = ir.VectorType(context.get_data_type(kind.dtype), count)
    return builder.bitcast(pointer, ir.PointerType(vector, pointer.type.addrspace)), vector


@intrinsic
def load(typingctx, memory, index):
    """memory[index]"""

    def codegen(context, builder, sig, args):
        return builder.load(_element(context, builder, memory, *args, sig.args[1]))

    return signature(memory.dtype, memory, index), codegen


@intrinsic
def store(typingctx, memory, index, value):
    """memory[index] = value"""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _element(context, builder, memory, *args[:2], sig.args[1]))
        return context.get_dummy_value()

    return signature(types.void, memory, index, memory.dtype), codegen


@intrinsic
def load4(typingctx, memory, index):
    """The 16 bytes from memory[index] on, which must start on a multiple of 16, as a tuple."""

    def codegen(context, builder, sig, args):
        pointer, vector = _as_vector(context, builder, memory, _element(context, builder, memory, *args, sig.args[1]))
        loaded = builder.load(pointer)
        loaded.align = VECTOR
        numbers = [builder.extract_element(loaded, ir.Constant(I32, i)) for i in range(vector.count)]
        return context.make_tuple(builder, sig.return_type, numbers)

    count = VECTOR * 8 // memory.dtype.bitwidth
    return signature(types.UniTuple(memory.dtype, count), memory, index), codegen


@intrinsic
def store4(typingctx, memory, index, values):
    """The tuple's 16 bytes to memory[index] and after."""

    def codegen(context, builder, sig, args):
        pointer, vector = _as_vector(
            context, builder, memory, _element(context, builder, memory, *args[:2], sig.args[1])
        )
        packed = ir.Constant(vector, ir.Undefined)
        for i in range(vector.count):
            packed = builder.insert_element(packed, builder.extract_value(args[2], i), ir.Constant(I32, i))
        if memory.dtype.bitwidth < 32:  # LLVM would make two accesses of eight numbers
            words = builder.bitcast(packed, ir.VectorType(I32, 4))
            words = [builder.extract_element(words, ir.Constant(I32, i)) for i in range(4)]
            space = "global" if pointer.type.addrspace == GLOBAL else "shared"
            text = f"st.{space}.v4.b32 [$0], {{$1,$2,$3,$4}};"
            constraint = "l,r,r,r,r,~{memory}"
            _asm(builder, VOID, [builder.ptrtoint(pointer, I64), *words], text, constraint)
            return context.get_dummy_value()
        builder.store(packed, pointer).align = VECTOR
        return context.get_dummy_value()

    count = VECTOR * 8 // memory.dtype.bitwidth
    return signature(types.void, memory, index, types.UniTuple(memory.dtype, count)), codegen


@intrinsic
def store2(typingctx, memory, index, values):
    """The tuple's 8 bytes, two numbers of 32 bits, to memory[index] and after; they must start on a multiple of 8."""

    def codegen(context, builder, sig, args):
        address = _element(context, builder, memory, *args[:2], sig.args[1])
        pointer, vector = _as_vector(context, builder, memory, address, PAIR)
        packed = ir.Constant(vector, ir.Undefined)
        for i in range(2):
            packed = builder.insert_element(packed, builder.extract_value(args[2], i), ir.Constant(I32, i))
        builder.store(packed, pointer).align = PAIR
        return context.get_dummy_value()

    return signature(types.void, memory, index, types.UniTuple(memory.dtype, 2)), codegen


def _asm(builder, result, args, text, constraints, *, volatile=True, convergent=False):
    """Inline PTX: `$0` and so on are operands, the outputs first. `convergent`: all lanes of a warp must meet in it."""
    result = ir.LiteralStructType(result) if isinstance(result, list) else result
    kind = ir.FunctionType(result, [arg.type for arg in args])
    assembly = ir.InlineAsm(kind, text, constraints, side_effect=volatile)
    return builder.call(assembly, args, attrs=("convergent",) if convergent else ())


@intrinsic
def copy_async(typingctx, shared, to, memory, index, count):
    """16 bytes from memory[index] to shared[to], later: the first `count` bytes are read, zeros stand for the rest."""

    def codegen(context, builder, sig, args):
        target = builder.ptrtoint(_element(context, builder, shared, *args[:2], sig.args[1]), I32)
        source = builder.ptrtoint(_element(context, builder, memory, *args[2:4], sig.args[3]), I64)
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        _asm(builder, VOID, [target, source, args[4]], text, "r,l,r,~{memory}")
        return context.get_dummy_value()

    return signature(types.void, shared, to, memory, index, types.int32), codegen


def _order(ptx, text, convergent=False):
    """An instruction without operands."""

    def declare(typingctx):
        def codegen(context, builder, sig, args):
            _asm(builder, VOID, [], f"{ptx};", "~{memory}", convergent=convergent)
            return context.get_dummy_value()

        return signature(types.void), codegen

    declare.__doc__ = text
    return intrinsic(declare)


def _wait(ptx, text, convergent=False):
    """One whose operand is a constant: how many groups may be left."""

    def declare(typingctx, groups):
        if not isinstance(groups, types.IntegerLiteral):
            raise RequireLiteralValue(groups)

        def codegen(context, builder, sig, args):
            _asm(builder, VOID, [], f"{ptx} {groups.literal_value};", "~{memory}", convergent=convergent)
            return context.get_dummy_value()

        return signature(types.void, groups), codegen

    declare.__doc__ = text
    return intrinsic(declare)


copy_async_commit = _order("cp.async.commit_group", "The copies so far are a group.")
copy_async_wait = _wait(
    "cp.async.wait_group", "Wait until at most `groups` (a constant) of this thread's groups are under way."
)


def _ldmatrix(suffix, text):
    def declare(typingctx, shared, index):
        def codegen(context, builder, sig, args):
            address = builder.ptrtoint(_element(context, builder, shared, *args, sig.args[1]), I32)
            ptx = f"ldmatrix.sync.aligned.m8n8.x4{suffix}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
            four = _asm(builder, [I32] * 4, [address], ptx, "=r,=r,=r,=r,r,~{memory}", convergent=True)
            return context.make_tuple(builder, sig.return_type, [builder.extract_value(four, i) for i in range(4)])

        return signature(types.UniTuple(types.uint32, 4), shared, index), codegen

    declare.__doc__ = text
    return intrinsic(declare)


ldmatrix_x4 = _ldmatrix(
    "", "Four 8 x 8 matrices of 16-bit numbers from shared memory: lane l names row l % 8 of matrix l // 8."
)
ldmatrix_x4_transposed = _ldmatrix(".trans", "`ldmatrix_x4`, each matrix transposed on the way.")


def _mma(instruction, text):
    def declare(typingctx, a, b, c):
        def codegen(context, builder, sig, args):
            operands = [builder.extract_value(arg, i) for arg, n in zip(args, (4, 2, 4)) for i in range(n)]
            ptx = f"mma.sync.aligned.{instruction} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
            constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
            # Not volatile: a function of its operands alone, which may be moved.
            four = _asm(builder, [F32] * 4, operands, ptx, constraints, volatile=False, convergent=True)
            return context.make_tuple(builder, sig.return_type, [builder.extract_value(four, i) for i in range(4)])

        bits, floats = types.uint32, types.UniTuple(types.float32, 4)
        return signature(floats, types.UniTuple(bits, 4), types.UniTuple(bits, 2), floats), codegen

    declare.__doc__ = text
    return intrinsic(declare)


mma_tf32 = _mma("m16n8k8.row.col.f32.tf32.tf32.f32", "A warp's c + a b for 16 x 8 times 8 x 8, in TF32.")
mma_bf16 = _mma("m16n8k16.row.col.f32.bf16.bf16.f32", "A warp's c + a b for 16 x 16 times 16 x 8, in bfloat16.")


# Products of warpgroups. The operands' layout in shared memory, of which a descriptor says where it begins and how far
# apart its pieces are, in units of 16 bytes: PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout".

WGMMA_SUMS = 128  # of each thread: 64 x 256 of 128 threads
SWIZZLED = 1 << 62  # chunks trade places within 128 bytes
# From eight rows to the next; where rows are terms, from 64 numbers of each to the next 64 too. (Else unused, and 1.)
ROWS_APART, BLOCKS_APART = 8 * 128 >> 4, 64 * 128 >> 4


def _descriptor(builder, address, along):
    start = builder.and_(builder.ptrtoint(address, I64), ir.Constant(I64, 0x3FFFF))
    start = builder.lshr(start, ir.Constant(I64, 4))
    return builder.or_(start, ir.Constant(I64, SWIZZLED | ROWS_APART << 32 | (1 if along else BLOCKS_APART) << 16))


@intrinsic
def wgmma_bf16(typingctx, acc, shared, a, b, a_along, b_along):
    """A warpgroup's acc += A B, 64 x 16 times 16 x 256 in bfloat16, later: A and B begin at shared[a] and shared[b].

    `along` (constants): a row of 64 numbers holds the terms of one row of A, or column of B; else one term of 64 of
    them. Chunk c (of eight numbers) of row r lies in place c ^ r % 8, and where rows are terms, the next 64 rows or
    columns come 64 terms later. A begins on 1024 bytes, or within such a row on a whole 16 terms; so does B.

    Of each warp's 16 rows of C, lane l has the pairs l % 4 of rows l // 4 and l // 4 + 8, in `acc` for eight columns
    after the other.
    """
    for along in (a_along, b_along):
        if not isinstance(along, types.Literal):
            raise RequireLiteralValue(along)

    def codegen(context, builder, sig, args):
        sums = context.make_array(acc)(context, builder, args[0]).data
        sums = [builder.gep(sums, [ir.Constant(I64, i)]) for i in range(WGMMA_SUMS)]
        descriptors = [
            _descriptor(builder, _element(context, builder, shared, args[1], at, kind), along.literal_value)
            for at, kind, along in zip(args[2:4], sig.args[2:4], (a_along, b_along))
        ]
        turned = ", ".join(str(int(not along.literal_value)) for along in (a_along, b_along))
        results = ", ".join(f"${i}" for i in range(WGMMA_SUMS))
        ptx = (
            "{ .reg .pred %add; setp.eq.b32 %add, 0, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
            f"{{{results}}}, ${2 * WGMMA_SUMS}, ${2 * WGMMA_SUMS + 1}, %add, 1, 1, {turned}; }}"
        )
        # The sums go in where they come out. Volatile and told to touch memory: it stays between fence and wait.
        constraints = ",".join([*["=f"] * WGMMA_SUMS, *map(str, range(WGMMA_SUMS)), "l", "l", "~{memory}"])
        operands = [*map(builder.load, sums), *descriptors]
        added = _asm(builder, [F32] * WGMMA_SUMS, operands, ptx, constraints, convergent=True)
        for i, to in enumerate(sums):
            builder.store(builder.extract_value(added, i), to)
        return context.get_dummy_value()

    return signature(types.void, acc, shared, a, b, a_along, b_along), codegen


wgmma_fence = _order("wgmma.fence.sync.aligned", "Before a group: `acc` is as it was left.", convergent=True)
wgmma_commit = _order("wgmma.commit_group.sync.aligned", "The products so far are a group.", convergent=True)
wgmma_wait = _wait(
    "wgmma.wait_group.sync.aligned", "Wait until at most `groups` (a constant) groups of products are under way.",
    convergent=True,
)  # fmt: skip
fence_async = _order(
    "fence.proxy.async.shared::cta", "What this thread has put into shared memory, products of warpgroups may read."
)


@intrinsic
def multiply_high(typingctx, a, b):
    """The upper 32 bits of a product of two uint32."""

    def codegen(context, builder, sig, args):
        return _asm(builder, I32, list(args), "mul.hi.u32 $0, $1, $2;", "=r,r,r", volatile=False)

    return signature(types.uint32, types.uint32, types.uint32), codegen


@intrinsic
def shift_right(typingctx, a, b):
    """a >> b of uint32, which Numba makes 64 bits of; b is below 32."""

    def codegen(context, builder, sig, args):
        return builder.lshr(*args)

    return signature(types.uint32, types.uint32, types.uint32), codegen


@intrinsic
def larger(typingctx, a, b):
    """The larger one of two float32 or float64; where one is NaN, the other one."""

    def codegen(context, builder, sig, args):
        kind, constraints = (F32, "=f,f,f") if a == types.float32 else (ir.DoubleType(), "=d,d,d")
        return _asm(builder, kind, list(args), f"max.f{a.bitwidth} $0, $1, $2;", constraints, volatile=False)

    return signature(a, a, a), codegen


@intrinsic
def to_tf32(typingctx, x):
    """The bits of x rounded to TF32: eight bits of exponent, ten of mantissa."""

    def codegen(context, builder, sig, args):
        return _asm(builder, I32, [args[0]], "cvt.rna.tf32.f32 $0, $1;", "=r,f", volatile=False)

    return signature(types.uint32, types.float32), codegen


@intrinsic
def to_bf16(typingctx, x):
    """The bits of x rounded to bfloat16, the upper half of a float32: to the nearest, of two the even one."""

    def codegen(context, builder, sig, args):
        return _asm(builder, ir.IntType(16), [args[0]], "cvt.rn.bf16.f32 $0, $1;", "=h,f", volatile=False)

    return signature(types.uint16, types.float32), codegen


@intrinsic
def from_bf16(typingctx, bits):
    """The float32 with a bfloat16's bits."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(builder.shl(builder.zext(args[0], I32), ir.Constant(I32, 16)), F32)

    return signature(types.float32, types.uint16), codegen


@intrinsic
def as_float(typingctx, bits):
    """The float32 with these 32 bits."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], F32)

    return signature(types.float32, types.uint32), codegen
