"""Arithmetic on vectors: Python's operators, comparisons, conversions, shuffles, sums of lanes."""

import operator

from llvmlite import ir
from numba import types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from . import emit
from .kinds import Mask, Vec, Vectors, counted, integer_of
from .machine import VECTOR_BYTES


def _operator(python_operator, integer, floating, result=lambda vec: vec):
    """Make an operator work on two vectors, or a vector and a number."""

    @infer_global(python_operator)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            vecs = [arg for arg in args if isinstance(arg, Vec)]
            if len(args) == 2 and vecs and all(arg == vecs[0] or isinstance(arg, types.Number) for arg in args):
                return signature(result(vecs[0]), *args)
            return None

    def lower(context, builder, sig, args):
        vec = next(arg for arg in sig.args if isinstance(arg, Vec))
        wide = emit.widen(context, builder, vec, sig.args, args)
        return (integer if isinstance(vec.dtype, types.Integer) else floating)(builder, *wide)

    for left, right in ((Vec, Vec), (Vec, types.Number), (types.Number, Vec)):
        lower_builtin(python_operator, left, right)(lower)


def _shift_right(builder, a, b):
    return builder.ashr(a, b)


def _divide(builder, a, b):
    # Numba puts the kernel's fast-math flags where there are none; with "arcp", x / sqrt(y) would be estimated.
    return builder.fdiv(a, b, flags=("contract",))


_operator(operator.add, ir.IRBuilder.add, ir.IRBuilder.fadd)
_operator(operator.sub, ir.IRBuilder.sub, ir.IRBuilder.fsub)
_operator(operator.mul, ir.IRBuilder.mul, ir.IRBuilder.fmul)
_operator(operator.truediv, None, _divide)
_operator(operator.lshift, ir.IRBuilder.shl, None)
_operator(operator.rshift, _shift_right, None)
_operator(operator.and_, ir.IRBuilder.and_, None)
_operator(operator.or_, ir.IRBuilder.or_, None)
_operator(operator.xor, ir.IRBuilder.xor, None)


def _comparison(python_operator, symbol):
    # Ordered comparisons: false where a lane is NaN; != is true there, as in Python.
    def floating(builder, a, b):
        return (builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered)(symbol, a, b)

    def integer(builder, a, b):
        return builder.icmp_signed(symbol, a, b)

    _operator(python_operator, integer, floating, result=lambda vec: Mask(vec.lanes))


for _python_operator, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_python_operator, _symbol)


@infer_global(operator.neg)
class _Negate(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Vec) else None


@lower_builtin(operator.neg, Vec)
def _negate(context, builder, sig, args):
    return builder.fneg(args[0]) if isinstance(sig.args[0].dtype, types.Float) else builder.neg(args[0])


@infer_global(operator.and_)
@infer_global(operator.or_)
class _JoinMasks(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], *args) if all(isinstance(arg, Mask) for arg in args) else None


@infer_global(operator.invert)
class _InvertMask(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Mask) else None


lower_builtin(operator.invert, Mask)(lambda context, builder, sig, args: builder.not_(args[0]))
lower_builtin(operator.and_, Mask, Mask)(lambda context, builder, sig, args: builder.and_(*args))
lower_builtin(operator.or_, Mask, Mask)(lambda context, builder, sig, args: builder.or_(*args))


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c, rounded once (twice on processors without the instruction). Numbers are broadcast."""
    vec = next(x for x in (a, b, c) if isinstance(x, Vec))

    def codegen(context, builder, sig, args):
        wide = emit.widen(context, builder, vec, sig.args, args)
        return emit.fma(builder, *wide)

    return vec(a, b, c), codegen


@intrinsic
def add_in_order(typingctx, a, b):
    """a + b, never regrouped: a chain of such sums rounds as it is written."""

    def codegen(context, builder, sig, args):
        return builder.fadd(*args, flags=("contract",))  # a flag of its own keeps Numba's, "reassoc" among them, away

    return a(a, b), codegen


def _unary(llvm_name, text):
    def declare(typingctx, x):
        def codegen(context, builder, sig, args):
            return emit.call(builder, f"llvm.{llvm_name}.{emit.suffix(args[0].type)}", args[0].type, args)

        return x(x), codegen

    declare.__doc__ = text
    return intrinsic(declare)


vsqrt = _unary("sqrt", "Square root of every lane.")
vabs = _unary("fabs", "Absolute value of every lane.")
vround = _unary("rint", "Nearest whole number, ties to even.")


@intrinsic
def select(typingctx, mask, a, b):
    """Lane by lane: a where mask, else b. Numbers are broadcast; at least one of a and b is a vector."""
    vec = a if isinstance(a, Vec) else b

    def codegen(context, builder, sig, args):
        wide = emit.widen(context, builder, vec, sig.args[1:], args[1:])
        return builder.select(args[0], *wide)

    return vec(mask, a, b), codegen


@intrinsic
def any_lane(typingctx, mask):
    """True where at least one lane of the mask is set."""

    def codegen(context, builder, sig, args):
        return emit.call(builder, f"llvm.vector.reduce.or.v{mask.lanes}i1", emit.I1, [args[0]])

    return types.boolean(mask), codegen


@intrinsic
def first_lane(typingctx, mask):
    """The number of the first lane that is set; the number of lanes where none is."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.cttz(bits, ir.Constant(emit.I1, 0)), emit.I64)

    return types.intp(mask), codegen


