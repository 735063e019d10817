"""Vectors, masks and register tiles as types that Numba knows."""

from llvmlite import ir
from numba import types
from numba.extending import models, register_model

from .machine import VECTOR_BYTES


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


def integer_of(dtype):
    """The integer type as wide as a float type."""
    return types.int32 if dtype.bitwidth == 32 else types.int64
