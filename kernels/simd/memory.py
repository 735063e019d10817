"""Vectors and memory: load, store, broadcast, whole or in part, and views of memory."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from . import emit
from .kinds import Vec, Vectors, counted, integer_of
from .machine import VECTOR_BYTES


def _array_at(context, builder, dtype, data, count):
    """The type and value of a 1-D array of numbers that lie at `data`, whoever owns them."""
    kind = types.Array(dtype, 1, "C")
    element = context.get_data_type(dtype)
    size = ir.Constant(emit.I64, dtype.bitwidth // 8)
    array = context.make_array(kind)(context, builder)
    data = builder.bitcast(data, element.as_pointer())
    arrayobj.populate_array(array, data=data, shape=[count], strides=[size], itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic(prefer_literal=True)
def stack_array(typingctx, dtype, count):
    """A 1-D array on the stack, not filled: np.empty inside a kernel costs half a second to compile."""

    def codegen(context, builder, sig, args):
        # Not cgutils.alloca_once, which stores zeros there: as one value, which takes LLVM minutes for a large array.
        with builder.goto_entry_block():
            memory = builder.alloca(ir.ArrayType(context.get_data_type(dtype.dtype), count.literal_value))
        memory.align = 64  # a line of the cache: a row of a panel is one
        return _array_at(context, builder, dtype.dtype, memory, ir.Constant(emit.I64, count.literal_value))

    return types.Array(dtype.dtype, 1, "C")(dtype, count), codegen


@intrinsic
def viewed(typingctx, array, like):
    """The memory of a contiguous array as a 1-D array of `like`'s dtype (an array's), or of the dtype `like`."""

    def codegen(context, builder, sig, args):
        source = context.make_array(array)(context, builder, args[0])
        old, new = array.dtype.bitwidth, like.dtype.bitwidth
        count = builder.mul(source.nitems, ir.Constant(emit.I64, old))
        count = builder.udiv(count, ir.Constant(emit.I64, new))
        return _array_at(context, builder, like.dtype, source.data, count)

    return types.Array(like.dtype, 1, "C")(array, like), codegen


@intrinsic
def lanes(typingctx, x):
    """Lanes of a vector of x's dtype (x an array, a vector or a scalar); a constant of the compiled code."""
    count = Vec(x if isinstance(x, types.Number) else x.dtype).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(emit.I64, count)

    return types.intp(x), codegen


@intrinsic(prefer_literal=True)
def vectors(typingctx, number):
    """Where lanes are counted: all of this many vectors (a literal, a power of two), as one wide vector.

    Arithmetic on it is arithmetic on each of them, one instruction after another. What is a long chain of operations
    that wait for each other for one vector, a polynomial say, then keeps the processor busy.
    """
    kind = Vectors(number.literal_value)
    return kind(number), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def vload(typingctx, array, index):
    """The vector at array[index:index + lanes]."""
    vec = Vec(array.dtype)

    def codegen(context, builder, sig, args):
        return emit.load(builder, emit.address(context, builder, array, *args), context.get_value_type(vec))

    return vec(array, types.intp), codegen


@intrinsic
def vload_part(typingctx, array, index, count):
    """The first `count` lanes (all, where it is more) from array[index:], others zero; memory beyond is not touched.

    count : a number, or Vectors.
    """
    vec = counted(array.dtype, count)

    def codegen(context, builder, sig, args):
        pointer, kind = emit.address(context, builder, array, *args[:2]), context.get_value_type(vec)
        if isinstance(count, Vectors):
            return emit.load(builder, pointer, kind)
        return emit.load_part(builder, pointer, kind, args[2])

    return vec(array, types.intp, count if isinstance(count, Vectors) else types.intp), codegen


