"""Cases for matmul and dense."""

import dataclasses
import math

import workspaces
from harness import Case


def pair(a_shape, b_shape):
    return lambda rng, dtype: {
        "a": rng.uniform(-1, 1, a_shape).astype(dtype),
        "b": rng.uniform(-1, 1, b_shape).astype(dtype),
    }


def layer(x_shape, w_shape, bias=True):
    return lambda rng, dtype: {
        "x": rng.uniform(-1, 1, x_shape).astype(dtype),
        "w": rng.uniform(-1, 1, w_shape).astype(dtype),
        "b": rng.uniform(-1, 1, w_shape[1:]).astype(dtype) if bias else None,
    }


def product(id, a_shape, b_shape, length, **options):
    m, k = a_shape[-2:][:: -1 if options.get("transpose_a") else 1]
    n = b_shape[-2 if options.get("transpose_b") else -1]

    def workspace(variant, a, b):
        da = (k, m, n) if options.get("transpose_a") else (m, k, n)
        db = (n, k, m) if options.get("transpose_b") else (k, n, m)
        forward, *backward = (workspaces.product(variant, *sizes, a.itemsize) for sizes in ((m, n, k), da, db))
        matrix = a.itemsize * k * max(m, n) if a.shape[:-2] != b.shape[:-2] else 0
        return forward, sum(backward) + matrix

    return Case("matmul", id, pair(a_shape, b_shape), options, wrt=("a", "b"), length=length, workspace=workspace)


def dense(id, x_shape, w_shape, activation=None, bias=True):
    (*rows, k), n = x_shape, w_shape[1]
    m = math.prod(rows)

    def workspace(variant, x, w, b):
        forward = workspaces.product(variant, m, n, k, x.itemsize)
        dz = m * n * x.itemsize if activation else 0
        sums = 16 * n * x.itemsize if activation or bias else 0
        dx, dw = (workspaces.product(variant, *shape, x.itemsize) for shape in ((m, k, n), (k, n, m)))
        return forward, dx + dw + dz + sums

    return Case(
        "dense", id, layer(x_shape, w_shape, bias), {"activation": activation},
        wrt=("x", "w", "b"), length=max(k, n, x_shape[0]), workspace=workspace,
    )  # fmt: skip


CASES = [
    # Shapes that straddle the register tile (14 x 32 or 6 x 16) and the K block.
    *(
        product(f"{m}x{n}x{k}", (m, k), (k, n), max(m, n, k))
        for m, n, k in [(1, 1, 1), (13, 31, 5), (14, 32, 8), (15, 33, 9), (31, 67, 17), (1, 100, 3), (100, 1, 70)]
    ),
    product("deep", (17, 1100), (1100, 35), 1100),
    # A column of B is packed by the tile that reads it first: in parts of K, several blocks of a part, several chunks.
    product("packed-on-the-way-in-parts", (31, 1100), (1100, 70), 1100),
    product("packed-on-the-way-in-tall-parts", (60, 1100), (1100, 70), 1100),
    product("packed-on-the-way", (115, 300), (300, 70), 300),
    # Long sums for few numbers.
    product("little-and-long", (1100, 131), (1100, 45), 1100, transpose_a=True),
    product("little-and-long-transposed-b", (131, 1300), (70, 1300), 1300, transpose_b=True),
    # Few rows times a B that only memory holds, in two chunks of columns; its gradient, a C of long rows, short sums.
    product("few-and-far", (1030, 33), (1030, 2061), 2061, transpose_a=True),
    product("packed", (260, 1050), (1050, 260), 1050),
    # Large enough that only B is packed, or that B's rows pass by eight rows of C.
    product("many-rows", (641, 501), (501, 467), 641),
    product("many-rows-transposed-b", (861, 401), (407, 401), 861, transpose_b=True),
    # Few columns, in tiles of 6 x 1, 6 x 2 and 4 x 3, or few rows: both operands along K, or C transposed.
    product("one-column", (25, 70), (70, 1), 70),
    product("one-column-transposed-a", (70, 25), (70, 1), 70, transpose_a=True),
    product("seven-columns", (25, 1030), (1030, 7), 1030),
    product("seven-columns-transposed", (1030, 25), (7, 1030), 1030, transpose_a=True, transpose_b=True),
    product("five-rows-transposed-b", (5, 1030), (40, 1030), 1030, transpose_b=True),
    product("eight-rows", (8, 300), (300, 250), 300),
    product("large", (150, 90), (90, 200), 200),
    product("two-blocks", (70, 1100), (1100, 45), 1100),
    product("thin-and-deep", (64, 1100), (1100, 10), 1100),
    product("few-rows-transposed-b", (32, 40), (150, 40), 150, transpose_b=True),
    product("two-panels-transposed-b", (48, 20), (245, 20), 245, transpose_b=True),
    product("whole-vectors", (4, 12), (12, 132), 132),
    product("tall-whole-vectors", (132, 8), (8, 4), 132),
    product("empty-sum", (3, 0), (0, 4), 1),
    product("empty-rows", (0, 3), (3, 4), 4),
    product("transposed-a", (9, 45), (9, 33), 45, transpose_a=True),
    product("transposed-b", (29, 40), (50, 40), 50, transpose_b=True),
    product("transposed-both", (40, 29), (50, 40), 50, transpose_a=True, transpose_b=True),
    product("batch", (3, 5, 7), (3, 7, 9), 9),
    product("batch-broadcast", (2, 1, 5, 7), (3, 7, 9), 40),
    product("batch-broadcast-large", (20, 30), (40, 30, 25), 1000),
    product("batch-transposed", (3, 7, 5), (3, 9, 7), 9, transpose_a=True, transpose_b=True),
    dense("program-1", (32, 100), (100, 64), "relu"),
    dense("ten-classes", (32, 64), (64, 10)),
    dense("whole-vectors", (20, 12), (12, 8), "relu"),
    dense("one-unit", (50, 100), (100, 1), "sigmoid"),
    dense("no-bias", (5, 40), (40, 33), "tanh", bias=False),
    dense("sigmoid", (29, 17), (17, 45), "sigmoid"),
    dense("one-row", (1, 70), (70, 40), "relu"),
    dense("sequence", (3, 8, 20), (20, 10), "tanh"),
    dense("deep", (9, 1100), (1100, 35), "relu"),
    dense("deep-sigmoid", (3, 2100), (2100, 35), "sigmoid"),
]

# On a GPU: which of these run in the simulator, and which do not lie in whole vectors.
SIMULATED = {"13x31x5", "whole-vectors", "tall-whole-vectors", "batch", "empty-sum", "sigmoid", "no-bias"}
LARGE = {"many-rows", "many-rows-transposed-b", "few-and-far", "packed"}
RAGGED = {"13x31x5", "batch", "sigmoid", "no-bias"}
CASES = [
    dataclasses.replace(case, simulate=True, unsuited=("vectors",) if case.id in RAGGED else ())
    if case.id in SIMULATED
    # The simplest rungs have one way for all sizes, and take long for these.
    else dataclasses.replace(case, variants=("packed", "simd", "threaded"))
    if case.id in LARGE
    else case
    for case in CASES
]