@intrinsic
def first_lanes(typingctx, like, count):
    """Mask of the lanes, of vectors like an array or a vector, whose number is below `count`; of Vectors, all."""
    mask = Mask(counted(like.dtype, count).lanes)

    def codegen(context, builder, sig, args):
        if isinstance(count, Vectors):
            return ir.Constant(context.get_value_type(mask), [1] * mask.lanes)
        return emit.first_lanes(builder, args[1], mask.lanes)

    return mask(like, count if isinstance(count, Vectors) else types.intp), codegen


@intrinsic
def to_int(typingctx, x):
    """Whole-number float lanes as integers of the same width (out of range: undefined)."""
    vec = Vec(integer_of(x.dtype), x.vectors)

    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def to_float(typingctx, x):
    """Integer lanes as floats of the same width."""
    vec = Vec(types.float32 if x.dtype.bitwidth == 32 else types.float64, x.vectors)

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def bits_to_float(typingctx, x):
    """The same bits, read as floats."""
    vec = Vec(types.float32 if x.dtype.bitwidth == 32 else types.float64, x.vectors)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def float_to_bits(typingctx, x):
    """The same bits, read as integers."""
    vec = Vec(integer_of(x.dtype), x.vectors)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(vec))

    return vec(x), codegen


def _pairing(lanes_of_pair, text):
    """A vector picked from the lanes of two, which count on: 0 to n - 1 in the first, n to 2n - 1 in the second."""

    def declare(typingctx, a, b):
        def codegen(context, builder, sig, args):
            picked = ir.Constant(ir.VectorType(emit.I32, a.lanes), lanes_of_pair(a.lanes))
            return builder.shuffle_vector(*args, picked)

        return a(a, b), codegen

    declare.__doc__ = text
    return intrinsic(declare)