@intrinsic
def vstore(typingctx, array, index, value):
    """array[index:index + lanes] = value"""

    def codegen(context, builder, sig, args):
        emit.store(builder, args[2], emit.address(context, builder, array, *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vstream(typingctx, array, index, value):
    """`vstore` past the caches, at an address that the bytes of a vector divide."""

    def codegen(context, builder, sig, args):
        pointer = emit.address(context, builder, array, *args[:2])
        stored = builder.store(args[2], builder.bitcast(pointer, args[2].type.as_pointer()), align=VECTOR_BYTES)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(emit.I32, 1)]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vstore_part(typingctx, array, index, value, count):
    """Store the first `count` lanes (all, where it is more, or of Vectors); memory beyond is not touched."""

    def codegen(context, builder, sig, args):
        pointer = emit.address(context, builder, array, *args[:2])
        if isinstance(count, Vectors):
            emit.store(builder, args[2], pointer)
        else:
            emit.store_part(builder, args[2], pointer, args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, count if isinstance(count, Vectors) else types.intp), codegen


def _convert(builder, value, source, target):
    """Lanes of another width: integers are cut or extended (with zeros where unsigned), floats rounded or widened."""
    if source.bitwidth == target.bitwidth:
        return value
    vec = ir.VectorType(_lane_type(target), value.type.count)
    if isinstance(source, types.Float):
        return (builder.fpext if target.bitwidth > source.bitwidth else builder.fptrunc)(value, vec)
    if target.bitwidth < source.bitwidth:
        return builder.trunc(value, vec)
    return (builder.sext if source.signed else builder.zext)(value, vec)


def _lane_type(dtype):
    if isinstance(dtype, types.Float):
        return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()
    return ir.IntType(dtype.bitwidth)


def _as_lanes_of(like, dtype):
    """The vector with as many lanes as `like` that holds numbers of `dtype`: its integers, or its floats."""
    return Vec(integer_of(like.dtype) if isinstance(dtype, types.Integer) else like.dtype)


@intrinsic
def vload_as(typingctx, like, array, index):
    """As many numbers of the array as `like` has lanes, widened to lanes of that width (uint8 offsets, for example)."""
    vec = _as_lanes_of(like, array.dtype)

    def codegen(context, builder, sig, args):
        narrow = ir.VectorType(_lane_type(array.dtype), vec.lanes)
        loaded = emit.load(builder, emit.address(context, builder, array, *args[1:]), narrow)
        return _convert(builder, loaded, array.dtype, vec.dtype)

    return vec(like, array, types.intp), codegen


@intrinsic
def vload_as_part(typingctx, like, array, index, count):
    """The first `count` lanes of `vload_as`, the others zero; memory beyond is not touched."""
    vec = _as_lanes_of(like, array.dtype)

    def codegen(context, builder, sig, args):
        narrow = ir.VectorType(_lane_type(array.dtype), vec.lanes)
        pointer = emit.address(context, builder, array, *args[1:3])
        loaded = emit.load_part(builder, pointer, narrow, args[3])
        return _convert(builder, loaded, array.dtype, vec.dtype)

    return vec(like, array, types.intp, types.intp), codegen


@intrinsic
def vstore_as_part(typingctx, array, index, value, count):
    """The first `count` lanes, converted to the array's dtype: integers are cut to its width, floats rounded; memory
    beyond is not touched."""

    def codegen(context, builder, sig, args):
        converted = _convert(builder, args[2], value.dtype, array.dtype)
        emit.store_part(builder, converted, emit.address(context, builder, array, *args[:2]), args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), codegen


@intrinsic
def vsplat(typingctx, array, index):
    """Every lane is array[index]."""
    vec = Vec(array.dtype)

    def codegen(context, builder, sig, args):
        return emit.splat(builder, builder.load(emit.address(context, builder, array, *args)), vec.lanes)

    return vec(array, types.intp), codegen


@intrinsic
def vfill(typingctx, like, value):
    """Every lane is `value`, in the dtype of `like` (an array or a vector)."""
    vec = like if isinstance(like, Vec) else Vec(like.dtype)

    def codegen(context, builder, sig, args):
        return emit.splat(builder, context.cast(builder, args[1], value, vec.dtype), vec.lanes)

    return vec(like, value), codegen


@intrinsic
def rolled(typingctx):
    """In the body of a loop: LLVM is not to unroll it. Two steps of a tile at once would not fit in the registers."""

    def codegen(context, builder, sig, args):
        void = ir.FunctionType(ir.VoidType(), [])
        function = cgutils.get_or_insert_function(builder.module, void, "llvm.sideeffect")
        # Code that is "convergent" may not be put under a new condition, such as that of the unrolled loop's remainder.
        builder.call(function, [], attrs=("convergent",))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def expect(typingctx, array, index):
    """Ask for the memory at array[index], which will be read soon; an address beyond the array does no harm."""

    def codegen(context, builder, sig, args):
        pointer = emit.address(context, builder, array, *args)
        hints = [ir.Constant(emit.I32, hint) for hint in (0, 3, 1)]  # for reading, to be kept, data
        byte = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        emit.call(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, *hints])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@intrinsic
def at(typingctx, array, index):
    """array[index] as a scalar, without the wrap-around test of Python's indexing."""

    def codegen(context, builder, sig, args):
        return builder.load(emit.address(context, builder, array, *args))

    return array.dtype(array, types.intp), codegen
