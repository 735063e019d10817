"""SIMD vectors and register tiles as Numba types.

Two types, made known to Numba here and used by every fast CPU kernel:

`Vec`   one SIMD register of float32, float64, int32 or int64 lanes. Python's operators work on it
        (`+ - * /`, comparisons, unary minus), numbers join in as if broadcast.
`Tile`  a register tile: rows x columns of such vectors, the accumulators of a matrix product. It is a stack array
        that LLVM moves to registers, because every access below has constant indices.

The number of lanes follows from the machine: VECTOR_BYTES = 64 with AVX-512, 32 with AVX, 16 otherwise (SSE, NEON).

Memory is addressed as (1-D array, index). Nothing is checked and an index never wraps around: `x[i]` on a signed
index makes Numba add `i < 0 ? i + n : i`, which halved the speed of a convolution.

    acc = tile_zeros(c, ROWS, COLUMNS)
    for k in range(depth):
        tile_outer(acc, a, a0 + k, lda, b, b0 + k * ldb)     # acc[i, :] += a[a0 + k + i * lda] * b[b0 + k * ldb + :]
    tile_store(acc, c, c0, ldc)
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numba.np import arrayobj

# ---------------------------------------------------------------------------------------------------------------------
# The machine


def _features() -> set[str]:
    """Names of the instruction sets that Numba compiles for, in LLVM's spelling."""
    from llvmlite import binding
    from numba.core.codegen import get_host_cpu_features

    if config.CPU_FEATURES is not None:
        listed = config.CPU_FEATURES
    elif config.CPU_NAME in (None, "host", binding.get_host_cpu_name()):
        listed = get_host_cpu_features()
    else:  # a processor given by name, for example NUMBA_CPU_NAME=generic: only what LLVM takes for granted
        listed = ""
    return {flag[1:] for flag in listed.split(",") if flag.startswith("+")}


FEATURES = _features()
VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx" in FEATURES else 16
HAS_FMA = bool(FEATURES & {"fma", "avx512f", "neon", "fp-armv8"})
# AVX-512 masks a load at no cost: kernels need no second loop for the last, partial column of vectors.
FREE_MASKS = "avx512f" in FEATURES

# The register tile of a matrix product: ROWS x COLUMNS accumulators, plus COLUMNS vectors of B and one of A, fill the
# register file (32 registers with AVX-512 and NEON, 16 with AVX2 and SSE).
TILE_ROWS = 14 if FEATURES & {"avx512f", "neon"} else 6
TILE_COLUMNS = 2

# ---------------------------------------------------------------------------------------------------------------------
# Types


class Vec(types.Type):
    """A SIMD register: VECTOR_BYTES of `dtype`."""

    def __init__(self, dtype):
        self.dtype, self.lanes = dtype, VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vec({dtype} x {self.lanes})")


class Mask(types.Type):
    """The result of a comparison: one bit a lane."""

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(f"Mask({lanes})")


class Tile(types.Type):
    """rows x columns vectors that live in registers."""

    def __init__(self, dtype, rows, columns):
        self.dtype, self.rows, self.columns = dtype, rows, columns
        self.vec = Vec(dtype)
        super().__init__(f"Tile({dtype}, {rows}, {columns})")


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, ir.VectorType(manager.lookup(fe_type.dtype).get_value_type(), fe_type.lanes))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, ir.VectorType(ir.IntType(1), fe_type.lanes))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        vec = manager.lookup(fe_type.vec).get_value_type()
        super().__init__(manager, fe_type, ir.ArrayType(vec, fe_type.rows * fe_type.columns).as_pointer())


# ---------------------------------------------------------------------------------------------------------------------
# Helpers that write LLVM code

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _address(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index], inbounds=True)


def _splat(builder, value, lanes):
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _widen(context, builder, vec, kinds, values):
    """Vectors stay, numbers are cast to the vector's dtype and broadcast."""
    return [
        value if isinstance(kind, Vec) else _splat(builder, context.cast(builder, value, kind, vec.dtype), vec.lanes)
        for kind, value in zip(kinds, values)
    ]


def _load(builder, pointer, vec):
    loaded = builder.load(builder.bitcast(pointer, vec.as_pointer()))
    loaded.align = _bytes(vec)
    return loaded


