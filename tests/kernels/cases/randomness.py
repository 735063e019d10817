"""Cases for the random draws and dropout. Sizes straddle a block (4 words), a vector and a chunk (2048 elements)."""

import dataclasses

from harness import Case

KEY = {"seed": 0x9E3779B97F4A7C15, "stream": 3, "step": 0xFFFFFFFF}


def draw(op, id, **options):
    bytes_each = 32 if op == "permutation" else 0
    return Case(
        op,
        id,
        lambda rng, dtype: {},
        {**KEY, **options},
        workspace=lambda variant: (bytes_each * options.get("n", 0), 0),
    )


def draws(op, **options):
    """One operation in both dtypes over all sizes."""
    for dtype in ("float32", "float64"):
        for shape in ((1,), (7,), (3, 11), (2048,), (4, 1025)):
            size = "x".join(map(str, shape))
            yield draw(op, f"{size}-as-{dtype}", shape=shape, dtype=dtype, **options)


def drop(id, shape, rate, **key):
    def make(rng, dtype):
        return {"x": rng.uniform(-1, 1, shape).astype(dtype)}

    return Case("dropout", id, make, {"rate": rate, **KEY, **key}, wrt=("x",))


CASES = [
    *draws("uniform", low=-0.3, high=0.7),
    *draws("normal", mean=0.5, stddev=2.0),
    *draws("truncated_normal", mean=-1.0, stddev=0.1),
    draw("uniform", "nothing", shape=(0, 3), dtype="float32"),
    *(draw("permutation", str(n), n=n) for n in (0, 1, 2, 3, 100, 2049)),
    drop("one", (1,), 0.5),
    drop("scalar", (), 0.2),
    drop("nothing", (0, 3), 0.2),
    drop("matrix", (33, 17), 0.25),
    drop("chunks", (3, 1367), 0.9),
    drop("rate-0", (5, 4), 0.0),
    drop("rate-near-0", (5, 4), 1e-12),
    drop("rate-near-1", (40, 40), 1 - 2**-24),
    drop("other-key", (33, 17), 0.25, seed=0, stream=0, step=0),
]

# On a GPU: 561 elements end in the midst of a block. The draws, which take no arrays, are in tests/cuda.
SIMULATED = {"scalar", "nothing", "matrix", "rate-near-0"}
CASES = [dataclasses.replace(case, simulate=case.op == "dropout" and case.id in SIMULATED) for case in CASES]
