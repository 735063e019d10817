"""SIMD vectors and register tiles as Numba types.

Three types, made known to Numba here and used by every fast CPU kernel:

`Vec`   one SIMD register of float32, float64, int32 or int64 lanes, or some side by side (`vectors`). Python's
        operators work on it (`+ - *`, comparisons, unary minus; `/` on floats, `<< >> & | ^` on integers), numbers join
        in as if broadcast.
`Mask`  what a comparison of vectors says, lane by lane (`& | ~`); `select` takes it.
`Tile`  a register tile: rows x columns of such vectors, the accumulators of a matrix product. It is a stack array
        that LLVM moves to registers, because every access below has constant indices.

The number of lanes follows from the machine: VECTOR_BYTES = 64 with AVX-512, 32 with AVX, 16 otherwise (SSE, NEON).

Memory is addressed as (1-D array, index). Nothing is checked and an index never wraps around: `x[i]` on a signed
index makes Numba add `i < 0 ? i + n : i`, which halved the speed of a convolution.

    acc = tile_zeros(c, ROWS, COLUMNS)
    for k in range(depth):
        tile_outer(acc, a, a0 + k, lda, b, b0 + k * ldb)     # acc[i, :] += a[a0 + k + i * lda] * b[b0 + k * ldb + :]
    tile_store(acc, c, c0, ldc, rows, count)                 # as many rows and numbers of them as there are
"""

from .arithmetic import (
    add_in_order,
    any_lane,
    bits_to_float,
    constant,
    even_lanes,
    first_lane,
    first_lanes,
    float_to_bits,
    fma,
    join_max,
    join_sum,
    lane_numbers,
    odd_lanes,
    polynomial,
    power_of_two,
    select,
    to_float,
    to_int,
    vabs,
    vcopysign,
    vhighest,
    vmax,
    vround,
    vscale,
    vsqrt,
    vsum,
    zip_high,
    zip_low,
)
from .groups import tile_groups, tile_groups_along, tile_groups_at, tile_groups_inside
from .kinds import Mask, Tile, Vec
from .machine import FEATURES, FREE_MASKS, HAS_FMA, TILE_COLUMNS, TILE_ROWS, VECTOR_BYTES
from .memory import (
    at,
    expect,
    lanes,
    rolled,
    stack_array,
    vectors,
    vfill,
    viewed,
    vload,
    vload_as,
    vload_as_part,
    vload_part,
    vsplat,
    vstore,
    vstore_as_part,
    vstore_part,
    vstream,
)
from .tiles import (
    tile_add,
    tile_expect_at,
    tile_fill_rows,
    tile_inner,
    tile_outer,
    tile_outer_at,
    tile_outer_part,
    tile_outer_rows,
    tile_relu,
    tile_store,
    tile_store_at,
    tile_stream,
    tile_stream_at,
    tile_sums,
    tile_zeros,
    transpose_block,
)

__all__ = [
    "FEATURES",
    "FREE_MASKS",
    "HAS_FMA",
    "Mask",
    "TILE_COLUMNS",
    "TILE_ROWS",
    "Tile",
    "VECTOR_BYTES",
    "Vec",
    "add_in_order",
    "any_lane",
    "at",
    "bits_to_float",
    "constant",
    "even_lanes",
    "expect",
    "first_lane",
    "first_lanes",
    "float_to_bits",
    "fma",
    "join_max",
    "join_sum",
    "lane_numbers",
    "lanes",
    "odd_lanes",
    "polynomial",
    "power_of_two",
    "rolled",
    "select",
    "stack_array",
    "tile_add",
    "tile_expect_at",
    "tile_fill_rows",
    "tile_groups",
    "tile_groups_along",
    "tile_groups_at",
    "tile_groups_inside",
    "tile_inner",
    "tile_outer",
    "tile_outer_at",
    "tile_outer_part",
    "tile_outer_rows",
    "tile_relu",
    "tile_store",
    "tile_store_at",
    "tile_stream",
    "tile_stream_at",
    "tile_sums",
    "tile_zeros",
    "to_float",
    "to_int",
    "transpose_block",
    "vabs",
    "vcopysign",
    "vectors",
    "vfill",
    "vhighest",
    "viewed",
    "vload",
    "vload_as",
    "vload_as_part",
    "vload_part",
    "vmax",
    "vround",
    "vscale",
    "vsplat",
    "vsqrt",
    "vstore",
    "vstore_as_part",
    "vstore_part",
    "vstream",
    "vsum",
    "zip_high",
    "zip_low",
]
