"""Register tiles: the accumulators of a matrix product, and the square that is turned in registers."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import emit
from .kinds import Tile, Vec
from .machine import VECTOR_BYTES


def _slot(builder, tile, number):
    return builder.gep(tile, [ir.Constant(emit.I32, 0), ir.Constant(emit.I32, number)], inbounds=True)


@intrinsic(prefer_literal=True)
def tile_zeros(typingctx, like, rows, columns):
    """A tile of zeros in the dtype of the array `like`; rows and columns are constants."""
    tile = Tile(like.dtype, rows.literal_value, columns.literal_value)

    def codegen(context, builder, sig, args):
        stack = cgutils.alloca_once(builder, context.get_value_type(tile).pointee)
        zero = ir.Constant(context.get_value_type(tile.vec), None)
        for number in range(tile.rows * tile.columns):
            builder.store(zero, _slot(builder, stack, number))
        return stack

    return tile(like, rows, columns), codegen


def _tile_part(count, tile, builder):
    """For a tile of which only the first `count` columns of numbers exist: a mask for each column of vectors."""
    masks = []
    for j in range(tile.columns):
        left = builder.sub(count, ir.Constant(emit.I64, j * tile.vec.lanes))
        masks.append(emit.first_lanes(builder, left, tile.vec.lanes))
    return masks


def _row_of_vectors(context, builder, tile, pointer, masks):
    """`columns` neighbouring vectors in memory."""
    vec = context.get_value_type(tile.vec)
    loaded = []
    for j in range(tile.columns):
        place = builder.gep(pointer, [ir.Constant(emit.I64, j * tile.vec.lanes)], inbounds=True)
        loaded.append(emit.masked_load(builder, place, vec, masks[j]) if masks else emit.load(builder, place, vec))
    return loaded


def _outer(context, builder, tile, stack, scalars, b):
    """stack[i, j] += scalars[i] * b[j]"""
    for i in range(tile.rows):
        wide = emit.splat(builder, builder.load(scalars(i)), tile.vec.lanes)
        for j in range(tile.columns):
            slot = _slot(builder, stack, i * tile.columns + j)
            builder.store(emit.fma(builder, wide, b[j], builder.load(slot)), slot)


def _declare_outer(masked, gathered, text):
    """tile_outer in three forms: whole or part of the columns, with rows at a constant stride; or rows from a table."""

    def build(tile, a, where, b):
        def codegen(context, builder, sig, args):
            stack, a_value, a0 = args[:3]
            first = emit.address(context, builder, a, a_value, a0)
            if gathered:
                table = emit.address(context, builder, where, args[3], args[4])
                args = args[:3] + args[4:]
                origin = builder.ptrtoint(
                    emit.address(context, builder, a, a_value, ir.Constant(emit.I64, 0)), emit.I64
                )

                def scalars(i):
                    # Made from an integer, a row's address stays apart from the index a0 that moves. If LLVM may add
                    # a0 first, it loads all rows through that one sum at once and has no registers left for the tile.
                    offset = builder.load(builder.gep(table, [ir.Constant(emit.I64, i)], inbounds=True))
                    row = builder.add(origin, builder.mul(offset, ir.Constant(emit.I64, a.dtype.bitwidth // 8)))
                    return builder.gep(builder.inttoptr(row, first.type), [a0])
            else:

                def scalars(i):
                    return builder.gep(first, [builder.mul(args[3], ir.Constant(emit.I64, i))], inbounds=True)

            masks = _tile_part(args[6], tile, builder) if masked else None
            pointer = emit.address(context, builder, b, args[4], args[5])
            _outer(context, builder, tile, stack, scalars, _row_of_vectors(context, builder, tile, pointer, masks))
            return context.get_dummy_value()

        return codegen

    if gathered:

        def declare(typingctx, tile, a, a0, table, t0, b, b0):
            i = types.intp
            return types.void(tile, a, i, table, i, b, i), build(tile, a, table, b)
    elif masked:

        def declare(typingctx, tile, a, a0, stride, b, b0, count):
            i = types.intp
            return types.void(tile, a, i, i, b, i, i), build(tile, a, stride, b)
    else:

        def declare(typingctx, tile, a, a0, stride, b, b0):
            i = types.intp
            return types.void(tile, a, i, i, b, i), build(tile, a, stride, b)

    declare.__doc__ = text
    return intrinsic(declare)


tile_outer = _declare_outer(
    False, False, "(tile, a, a0, stride, b, b0): tile[i, :] += a[a0 + i * stride] * b[b0:], one vector FMA a register."
)
tile_outer_part = _declare_outer(
    True, False, "(tile, a, a0, stride, b, b0, count): tile_outer where only `count` numbers of b exist."
)
tile_outer_at = _declare_outer(
    False, True, "(tile, a, a0, table, t0, b, b0): tile[i, :] += a[a0 + table[t0 + i]] * b[b0:]."
)


@intrinsic
def tile_outer_rows(typingctx, tile, a, a0, stride, rows, b, b0, apart):
    """tile_outer where only `rows` rows of a exist: the last one stands in for the others.

    b's vectors lie in pairs, `apart` numbers from one pair to the next.
    """

    def codegen(context, builder, sig, args):
        stack, a_value, a0, stride, rows, b_value, b0, apart = args
        first = emit.address(context, builder, a, a_value, a0)
        last = builder.sub(rows, ir.Constant(emit.I64, 1))

        def scalars(i):
            row = ir.Constant(emit.I64, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            return builder.gep(first, [builder.mul(stride, row)], inbounds=True)

        vectors = []
        for j in range(tile.columns):
            pair = builder.add(b0, builder.mul(apart, ir.Constant(emit.I64, j // 2)))
            index = builder.add(pair, ir.Constant(emit.I64, j % 2 * tile.vec.lanes))
            place = emit.address(context, builder, b, b_value, index)
            vectors.append(emit.load(builder, place, context.get_value_type(tile.vec)))
        _outer(context, builder, tile, stack, scalars, vectors)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, a, i, i, i, b, i, i), codegen


@intrinsic(prefer_literal=True)
def tile_inner(typingctx, tile, a, a0, stride, rows, b, b0, step, part, count):
    """tile[i, j] += a[a0 + i * stride:] * b[b0 + j * step:], lane by lane.

    Of a only `rows` rows exist: the last one stands in for the others. `part` is a constant: whether only `count`
    numbers are left of each row.
    """

    def codegen(context, builder, sig, args):
        stack, a_value, a0, stride, rows, b_value, b0, step, _, count = args
        vec, last = context.get_value_type(tile.vec), builder.sub(rows, ir.Constant(emit.I64, 1))
        mask = emit.first_lanes(builder, count, tile.vec.lanes) if part.literal_value else None

        def vector(kind, array, index):
            place = emit.address(context, builder, kind, array, index)
            return emit.masked_load(builder, place, vec, mask) if mask else emit.load(builder, place, vec)

        offsets = [builder.mul(step, ir.Constant(emit.I64, j)) for j in range(tile.columns)]
        columns = [vector(b, b_value, builder.add(b0, offset)) for offset in offsets]
        for i in range(tile.rows):
            row = ir.Constant(emit.I64, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            wide = vector(a, a_value, builder.add(a0, builder.mul(stride, row)))
            for j, column in enumerate(columns):
                slot = _slot(builder, stack, i * tile.columns + j)
                builder.store(emit.fma(builder, wide, column, builder.load(slot)), slot)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, a, i, i, i, b, i, i, part, i), codegen


@intrinsic
def tile_sums(typingctx, tile, c, c0, stride, step, rows):
    """c[c0 + i * stride + j * step] = the sum of the lanes of tile[i, j], by halving, for i below `rows`."""

    def codegen(context, builder, sig, args):
        stack, array, c0, stride, step, rows = args
        for i in range(tile.rows):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(emit.I64, i), rows)):
                first = builder.add(c0, builder.mul(stride, ir.Constant(emit.I64, i)))
                for j in range(tile.columns):
                    lanes = builder.load(_slot(builder, stack, i * tile.columns + j))
                    total = emit.halved(builder, ir.IRBuilder.fadd, lanes)
                    index = builder.add(first, builder.mul(step, ir.Constant(emit.I64, j)))
                    builder.store(total, emit.address(context, builder, c, array, index))
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, c, i, i, i, i), codegen


@intrinsic
def tile_fill_rows(typingctx, tile, row, index, count):
    """Every row of the tile becomes row[index:index + count] (a bias, for example), zero beyond."""

    def codegen(context, builder, sig, args):
        masks = _tile_part(args[3], tile, builder)
        vectors = _row_of_vectors(context, builder, tile, emit.address(context, builder, row, *args[1:3]), masks)
        for i in range(tile.rows):
            for j in range(tile.columns):
                builder.store(vectors[j], _slot(builder, args[0], i * tile.columns + j))
        return context.get_dummy_value()

    return types.void(tile, row, types.intp, types.intp), codegen


@intrinsic
def tile_add(typingctx, tile, c, c0, stride, rows, count):
    """Add c[c0 + i * stride:][:count] to row i of the tile, for i below `rows`."""

    def codegen(context, builder, sig, args):
        stack, array, c0, stride, rows, count = args

        def add_row(i, masks):
            index = builder.add(c0, builder.mul(stride, ir.Constant(emit.I64, i)))
            pointer = emit.address(context, builder, c, array, index)
            for j, vector in enumerate(_row_of_vectors(context, builder, tile, pointer, masks)):
                slot = _slot(builder, stack, i * tile.columns + j)
                builder.store(builder.fadd(builder.load(slot), vector), slot)

        with builder.if_else(_is_whole(builder, tile, rows, count)) as (whole, part):
            with whole:
                for i in range(tile.rows):
                    add_row(i, None)
            with part:
                masks = _tile_part(count, tile, builder)
                for i in range(tile.rows):
                    with builder.if_then(builder.icmp_signed("<", ir.Constant(emit.I64, i), rows)):
                        add_row(i, masks)
        return context.get_dummy_value()

    return types.void(tile, c, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_relu(typingctx, tile):
    """tile = max(tile, 0); NaN stays NaN."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(context.get_value_type(tile.vec), None)
        for number in range(tile.rows * tile.columns):
            slot = _slot(builder, args[0], number)
            value = builder.load(slot)
            builder.store(builder.select(builder.fcmp_ordered("<", value, zero), zero, value), slot)
        return context.get_dummy_value()

    return types.void(tile), codegen


