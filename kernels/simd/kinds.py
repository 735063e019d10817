"""Vectors, masks and register tiles as types that Numba knows."""

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from .machine import VECTOR_BYTES


class Vec(types.Type):
    """A SIMD register: VECTOR_BYTES of `dtype`; or `vectors` of them side by side, a wide vector."""

    def __init__(self, dtype, vectors=1):
        self.dtype, self.vectors, self.lanes = dtype, vectors, vectors * VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vec({dtype} x {self.lanes})")


class Vectors(types.Type):
    """Where lanes are counted: all of `number` vectors, as one wide vector."""

    def __init__(self, number):
        self.number = number
        super().__init__(f"Vectors({number})")


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


register_model(Vectors)(models.OpaqueModel)


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        vec = manager.lookup(fe_type.vec).get_value_type()
        super().__init__(manager, fe_type, ir.ArrayType(vec, fe_type.rows * fe_type.columns).as_pointer())


def counted(dtype, count):
    """The vector of `dtype` for a count of lanes: a wide one for Vectors."""
    return Vec(dtype, count.number if isinstance(count, Vectors) else 1)


def integer_of(dtype):
    """The integer type as wide as a float type."""
    return types.int32 if dtype.bitwidth == 32 else types.int64