def _store(builder, value, pointer):
    stored = builder.store(value, builder.bitcast(pointer, value.type.as_pointer()))
    stored.align = _bytes(value.type)


def _bytes(vec):
    """Bytes of one lane."""
    if isinstance(vec.element, ir.IntType):
        return vec.element.width // 8
    return 8 if isinstance(vec.element, ir.DoubleType) else 4


def _suffix(vec):
    """LLVM's name for a vector type in intrinsics, for example v16f32."""
    return f"v{vec.count}{'i' if isinstance(vec.element, ir.IntType) else 'f'}{8 * _bytes(vec)}"


def _call(builder, name, result, args):
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, [arg.type for arg in args]), name)
    return builder.call(function, args)


def _fma(builder, a, b, c):
    if HAS_FMA:
        return _call(builder, f"llvm.fma.{_suffix(a.type)}", a.type, [a, b, c])
    # Without the instruction, llvm.fma would become a library call for every lane.
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _first_lanes(builder, count, lanes):
    """Mask of the lanes whose number is below `count`."""
    # In 32 bits: sixteen 64-bit numbers would take two registers and two comparisons.
    most = ir.Constant(_I64, lanes)
    count = builder.trunc(builder.select(builder.icmp_signed("<", count, most), count, most), _I32)
    numbers = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, _splat(builder, count, lanes))


def _masked_load(builder, pointer, vec, mask):
    pointer = builder.bitcast(pointer, vec.as_pointer())
    align = ir.Constant(_I32, _bytes(vec))
    name = f"llvm.masked.load.{_suffix(vec)}.p0"
    return _call(builder, name, vec, [pointer, align, mask, ir.Constant(vec, None)])


def _masked_store(builder, value, pointer, mask):
    pointer = builder.bitcast(pointer, value.type.as_pointer())
    align = ir.Constant(_I32, _bytes(value.type))
    _call(builder, f"llvm.masked.store.{_suffix(value.type)}.p0", ir.VoidType(), [value, pointer, align, mask])


def _load_part(builder, pointer, vec, count):
    """The first `count` lanes, the others zero. Where masks cost something, whole vectors take a branch around them."""
    if FREE_MASKS:
        return _masked_load(builder, pointer, vec, _first_lanes(builder, count, vec.count))
    is_whole = builder.icmp_signed(">=", count, ir.Constant(_I64, vec.count))
    with builder.if_else(is_whole) as (whole, part):
        with whole:
            all_lanes, after_whole = _load(builder, pointer, vec), builder.block
        with part:
            some_lanes = _masked_load(builder, pointer, vec, _first_lanes(builder, count, vec.count))
            after_part = builder.block
    loaded = builder.phi(vec)
    loaded.add_incoming(all_lanes, after_whole)
    loaded.add_incoming(some_lanes, after_part)
    return loaded


def _store_part(builder, value, pointer, count):
    """Store the first `count` lanes, as `_load_part` loads them."""
    if FREE_MASKS:
        _masked_store(builder, value, pointer, _first_lanes(builder, count, value.type.count))
        return
    is_whole = builder.icmp_signed(">=", count, ir.Constant(_I64, value.type.count))
    with builder.if_else(is_whole) as (whole, part):
        with whole:
            _store(builder, value, pointer)
        with part:
            _masked_store(builder, value, pointer, _first_lanes(builder, count, value.type.count))


# ---------------------------------------------------------------------------------------------------------------------
# Vectors: load, store, broadcast


def _array_at(context, builder, dtype, data, count):
    """The type and value of a 1-D array of numbers that lie at `data`, whoever owns them."""
    kind = types.Array(dtype, 1, "C")
    element = context.get_data_type(dtype)
    size = ir.Constant(_I64, dtype.bitwidth // 8)
    array = context.make_array(kind)(context, builder)
    data = builder.bitcast(data, element.as_pointer())
    arrayobj.populate_array(array, data=data, shape=[count], strides=[size], itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic(prefer_literal=True)
def stack_array(typingctx, dtype, count):
    """A 1-D array on the stack, not filled: np.empty inside a kernel costs half a second to compile."""

    def codegen(context, builder, sig, args):
        memory = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(dtype.dtype), count.literal_value))
        memory.align = VECTOR_BYTES
        return _array_at(context, builder, dtype.dtype, memory, ir.Constant(_I64, count.literal_value))

    return types.Array(dtype.dtype, 1, "C")(dtype, count), codegen