def _store_rows(context, builder, sig, args, index_of):
    """Store the tile's rows below `rows`, row i at c[index_of(i):][:count].

    A whole tile goes without masks. They are free for loads; but stores with masks, to lines that are not in the cache,
    cost a product of 2048 x 2048 a tenth of its speed (together with masks in the loop: 206 to 232 GFLOP/s without, on
    one core of a Zen 5 beside busy neighbours).
    """
    tile, c = sig.args[:2]
    stack, array, *_, rows, count = args

    def store_row(i, store):
        pointer = emit.address(context, builder, c, array, index_of(i))
        for j in range(tile.columns):
            place = builder.gep(pointer, [ir.Constant(emit.I64, j * tile.vec.lanes)], inbounds=True)
            store(builder.load(_slot(builder, stack, i * tile.columns + j)), place, left[j])

    left = [builder.sub(count, ir.Constant(emit.I64, j * tile.vec.lanes)) for j in range(tile.columns)]

    with builder.if_else(_is_whole(builder, tile, rows, count)) as (whole, part):
        with whole:
            for i in range(tile.rows):
                store_row(i, lambda vector, place, left: emit.store(builder, vector, place))
        with part:
            for i in range(tile.rows):
                with builder.if_then(builder.icmp_signed("<", ir.Constant(emit.I64, i), rows)):
                    store_row(i, lambda vector, place, left: emit.store_part(builder, vector, place, left, True))
    return context.get_dummy_value()


