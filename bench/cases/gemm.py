"""Matrix products: square, flat, batched, transposed; and the dense layer's."""

from functools import partial
from math import prod

import numpy as np

from ...kernels import matmul
from ..case import Case, Pass, draw, keeping, more, size_of


def _matmul(batch, m, n, k, turned, dtype):
    """C[M, N] = A[M, K] B[K, N] into an output of each variant's own; "tn" hands over A turned."""
    a = draw((*batch, *((k, m) if turned[0] == "t" else (m, k))), dtype)
    b = draw((*batch, *((n, k) if turned[1] == "t" else (k, n))), dtype, 1)
    options = {"transpose_a": turned[0] == "t", "transpose_b": turned[1] == "t"}
    shape = (*batch, m, n)

    def ours(variant):
        return keeping(partial(matmul, a, b, out=np.full(shape, np.nan, dtype), variant=variant, **options))

    work = Pass("matmul", (a, b), options).work(2 * prod(shape) * k, size_of(a, b) + prod(shape) * dtype.itemsize)
    work.ours = ours
    return work


def _dense(m, n, k, way, dtype):
    x, w, b = draw((m, k), dtype), draw((k, n), dtype, 1), draw(n, dtype, 2)
    if way == "forward":
        y = draw((m, n), dtype)
        return Pass("dense", (x, w, b), {"activation": "relu"}).work(2 * m * n * k, size_of(x, w, b, y))
    dy = draw((m, n), dtype, 3)
    step = Pass("dense", (x, w, b), {"activation": "relu"}, dy, (0, 1, 2))
    return step.work(4 * m * n * k, 2 * size_of(x, w, b) + 2 * size_of(dy))


def _product(m, n, k, batch=(), turned="nn", **options):
    name = "x".join(map(str, (*batch, m, n, k))) + ("" if turned == "nn" else f"-{turned}")
    return Case("gemm", "matmul", "", name, partial(_matmul, batch, m, n, k, turned), **options)


CASES = [
    _product(48, 48, 48),
    _product(128, 128, 128),
    _product(256, 256, 256, quick=True, ladder=True),
    _product(512, 512, 512, quick=True),
    _product(1000, 1000, 1000),
    _product(1023, 1023, 1023),
    _product(1024, 1024, 1024, quick=True),
    _product(2048, 2048, 2048),
    *(_product(1, 4096, 4096, turned=turned) for turned in ("nn", "nt")),
    _product(4096, 1, 4096),
    _product(1000, 10, 784),
    _product(4096, 16, 64),
    _product(128, 64, 128, batch=(64,)),
    *(_product(512, 512, 512, turned=turned) for turned in ("tn", "nt", "tt")),
    *(
        Case("gemm", "dense", way, "32x128x5408-relu", partial(_dense, 32, 128, 5408, way), quick=way == "forward")
        for way in ("forward", "backward")
    ),
]
SQUARES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000, 1023, 1024, 1025, 2048, 4096)
CASES = more(
    CASES,
    [
        *(_product(size, size, size) for size in SQUARES),
        _product(32, 128, 5408),
        *(_product(size, size, size, turned=turned) for size in (512, 1000) for turned in ("nn", "tn", "nt", "tt")),
    ],
)