@intrinsic
def viewed(typingctx, array, like):
    """The same memory as an array of other numbers: of `like`'s dtype (an array) or of the dtype `like`."""

    def codegen(context, builder, sig, args):
        source = context.make_array(array)(context, builder, args[0])
        old, new = array.dtype.bitwidth, like.dtype.bitwidth
        count = builder.mul(builder.extract_value(source.shape, 0), ir.Constant(_I64, old))
        count = builder.udiv(count, ir.Constant(_I64, new))
        return _array_at(context, builder, like.dtype, source.data, count)

    return types.Array(like.dtype, 1, "C")(array, like), codegen


@intrinsic
def lanes(typingctx, x):
    """Lanes of a vector of x's dtype (x an array, a vector or a scalar); a constant of the compiled code."""
    dtype = x if isinstance(x, types.Number) else x.dtype
    count = VECTOR_BYTES * 8 // dtype.bitwidth

    def codegen(context, builder, sig, args):
        return ir.Constant(_I64, count)

    return types.intp(x), codegen


@intrinsic
def vload(typingctx, array, index):
    """The vector at array[index:index + lanes]."""
    vec = Vec(array.dtype)

    def codegen(context, builder, sig, args):
        return _load(builder, _address(context, builder, array, *args), context.get_value_type(vec))

    return vec(array, types.intp), codegen


@intrinsic
def vload_part(typingctx, array, index, count):
    """The first `count` lanes (all, where it is more) from array[index:], others zero; memory beyond is not touched."""
    vec = Vec(array.dtype)

    def codegen(context, builder, sig, args):
        pointer = _address(context, builder, array, *args[:2])
        return _load_part(builder, pointer, context.get_value_type(vec), args[2])

    return vec(array, types.intp, types.intp), codegen