def _stream_rows(context, builder, sig, args, index_of):
    """Store the tile's rows below `rows` past the caches, row i at c[index_of(i):]."""
    tile, c = sig.args[:2]
    stack, array, *_, rows = args
    hint = builder.module.add_metadata([ir.Constant(emit.I32, 1)])
    for i in range(tile.rows):
        with builder.if_then(builder.icmp_signed("<", ir.Constant(emit.I64, i), rows)):
            pointer = emit.address(context, builder, c, array, index_of(i))
            for j in range(tile.columns):
                vector = builder.load(_slot(builder, stack, i * tile.columns + j))
                target = builder.gep(pointer, [ir.Constant(emit.I64, j * tile.vec.lanes)], inbounds=True)
                stored = builder.store(vector, builder.bitcast(target, vector.type.as_pointer()))
                stored.align = VECTOR_BYTES
                stored.set_metadata("nontemporal", hint)
    return context.get_dummy_value()


def _is_whole(builder, tile, rows, count):
    """Whether all rows and columns of the tile exist."""
    all_rows = builder.icmp_signed(">=", rows, ir.Constant(emit.I64, tile.rows))
    all_columns = builder.icmp_signed(">=", count, ir.Constant(emit.I64, tile.columns * tile.vec.lanes))
    return builder.and_(all_rows, all_columns)