zip_low = _pairing(lambda n: [i // 2 + i % 2 * n for i in range(n)], "a0 b0 a1 b1 ...: the lower halves in turn.")
zip_high = _pairing(lambda n: [(n + i) // 2 + i % 2 * n for i in range(n)], "The upper halves of a and b in turn.")
even_lanes = _pairing(lambda n: list(range(0, 2 * n, 2)), "a0 a2 ... b0 b2 ...: the lanes with even numbers.")
odd_lanes = _pairing(lambda n: list(range(1, 2 * n, 2)), "a1 a3 ... b1 b3 ...: the lanes with odd numbers.")


@intrinsic
def lane_numbers(typingctx, like):
    """0, 1, 2 ... as integers of the width of `like`, an array or a vector."""
    vec = Vec(integer_of(like.dtype), like.vectors if isinstance(like, Vec) else 1)

    def codegen(context, builder, sig, args):
        return ir.Constant(context.get_value_type(vec), list(range(vec.lanes)))

    return vec(like), codegen


def polynomial(*coefficients, double=None):
    """A function of a vector x: coefficients[0] + coefficients[1] x + coefficients[2] x^2 ..., by Horner's rule.

    double : the coefficients for float64, where they are others.
    """

    def declare(typingctx, x):
        def codegen(context, builder, sig, args):
            element = context.get_value_type(x.dtype)
            chosen = double if double and x.dtype == types.float64 else coefficients
            *rest, value = (emit.splat(builder, ir.Constant(element, c), x.lanes) for c in chosen)
            for constant in reversed(rest):
                value = emit.fma(builder, value, args[0], constant)
            return value

        return x(x), codegen

    declare.__doc__ = "The polynomial, lane by lane."
    return intrinsic(declare)


def constant(single, double):
    """A function of a vector: a number that depends on its dtype (float32 or float64)."""

    def declare(typingctx, x):
        number = types.float64 if isinstance(single, float) else types.int64

        def codegen(context, builder, sig, args):
            return context.get_constant(number, double if x.dtype.bitwidth == 64 else single)

        return number(x), codegen

    declare.__doc__ = f"{single!r} for 32-bit lanes, {double!r} for 64-bit lanes."
    return intrinsic(declare)


@intrinsic
def vcopysign(typingctx, x, sign):
    """Magnitude of x, sign of `sign`, lane by lane."""

    def codegen(context, builder, sig, args):
        return emit.call(builder, f"llvm.copysign.{emit.suffix(args[0].type)}", args[0].type, args)

    return x(x, sign), codegen


def _powers(builder, n, above):
    """2**(n + above) for whole-number float lanes n, and numbers `above` that make the power a normal number."""
    mantissa, bias = (23, 127) if emit.bytes(n.type) == 4 else (52, 1023)
    kind = ir.VectorType(ir.IntType(8 * emit.bytes(n.type)), n.type.count)
    biased = builder.add(builder.fptosi(n, kind), ir.Constant(kind, [bias + above] * kind.count))
    return builder.bitcast(builder.shl(biased, ir.Constant(kind, [mantissa] * kind.count)), n.type)


@intrinsic
def power_of_two(typingctx, n):
    """2**n for whole-number float lanes n, where that is a normal number."""

    def codegen(context, builder, sig, args):
        return _powers(builder, *args, 0)

    return n(n), codegen


@intrinsic
def vscale(typingctx, x, n):
    """x * 2**n for whole-number float lanes n, rounded once: denormals included.

    n : from -190 to 60 (float32), from -1500 to 500 (float64).
    """

    def scale_avx512(builder, x, n):
        suffix, mask = ("ps", ir.IntType(16)) if emit.bytes(x.type) == 4 else ("pd", ir.IntType(8))
        args = [x, n, x, ir.Constant(mask, -1), ir.Constant(emit.I32, 4)]  # all lanes, the current rounding mode
        return emit.call(builder, f"llvm.x86.avx512.mask.scalef.{suffix}.512", x.type, args)

    def scale_twice(builder, x, n):
        # By two powers, because 2**n alone may be too small for a normal number; the second one is always the same.
        above = 64 if emit.bytes(x.type) == 4 else 512
        for power in _powers(builder, n, above), ir.Constant(x.type, [2.0**-above] * x.type.count):
            # A flag of its own keeps this product from being regrouped.
            x = builder.fmul(x, power, flags=("contract",))
        return x

    def codegen(context, builder, sig, args):
        if VECTOR_BYTES < 64:
            return scale_twice(builder, *args)
        return emit.by_vector(builder, scale_avx512, x.vectors, *args)

    return x(x, n), codegen


def _reduction(combine, text):
    def declare(typingctx, x):
        return x.dtype(x), lambda context, builder, sig, args: emit.halved(builder, combine, args[0])

    declare.__doc__ = text
    return intrinsic(declare)


def _joining(combine, text):
    def declare(typingctx, x):
        vec = Vec(x.dtype)
        return vec(x), lambda context, builder, sig, args: emit.halved(builder, combine, args[0], vec.lanes)

    declare.__doc__ = text
    return intrinsic(declare)


def _maximum(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


vsum = _reduction(ir.IRBuilder.fadd, "Sum of the lanes, by halving.")
vhighest = _reduction(_maximum, "Largest lane, where none is NaN.")
join_sum = _joining(ir.IRBuilder.fadd, "The vectors of a wide one, added up.")
join_max = _joining(_maximum, "The largest of a wide one's vectors, lane by lane, where none is NaN.")


@intrinsic
def vmax(typingctx, a, b):
    """a where it is larger than b, else b, lane by lane: where a is NaN, b."""

    def codegen(context, builder, sig, args):
        return _maximum(builder, *args)

    return a(a, b), codegen