@intrinsic
def vstore(typingctx, array, index, value):
    """array[index:index + lanes] = value"""

    def codegen(context, builder, sig, args):
        _store(builder, args[2], _address(context, builder, array, *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vstore_part(typingctx, array, index, value, count):
    """Store the first `count` lanes (all, where it is more); memory beyond is not touched."""

    def codegen(context, builder, sig, args):
        _store_part(builder, args[2], _address(context, builder, array, *args[:2]), args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), codegen


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
    return Vec(_integer_of(like.dtype) if isinstance(dtype, types.Integer) else like.dtype)


@intrinsic
def vload_as(typingctx, like, array, index):
    """As many numbers of the array as `like` has lanes, widened to lanes of that width (uint8 offsets, for example)."""
    vec = _as_lanes_of(like, array.dtype)

    def codegen(context, builder, sig, args):
        narrow = ir.VectorType(_lane_type(array.dtype), vec.lanes)
        loaded = _load(builder, _address(context, builder, array, *args[1:]), narrow)
        return _convert(builder, loaded, array.dtype, vec.dtype)

    return vec(like, array, types.intp), codegen


@intrinsic
def vload_as_part(typingctx, like, array, index, count):
    """The first `count` lanes of `vload_as`, the others zero; memory beyond is not touched."""
    vec = _as_lanes_of(like, array.dtype)

    def codegen(context, builder, sig, args):
        narrow = ir.VectorType(_lane_type(array.dtype), vec.lanes)
        pointer = _address(context, builder, array, *args[1:3])
        loaded = _load_part(builder, pointer, narrow, args[3])
        return _convert(builder, loaded, array.dtype, vec.dtype)

    return vec(like, array, types.intp, types.intp), codegen


@intrinsic
def vstore_as(typingctx, array, index, value):
    """Every lane, converted to the array's dtype: integers are cut to its width, floats rounded."""

    def codegen(context, builder, sig, args):
        converted = _convert(builder, args[2], value.dtype, array.dtype)
        _store(builder, converted, _address(context, builder, array, *args[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def vstore_as_part(typingctx, array, index, value, count):
    """The first `count` lanes of `vstore_as`; memory beyond is not touched."""

    def codegen(context, builder, sig, args):
        converted = _convert(builder, args[2], value.dtype, array.dtype)
        _store_part(builder, converted, _address(context, builder, array, *args[:2]), args[3])
        return context.get_dummy_value()

    return types.void(array, types.intp, value, types.intp), codegen


@intrinsic
def vsplat(typingctx, array, index):
    """Every lane is array[index]."""
    vec = Vec(array.dtype)

    def codegen(context, builder, sig, args):
        return _splat(builder, builder.load(_address(context, builder, array, *args)), vec.lanes)

    return vec(array, types.intp), codegen


@intrinsic
def vfill(typingctx, like, value):
    """Every lane is `value`, in the dtype of `like` (an array or a vector)."""
    vec = Vec(like.dtype)

    def codegen(context, builder, sig, args):
        return _splat(builder, context.cast(builder, args[1], value, vec.dtype), vec.lanes)

    return vec(like, value), codegen


@intrinsic
def at(typingctx, array, index):
    """array[index] as a scalar, without the wrap-around test of Python's indexing."""

    def codegen(context, builder, sig, args):
        return builder.load(_address(context, builder, array, *args))

    return array.dtype(array, types.intp), codegen


# ---------------------------------------------------------------------------------------------------------------------
# Vectors: arithmetic


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
        wide = _widen(context, builder, vec, sig.args, args)
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
        wide = _widen(context, builder, vec, sig.args, args)
        return _fma(builder, *wide)

    return vec(a, b, c), codegen


def _unary(llvm_name, text):
    def declare(typingctx, x):
        def codegen(context, builder, sig, args):
            return _call(builder, f"llvm.{llvm_name}.{_suffix(args[0].type)}", args[0].type, args)

        return x(x), codegen

    declare.__doc__ = text
    return intrinsic(declare)


vsqrt = _unary("sqrt", "Square root of every lane.")
vabs = _unary("fabs", "Absolute value of every lane.")
vfloor = _unary("floor", "Largest whole number not above each lane.")
vround = _unary("rint", "Nearest whole number, ties to even.")


@intrinsic
def select(typingctx, mask, a, b):
    """Lane by lane: a where mask, else b. Numbers are broadcast; at least one of a and b is a vector."""
    vec = a if isinstance(a, Vec) else b

    def codegen(context, builder, sig, args):
        wide = _widen(context, builder, vec, sig.args[1:], args[1:])
        return builder.select(args[0], *wide)

    return vec(mask, a, b), codegen


@intrinsic
def any_lane(typingctx, mask):
    """True where at least one lane of the mask is set."""

    def codegen(context, builder, sig, args):
        return _call(builder, f"llvm.vector.reduce.or.v{mask.lanes}i1", _I1, [args[0]])

    return types.boolean(mask), codegen


@intrinsic
def first_lane(typingctx, mask):
    """The number of the first lane that is set; the number of lanes where none is."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(mask.lanes))
        return builder.zext(builder.cttz(bits, ir.Constant(_I1, 0)), _I64)

    return types.intp(mask), codegen


@intrinsic
def first_lanes(typingctx, like, count):
    """Mask of the lanes whose number is below `count` (lanes as in `like`, an array or a vector)."""
    mask = Mask(Vec(like.dtype).lanes)

    def codegen(context, builder, sig, args):
        return _first_lanes(builder, args[1], mask.lanes)

    return mask(like, types.intp), codegen


def _integer_of(dtype):
    return types.int32 if dtype.bitwidth == 32 else types.int64


@intrinsic
def to_int(typingctx, x):
    """Whole-number float lanes as integers of the same width (out of range: undefined)."""
    vec = Vec(_integer_of(x.dtype))

    def codegen(context, builder, sig, args):
        return builder.fptosi(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def to_float(typingctx, x):
    """Integer lanes as floats of the same width."""
    vec = Vec(types.float32 if x.dtype.bitwidth == 32 else types.float64)

    def codegen(context, builder, sig, args):
        return builder.sitofp(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def bits_to_float(typingctx, x):
    """The same bits, read as floats."""
    vec = Vec(types.float32 if x.dtype.bitwidth == 32 else types.float64)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(vec))

    return vec(x), codegen


@intrinsic
def float_to_bits(typingctx, x):
    """The same bits, read as integers."""
    vec = Vec(_integer_of(x.dtype))

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], context.get_value_type(vec))

    return vec(x), codegen


def _pairing(lanes_of_pair, text):
    """A vector picked from the lanes of two, which count on: 0 to n - 1 in the first, n to 2n - 1 in the second."""

    def declare(typingctx, a, b):
        def codegen(context, builder, sig, args):
            picked = ir.Constant(ir.VectorType(_I32, a.lanes), lanes_of_pair(a.lanes))
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
    vec = Vec(_integer_of(like.dtype))

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
            *rest, value = (_splat(builder, ir.Constant(element, c), x.lanes) for c in chosen)
            for constant in reversed(rest):
                value = _fma(builder, value, args[0], constant)
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
        return _call(builder, f"llvm.copysign.{_suffix(args[0].type)}", args[0].type, args)

    return x(x, sign), codegen


@intrinsic
def vscale(typingctx, x, n):
    """x * 2**n for whole-number float lanes n, rounded once: denormals included, Inf beyond the range.

    |n| may be up to 250 (float32), 2000 (float64).
    """

    def scale_avx512(builder, x, n):
        suffix, mask = ("ps", ir.IntType(16)) if x.type.count == 16 else ("pd", ir.IntType(8))
        args = [x, n, x, ir.Constant(mask, -1), ir.Constant(_I32, 4)]  # all lanes, the current rounding mode
        return _call(builder, f"llvm.x86.avx512.mask.scalef.{suffix}.512", x.type, args)

    def scale_bits(builder, x, n):
        # Two powers, because 2**n alone may lie outside the range of exponents.
        mantissa, bias = (23, 127) if _bytes(x.type) == 4 else (52, 1023)
        kind = ir.VectorType(ir.IntType(8 * _bytes(x.type)), x.type.count)
        whole = builder.fptosi(n, kind)
        half = builder.ashr(whole, ir.Constant(kind, [1] * kind.count))
        for part in (half, builder.sub(whole, half)):
            biased = builder.add(part, ir.Constant(kind, [bias] * kind.count))
            power = builder.shl(biased, ir.Constant(kind, [mantissa] * kind.count))
            # A flag of its own keeps this product from being regrouped.
            x = builder.fmul(x, builder.bitcast(power, x.type), flags=("contract",))
        return x

    def codegen(context, builder, sig, args):
        return (scale_avx512 if VECTOR_BYTES == 64 else scale_bits)(builder, *args)

    return x(x, n), codegen


def _reduction(combine, text):
    def declare(typingctx, x):
        def codegen(context, builder, sig, args):
            # Halve the vector until one lane is left: a fixed order, whatever the processor.
            value, count = args[0], x.lanes
            while count > 1:
                count //= 2
                undefined = ir.Constant(value.type, ir.Undefined)
                mask = ir.VectorType(_I32, count)
                low = builder.shuffle_vector(value, undefined, ir.Constant(mask, list(range(count))))
                high = builder.shuffle_vector(value, undefined, ir.Constant(mask, list(range(count, 2 * count))))
                value = combine(builder, low, high)
            return builder.extract_element(value, ir.Constant(_I32, 0))

        return x.dtype(x), codegen

    declare.__doc__ = text
    return intrinsic(declare)


def _maximum(builder, a, b):
    """The larger one; NaN wins."""
    larger = builder.select(builder.fcmp_ordered(">", a, b), a, b)
    return builder.select(builder.fcmp_unordered("!=", a, a), a, larger)


vsum = _reduction(ir.IRBuilder.fadd, "Sum of the lanes, by halving.")
vhighest = _reduction(_maximum, "Largest lane; NaN if any lane is NaN.")


@intrinsic
def vmax(typingctx, a, b):
    """The larger of two vectors, lane by lane; NaN wins."""

    def codegen(context, builder, sig, args):
        return _maximum(builder, *args)

    return a(a, b), codegen


# ---------------------------------------------------------------------------------------------------------------------
# Register tiles


def _slot(builder, tile, number):
    return builder.gep(tile, [ir.Constant(_I32, 0), ir.Constant(_I32, number)], inbounds=True)


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
        left = builder.sub(count, ir.Constant(_I64, j * tile.vec.lanes))
        masks.append(_first_lanes(builder, left, tile.vec.lanes))
    return masks


def _row_of_vectors(context, builder, tile, pointer, masks):
    """`columns` neighbouring vectors in memory."""
    vec = context.get_value_type(tile.vec)
    loaded = []
    for j in range(tile.columns):
        place = builder.gep(pointer, [ir.Constant(_I64, j * tile.vec.lanes)], inbounds=True)
        loaded.append(_masked_load(builder, place, vec, masks[j]) if masks else _load(builder, place, vec))
    return loaded


def _outer(context, builder, tile, stack, scalars, b):
    """stack[i, j] += scalars[i] * b[j]"""
    for i in range(tile.rows):
        wide = _splat(builder, builder.load(scalars(i)), tile.vec.lanes)
        for j in range(tile.columns):
            slot = _slot(builder, stack, i * tile.columns + j)
            builder.store(_fma(builder, wide, b[j], builder.load(slot)), slot)


def _declare_outer(masked, gathered, text):
    """tile_outer in four forms: whole or part of the columns; rows at a constant stride or from a table."""

    def build(tile, a, where, b):
        def codegen(context, builder, sig, args):
            stack, a_value, a0 = args[:3]
            first = _address(context, builder, a, a_value, a0)
            if gathered:
                table = _address(context, builder, where, args[3], args[4])
                args = args[:3] + args[4:]
                origin = builder.ptrtoint(_address(context, builder, a, a_value, ir.Constant(_I64, 0)), _I64)

                def scalars(i):
                    # Made from an integer, a row's address stays apart from the index a0 that moves. If LLVM may add
                    # a0 first, it loads all rows through that one sum at once and has no registers left for the tile.
                    offset = builder.load(builder.gep(table, [ir.Constant(_I64, i)], inbounds=True))
                    row = builder.add(origin, builder.mul(offset, ir.Constant(_I64, a.dtype.bitwidth // 8)))
                    return builder.gep(builder.inttoptr(row, first.type), [a0])
            else:

                def scalars(i):
                    return builder.gep(first, [builder.mul(args[3], ir.Constant(_I64, i))], inbounds=True)

            masks = _tile_part(args[6], tile, builder) if masked else None
            pointer = _address(context, builder, b, args[4], args[5])
            _outer(context, builder, tile, stack, scalars, _row_of_vectors(context, builder, tile, pointer, masks))
            return context.get_dummy_value()

        return codegen

    if gathered and masked:

        def declare(typingctx, tile, a, a0, table, t0, b, b0, count):
            i = types.intp
            return types.void(tile, a, i, table, i, b, i, i), build(tile, a, table, b)
    elif gathered:

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
tile_outer_at_part = _declare_outer(
    True, True, "(tile, a, a0, table, t0, b, b0, count): tile_outer_at where only `count` numbers of b exist."
)


@intrinsic
def tile_outer_rows(typingctx, tile, a, a0, stride, rows, b, b0):
    """tile_outer where only `rows` rows of a exist: the last one stands in for the others."""

    def codegen(context, builder, sig, args):
        stack, a_value, a0, stride, rows, b_value, b0 = args
        first = _address(context, builder, a, a_value, a0)
        last = builder.sub(rows, ir.Constant(_I64, 1))

        def scalars(i):
            row = ir.Constant(_I64, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            return builder.gep(first, [builder.mul(stride, row)], inbounds=True)

        pointer = _address(context, builder, b, b_value, b0)
        _outer(context, builder, tile, stack, scalars, _row_of_vectors(context, builder, tile, pointer, None))
        return context.get_dummy_value()

    i = types.intp
    return types.void(tile, a, i, i, i, b, i), codegen


@intrinsic
def tile_fill_rows(typingctx, tile, row, index, count):
    """Every row of the tile becomes row[index:index + count] (a bias, for example), zero beyond."""

    def codegen(context, builder, sig, args):
        masks = _tile_part(args[3], tile, builder)
        vectors = _row_of_vectors(context, builder, tile, _address(context, builder, row, *args[1:3]), masks)
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
        masks = _tile_part(count, tile, builder)
        for i in range(tile.rows):
            with builder.if_then(builder.icmp_signed("<", ir.Constant(_I64, i), rows)):
                index = builder.add(c0, builder.mul(stride, ir.Constant(_I64, i)))
                pointer = _address(context, builder, c, array, index)
                for j, vector in enumerate(_row_of_vectors(context, builder, tile, pointer, masks)):
                    slot = _slot(builder, stack, i * tile.columns + j)
                    builder.store(builder.fadd(builder.load(slot), vector), slot)
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
    """Store the tile's rows below `rows`, row i at c[index_of(i):][:count]."""
    tile, c = sig.args[:2]
    stack, array, *_, rows, count = args
    masks = _tile_part(count, tile, builder)
    for i in range(tile.rows):
        with builder.if_then(builder.icmp_signed("<", ir.Constant(_I64, i), rows)):
            pointer = _address(context, builder, c, array, index_of(i))
            for j in range(tile.columns):
                place = builder.gep(pointer, [ir.Constant(_I64, j * tile.vec.lanes)], inbounds=True)
                _masked_store(builder, builder.load(_slot(builder, stack, i * tile.columns + j)), place, masks[j])
    return context.get_dummy_value()


@intrinsic
def tile_store(typingctx, tile, c, c0, stride, rows, count):
    """c[c0 + i * stride:][:count] = row i of the tile, for i below `rows`."""

    def codegen(context, builder, sig, args):
        c0, stride = args[2:4]
        return _store_rows(
            context, builder, sig, args, lambda i: builder.add(c0, builder.mul(stride, ir.Constant(_I64, i)))
        )

    return types.void(tile, c, types.intp, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_store_at(typingctx, tile, c, c0, table, t0, rows, count):
    """c[c0 + table[t0 + i]:][:count] = row i of the tile, for i below `rows`."""

    def codegen(context, builder, sig, args):
        c0, places = args[2], _address(context, builder, table, *args[3:5])

        def index_of(i):
            return builder.add(c0, builder.load(builder.gep(places, [ir.Constant(_I64, i)], inbounds=True)))

        return _store_rows(context, builder, sig, args, index_of)

    return types.void(tile, c, types.intp, table, types.intp, types.intp, types.intp), codegen


@intrinsic
def tile_expect_at(typingctx, tile, c, c0, table, t0):
    """Ask for the memory that `tile_store_at` will write, so that it is in the cache when the tile is done."""

    def codegen(context, builder, sig, args):
        _, array, c0, table_value, t0 = args
        places = _address(context, builder, table, table_value, t0)
        for i in range(tile.rows):
            index = builder.add(c0, builder.load(builder.gep(places, [ir.Constant(_I64, i)], inbounds=True)))
            for j in range(tile.columns):
                place = builder.add(index, ir.Constant(_I64, j * tile.vec.lanes))
                pointer = builder.bitcast(_address(context, builder, c, array, place), ir.IntType(8).as_pointer())
                # For writing, to be kept in every level, data.
                hints = [ir.Constant(_I32, hint) for hint in (1, 3, 1)]
                _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *hints])
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
        last = builder.sub(rows, ir.Constant(_I64, 1))
        vectors = []
        for i in range(vec.lanes):
            row = ir.Constant(_I64, i)
            row = builder.select(builder.icmp_signed("<", row, last), row, last)
            pointer = _address(context, builder, source, array, builder.add(s0, builder.mul(stride, row)))
            vectors.append(_load(builder, pointer, context.get_value_type(vec)))
        _transpose(builder, vectors)
        mask = _first_lanes(builder, count, vec.lanes)
        for k in range(vec.lanes):
            index = builder.add(t0, builder.mul(step, ir.Constant(_I64, k)))
            _masked_store(builder, vectors[k], _address(context, builder, target, out, index), mask)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, i, target, i, i, i), codegen


def _transpose(builder, vectors):
    """Turn a square of vectors in place: in each round, rows `distance` apart swap their off-diagonal blocks."""
    count, distance = len(vectors), 1
    while distance < count:
        low = [lane if not lane & distance else lane - distance + count for lane in range(count)]
        high = [lane + distance if not lane & distance else lane + count for lane in range(count)]
        kind = ir.VectorType(_I32, count)
        for i in range(count):
            if not i & distance:
                pair = vectors[i], vectors[i + distance]
                vectors[i] = builder.shuffle_vector(*pair, ir.Constant(kind, low))
                vectors[i + distance] = builder.shuffle_vector(*pair, ir.Constant(kind, high))
        distance *= 2