@intrinsic
def tile_store(typingctx, tile, c, c0, stride, rows, count):
    """c[c0 + i * stride:][:count] = row i of the tile, for i below `rows`."""

    def codegen(context, builder, sig, args):
        c0, stride = args[2:4]
        return _store_rows(
            context, builder, sig, args, lambda i: builder.add(c0, builder.mul(stride, ir.Constant(emit.I64, i)))
        )

    return types.void(tile, c, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_store_at(typingctx, tile, c, c0, table, t0, rows, count):
    """c[c0 + table[t0 + i]:][:count] = row i of the tile, for i below `rows`."""

    def codegen(context, builder, sig, args):
        c0, places = args[2], emit.address(context, builder, table, *args[3:5])

        def index_of(i):
            return builder.add(c0, builder.load(builder.gep(places, [ir.Constant(emit.I64, i)], inbounds=True)))

        return _store_rows(context, builder, sig, args, index_of)

    return types.void(tile, c, types.intp, table, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_stream_at(typingctx, tile, c, c0, table, t0, rows):
    """`tile_store_at` past the caches, for more than they hold: the memory is not read first, as it is for a store.

    Every column exists, and every vector starts on a multiple of its size.
    """

    def codegen(context, builder, sig, args):
        places = emit.address(context, builder, table, *args[3:5])

        def index_of(i):
            return builder.add(args[2], builder.load(builder.gep(places, [ir.Constant(emit.I64, i)], inbounds=True)))

        return _stream_rows(context, builder, sig, args, index_of)

    return types.void(tile, c, types.intp, table, types.intp, types.intp), codegen


@intrinsic
def tile_stream(typingctx, tile, c, c0, stride, rows):
    """`tile_store` past the caches, as `tile_stream_at`."""

    def codegen(context, builder, sig, args):
        c0, stride = args[2:4]
        return _stream_rows(
            context, builder, sig, args, lambda i: builder.add(c0, builder.mul(stride, ir.Constant(emit.I64, i)))
        )

    return types.void(tile, c, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_expect_at(typingctx, tile, c, c0, table, t0):
    """Ask for the memory that `tile_store_at` will write, so that it is in the cache when the tile is done."""

    def codegen(context, builder, sig, args):
        _, array, c0, table_value, t0 = args
        places = emit.address(context, builder, table, table_value, t0)
        for i in range(tile.rows):
            index = builder.add(c0, builder.load(builder.gep(places, [ir.Constant(emit.I64, i)], inbounds=True)))
            for j in range(tile.columns):
                place = builder.add(index, ir.Constant(emit.I64, j * tile.vec.lanes))
                pointer = builder.bitcast(emit.address(context, builder, c, array, place), ir.IntType(8).as_pointer())
                # For writing, to be kept in every level, data.
                hints = [ir.Constant(emit.I32, hint) for hint in (1, 3, 1)]
                emit.call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])
        return context.get_dummy_value()

    return types.void(tile, c, types.intp, table, types.intp), codegen


@intrinsic
def transpose_block(typingctx, source, s0, stride, rows, target, t0, step, count):
    """target[t0 + k * step + i] = source[s0 + i * stride + k] for k below the number of lanes and i below `count`.

    A square of vectors is turned in registers by log2(lanes) rounds of pairwise shuffles. Rows from `rows` on are not
    read: the last one stands in for them.
    """
    vec = Vec(source.dtype)

    def codegen(context, builder, sig, args):
        array, s0, stride, rows, out, t0, step, count = args
        last = builder.sub(rows, ir.Constant(emit.I64, 1))
        vectors = []
        for i in range(vec.lanes):
            row = ir.Constant(emit.I64, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            pointer = emit.address(context, builder, source, array, builder.add(s0, builder.mul(stride, row)))
            vectors.append(emit.load(builder, pointer, context.get_value_type(vec)))
        _transpose(builder, vectors)

        def place(k):
            index = builder.add(t0, builder.mul(step, ir.Constant(emit.I64, k)))
            return emit.address(context, builder, target, out, index)

        is_whole = builder.icmp_signed(">=", count, ir.Constant(emit.I64, vec.lanes))
        with builder.if_else(is_whole) as (whole, part):
            with whole:
                for k in range(vec.lanes):
                    emit.store(builder, vectors[k], place(k))
            with part:
                for k in range(vec.lanes):
                    emit.store_part(builder, vectors[k], place(k), count, in_pieces=True)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, i, target, i, i, i), codegen


def _transpose(builder, vectors):
    """Turn a square of vectors in place: in each round, rows `distance` apart swap their off-diagonal blocks."""
    count, distance = len(vectors), 1
    while distance < count:
        low = [lane if not lane & distance else lane - distance + count for lane in range(count)]
        high = [lane + distance if not lane & distance else lane + count for lane in range(count)]
        kind = ir.VectorType(emit.I32, count)
        for i in range(count):
            if not i & distance:
                pair = vectors[i], vectors[i + distance]
                vectors[i] = builder.shuffle_vector(*pair, ir.Constant(kind, low))
                vectors[i + distance] = builder.shuffle_vector(*pair, ir.Constant(kind, high))
        distance *= 2
