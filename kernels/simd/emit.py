"""Helpers that write LLVM code; nothing here is called from a kernel."""

from llvmlite import ir
from numba.core import cgutils

from .kinds import Vec
from .machine import FREE_MASKS, HAS_FMA

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def widen(context, builder, vec, kinds, values):
    """Vectors stay, numbers are cast to the vector's dtype and broadcast."""
    return [
        value if isinstance(kind, Vec) else splat(builder, context.cast(builder, value, kind, vec.dtype), vec.lanes)
        for kind, value in zip(kinds, values)
    ]


def load(builder, pointer, vec):
    loaded = builder.load(builder.bitcast(pointer, vec.as_pointer()))
    loaded.align = bytes(vec)
    return loaded


def store(builder, value, pointer):
    stored = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    stored.align = bytes(value.type)


def bytes(vec):
    """Bytes of one lane."""
    if isinstance(vec.element, ir.IntType):
        return vec.element.width // 8
    return 8 if isinstance(vec.element, ir.DoubleType) else 4


def suffix(vec):
    """LLVM's name for a vector type in intrinsics, for example v16f32."""
    return f"v{vec.count}{'i' if isinstance(vec.element, ir.IntType) else 'f'}{8 * bytes(vec)}"


def call(builder, name, result, args):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [arg.type for arg in args]), name)
    return builder.call(function, args)


def fma(builder, a, b, c):
    if HAS_FMA:
        return call(builder, f"llvm.fma.{suffix(a.type)}", a.type, [a, b, c])
    # Without the instruction, llvm.fma would become a library call for every lane.
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _lanes_from(builder, value, first, count):
    """`count` neighbouring lanes, a vector of their own."""
    numbers = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), numbers)


def halved(builder, combine, value, left=1):
    """Lanes combined: the vector is halved until `left` are left, in a fixed order; one is a number."""
    count = value.type.count
    while count > left:
        count //= 2
        value = combine(builder, *(_lanes_from(builder, value, first, count) for first in (0, count)))
    return value if left > 1 else builder.extract_element(value, ir.Constant(I32, 0))


def by_vector(builder, function, vectors, *wide):
    """`function` of each of the vectors that wide ones are made of: for instructions of one register."""
    count = wide[0].type.count // vectors
    parts = [
        function(builder, *(_lanes_from(builder, value, first, count) for value in wide))
        for first in range(0, vectors * count, count)
    ]
    while len(parts) > 1:
        numbers = ir.Constant(ir.VectorType(I32, 2 * count), list(range(2 * count)))
        parts, count = [builder.shuffle_vector(a, b, numbers) for a, b in zip(parts[::2], parts[1::2])], 2 * count
    return parts[0]


def first_lanes(builder, count, lanes):
    """Mask of the lanes whose number is below `count`."""
    # In 32 bits: sixteen 64-bit numbers would take two registers and two comparisons.
    most = ir.Constant(I64, lanes)
    count = builder.trunc(builder.select(builder.icmp_signed("<", count, most), count, most), I32)
    numbers = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, splat(builder, count, lanes))


def masked_load(builder, pointer, vec, mask):
    pointer = builder.bitcast(pointer, vec.as_pointer())
    align = ir.Constant(I32, bytes(vec))
    name = f"llvm.masked.load.{suffix(vec)}.p0"
    return call(builder, name, vec, [pointer, align, mask, ir.Constant(vec, None)])


def masked_store(builder, value, pointer, mask):
    pointer = builder.bitcast(pointer, value.type.as_pointer())
    align = ir.Constant(I32, bytes(value.type))
    call(builder, f"llvm.masked.store.{suffix(value.type)}.p0", ir.VoidType(), [value, pointer, align, mask])


def load_part(builder, pointer, vec, count):
    """The first `count` lanes, the others zero. Where masks cost something, whole vectors take a branch around them."""
    if FREE_MASKS:
        return masked_load(builder, pointer, vec, first_lanes(builder, count, vec.count))
    is_whole = builder.icmp_signed(">=", count, ir.Constant(I64, vec.count))
    with builder.if_else(is_whole) as (whole, part):
        with whole:
            all_lanes, after_whole = load(builder, pointer, vec), builder.block
        with part:
            some_lanes = masked_load(builder, pointer, vec, first_lanes(builder, count, vec.count))
            after_part = builder.block
    loaded = builder.phi(vec)
    loaded.add_incoming(all_lanes, after_whole)
    loaded.add_incoming(some_lanes, after_part)
    return loaded


def store_part(builder, value, pointer, count, in_pieces=False):
    """Store the first `count` lanes, as `load_part` loads them. in_pieces : fewer than all without a mask."""
    if FREE_MASKS:
        masked_store(builder, value, pointer, first_lanes(builder, count, value.type.count))
        return
    is_whole = builder.icmp_signed(">=", count, ir.Constant(I64, value.type.count))
    with builder.if_else(is_whole) as (whole, part):
        with whole:
            store(builder, value, pointer)
        with part:
            if in_pieces:
                _store_pieces(builder, value, pointer, count)
            else:
                masked_store(builder, value, pointer, first_lanes(builder, count, value.type.count))


def _store_pieces(builder, value, pointer, count):
    """Store the first `count` lanes, fewer than all: half of them, a quarter, ... one, as the bits of `count` say.

    AVX2's stores with masks take many cycles on some processors, and other instruction sets have none. (Not everywhere:
    where a kernel has many such places, the instructions cost more. Winograd's took 1.06 times as long, on a Zen 1.)
    """
    count = builder.select(builder.icmp_signed(">", count, I64(0)), count, I64(0))
    lanes = value.type.count
    while lanes > 1:
        lanes //= 2
        low, high = (_lanes_from(builder, value, first, lanes) for first in (0, lanes))
        with builder.if_else(builder.icmp_unsigned("!=", builder.and_(count, I64(lanes)), I64(0))) as (piece, nothing):
            with piece:
                store(builder, low, pointer)
                behind, after_piece = builder.gep(pointer, [I64(lanes)], inbounds=True), builder.block
            with nothing:
                after_nothing = builder.block
        joined = []
        for stored, kept in ((high, low), (behind, pointer)):
            phi = builder.phi(kept.type)
            phi.add_incoming(stored, after_piece)
            phi.add_incoming(kept, after_nothing)
            joined.append(phi)
        value, pointer = joined
