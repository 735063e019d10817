"""Register tiles for convolutions in narrow groups: the lanes of a vector are several groups side by side.

A group is `width` lanes wide, a power of two. Lane l of a result needs the numbers of its own group one after another:

    x                a0 a1 a2 a3 b0 b1 b2 b3      two groups of four
    spread by 0      a0 a0 a0 a0 b0 b0 b0 b0      one shuffle; none where width is 1, and a broadcast where the group
    spread by 1      a1 a1 a1 a1 b1 b1 b1 b1      is the whole vector
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import emit
from .tiles import _slot


def _spread(builder, pointer, vec, width):
    """For each k: the vector at `pointer` with every lane replaced by number k of its group."""
    if width == vec.count:
        scalars = (builder.gep(pointer, [ir.Constant(emit.I64, k)], inbounds=True) for k in range(width))
        return [emit.splat(builder, builder.load(scalar), width) for scalar in scalars]
    loaded = emit.load(builder, pointer, vec)
    return _spread_loaded(builder, loaded, width)


def _spread_loaded(builder, loaded, width):
    vec = loaded.type
    if width == 1:
        return [loaded]
    picked = [[lane // width * width + k for lane in range(vec.count)] for k in range(width)]
    kind = ir.VectorType(emit.I32, vec.count)
    return [builder.shuffle_vector(loaded, loaded, ir.Constant(kind, lanes)) for lanes in picked]


@intrinsic(prefer_literal=True)
def tile_groups(typingctx, tile, width, run, x, x0, stride, w, w0):
    """tile[i, j] += sum over r < run, k < width of
    (vector j of x[x0 + (i + r) * stride:], spread by k) * vector [r, k, j] of w[w0:].

    A vector of x is loaded once for all the rows that take it: with a run of three, of taps that are neighbours, 18
    loads feed 24 multiply-adds of four rows, which otherwise want 30, and those of x are the ones that straddle lines.
    """
    count, length = width.literal_value, run.literal_value

    def codegen(context, builder, sig, args):
        stack, _, _, x_value, x0, stride, w_value, w0 = args
        vec = context.get_value_type(tile.vec)
        origin = emit.address(context, builder, w, w_value, w0)

        def weights(r, k, j):
            place = ir.Constant(emit.I64, ((r * count + k) * tile.columns + j) * vec.count)
            return emit.load(builder, builder.gep(origin, [place], inbounds=True), vec)

        for j in range(tile.columns):
            # A column's weights stay in registers for its rows.
            factors = [[weights(r, k, j) for k in range(count)] for r in range(length)]
            for place in range(tile.rows + length - 1):
                index = builder.add(x0, builder.mul(stride, ir.Constant(emit.I64, place)))
                index = builder.add(index, ir.Constant(emit.I64, j * vec.count))
                spreads = _spread(builder, emit.address(context, builder, x, x_value, index), vec, count)
                for r in range(max(0, place - tile.rows + 1), min(length, place + 1)):
                    slot = _slot(builder, stack, (place - r) * tile.columns + j)
                    total = builder.load(slot)
                    for spread, factor in zip(spreads, factors[r]):
                        total = emit.fma(builder, spread, factor, total)
                    builder.store(total, slot)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, width, run, x, i, i, w, i), codegen


@intrinsic(prefer_literal=True)
def tile_groups_inside(typingctx, tile, width, x, x0, stride, w, w0, col, step, end, count, zeros):
    """`tile_groups` where row i is column col + i * step of an image, with zeros outside [0, end) and after `count`
    numbers.

    Where all columns of vectors exist, what is outside is read from `zeros`, an array of their length. (With masks for
    each vector, 8 images of 58 x 58 x 64 with padding took 2.9 ms instead of 2.5 to 2.7, on one core of a Zen 1.)
    """
    width_of_group = width.literal_value

    def codegen(context, builder, sig, args):
        stack, _, x_value, x0, stride, w_value, w0, col, step, end, count, none = args
        vec = context.get_value_type(tile.vec)
        origin = emit.address(context, builder, w, w_value, w0)
        nothing = emit.address(context, builder, zeros, none, ir.Constant(emit.I64, 0))

        def add_row(i, whole):
            row = ir.Constant(emit.I64, i)
            column = builder.add(col, builder.mul(step, row))
            inside = builder.icmp_unsigned("<", column, end)  # a negative one is very large then
            pointer = emit.address(context, builder, x, x_value, builder.add(x0, builder.mul(stride, row)))
            if whole:
                pointer = builder.select(inside, pointer, nothing)
            for j in range(tile.columns):
                first = ir.Constant(emit.I64, j * vec.count)
                place = builder.gep(pointer, [first])
                if whole:
                    loaded = emit.load(builder, place, vec)
                else:
                    there = builder.select(inside, builder.sub(count, first), ir.Constant(emit.I64, 0))
                    loaded = emit.load_part(builder, place, vec, there)
                slot = _slot(builder, stack, i * tile.columns + j)
                for k, spread in enumerate(_spread_loaded(builder, loaded, width_of_group)):
                    place = ir.Constant(emit.I64, (k * tile.columns + j) * vec.count)
                    factor = emit.load(builder, builder.gep(origin, [place], inbounds=True), vec)
                    builder.store(emit.fma(builder, spread, factor, builder.load(slot)), slot)

        is_whole = builder.icmp_signed(">=", count, ir.Constant(emit.I64, tile.columns * vec.count))
        with builder.if_else(is_whole) as (whole, part):
            with whole:
                for i in range(tile.rows):
                    add_row(i, True)
            with part:
                for i in range(tile.rows):
                    add_row(i, False)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, width, x, i, i, w, i, i, i, i, i, zeros), codegen


@intrinsic(prefer_literal=True)
def tile_groups_at(typingctx, tile, width, x, x0, table, t0, z, z0, count):
    """tile[i * width + k, 0] += (the vector at x[x0 + table[t0 + i]:], spread by k) * z[z0:][:count], zeros beyond."""
    width_of_group = width.literal_value

    def codegen(context, builder, sig, args):
        stack, _, x_value, x0, table_value, t0, z_value, z0, count = args
        vec = context.get_value_type(tile.vec)
        offsets = emit.address(context, builder, table, table_value, t0)
        factor = emit.load_part(builder, emit.address(context, builder, z, z_value, z0), vec, count)
        for i in range(tile.rows // width_of_group):
            offset = builder.load(builder.gep(offsets, [ir.Constant(emit.I64, i)], inbounds=True))
            pointer = emit.address(context, builder, x, x_value, builder.add(x0, offset))
            for k, spread in enumerate(_spread(builder, pointer, vec, width_of_group)):
                slot = _slot(builder, stack, i * width_of_group + k)
                builder.store(emit.fma(builder, spread, factor, builder.load(slot)), slot)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, width, x, i, table, i, z, i, i), codegen


@intrinsic(prefer_literal=True)
def tile_groups_along(typingctx, tile, run, pixels, x, x0, step, table, t0, z, z0, z_step, count):
    """tile[i, 0] += sum over p < pixels of x[x0 + table[t0 + i] + p * step:] * z[z0 + p * z_step:][:count].

    The table's taps come in runs of neighbours, `step` numbers apart: a vector of x is loaded once for all of them.
    """
    length, many = run.literal_value, pixels.literal_value

    def codegen(context, builder, sig, args):
        stack, _, _, x_value, x0, step, table_value, t0, z_value, z0, z_step, count = args
        vec = context.get_value_type(tile.vec)
        offsets = emit.address(context, builder, table, table_value, t0)

        def times(number, by):
            return builder.mul(number, ir.Constant(emit.I64, by))

        places = [builder.add(z0, times(z_step, p)) for p in range(many)]
        factors = [emit.load_part(builder, emit.address(context, builder, z, z_value, at), vec, count) for at in places]
        for i in range(0, tile.rows, length):
            offset = builder.load(builder.gep(offsets, [ir.Constant(emit.I64, i)], inbounds=True))
            start = builder.add(x0, offset)
            for place in range(many + length - 1):
                index = builder.add(start, times(step, place))
                loaded = emit.load(builder, emit.address(context, builder, x, x_value, index), vec)
                for r in range(max(0, place - many + 1), min(length, place + 1)):
                    slot = _slot(builder, stack, i + r)
                    builder.store(emit.fma(builder, loaded, factors[place - r], builder.load(slot)), slot)
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, run, pixels, x, i, i, table, i, z, i, i, i), codegen
