"""Cases for the losses: sizes and rows that straddle a vector, several chunks, certain and impossible predictions."""

import dataclasses

import numpy as np
from harness import Case

from handloom.kernels.simd import VECTOR_BYTES

WIDTH = VECTOR_BYTES // 4
SIZES = (1, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH + 3)


def numbers(*shape, scale=2.0):
    return lambda rng, dtype: {
        "y": rng.normal(0, scale, shape).astype(dtype),
        "t": rng.normal(0, scale, shape).astype(dtype),
    }


def chances(*shape):
    return lambda rng, dtype: {
        "p": rng.uniform(0.01, 0.99, shape).astype(dtype),
        "t": rng.uniform(0, 1, shape).astype(dtype),
    }


def logits(*shape, scale=3.0):
    return lambda rng, dtype: {
        "logits": rng.normal(0, scale, shape).astype(dtype),
        "t": rng.integers(0, 2, shape).astype(dtype),
    }


def distribution(rng, shape):
    weights = rng.uniform(0, 1, shape)
    return weights / weights.sum(axis=-1, keepdims=True)


def classes(name, *shape, soft=False, scale=3.0):
    """Logits or (as they need not add up to one) probabilities, with targets in rows."""

    def make(rng, dtype):
        y = rng.normal(0, scale, shape) if name == "logits" else rng.uniform(0.01, 1, shape)
        labels = rng.integers(0, shape[-1], (*shape[:-1], 1))
        t = distribution(rng, shape) if soft else labels == np.arange(shape[-1])
        return {name: y.astype(dtype), "t": t.astype(dtype)}

    return make


def labelled(name, *shape, scale=3.0, kind="int64"):
    def make(rng, dtype):
        y = rng.normal(0, scale, shape) if name == "logits" else rng.uniform(0.01, 1, shape)
        return {name: y.astype(dtype), "labels": rng.integers(0, shape[-1], shape[:-1]).astype(kind)}

    return make


def certain(rng, dtype):
    """Probabilities of exactly 0 and 1, right and wrong."""
    p = np.array([[1, 0, 0], [0, 1, 0], [0.2, 0.3, 0.5], [0, 0.5, 0.5]], dtype)
    return {"p": p, "t": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0], [0.5, 0.5, 0]], dtype)}


def certain_labels(rng, dtype):
    return {"p": certain(rng, dtype)["p"], "labels": np.array([0, 2, 1, 0])}


def on_rows(variant, y, t):
    """Three numbers a row, and a copy of labels that are not int64."""
    return 3 * y.nbytes // y.shape[-1] + (8 * t.size if t.ndim < y.ndim and t.dtype != "int64" else 0), 0


def on_chunks(variant, y, t):
    return y.nbytes // 4096, 0


def loss(op, id, make, length, smooth=True):
    of_logits = op.endswith(("softmax_cross_entropy", "sigmoid_cross_entropy"))
    first = "logits" if of_logits else "y" if op.startswith("mean") else "p"
    rows = op.endswith(("softmax_cross_entropy", "categorical_cross_entropy"))
    workspace = on_rows if rows else on_chunks
    return Case(op, id, make, wrt=(first,), length=length, smooth=smooth, workspace=workspace)


def correct(id, make, **more):
    return Case("count_correct", id, make, nan=False, workspace=on_rows, **more)


def drawn_answers(*shape):
    """Some of the numbers are the threshold itself, and a few of the targets are neither 0 nor 1."""

    def make(rng, dtype):
        p, t = rng.integers(0, 9, shape) / 8, rng.integers(0, 30, shape)
        return {"p": p.astype(dtype), "t": np.where(t < 28, t % 2, t / 29).astype(dtype)}

    return make


def binary(id, make, **parameters):
    return Case("count_correct_binary", id, make, parameters, nan=False, workspace=lambda _, p, t: (p.size // 512, 0))


def on_elements(op, make):
    yield from (loss(op, f"size-{size}", make(size), size) for size in SIZES)
    yield loss(op, "number", make(), 1)
    yield loss(op, "image", make(2, 5, 6, 3), 180)
    yield loss(op, "chunks", make(3, 11_000), 1000)


def on_classes(op, make, name):
    yield from (loss(op, f"width-{size}", make(name, 3, size), size) for size in SIZES[1:])
    yield loss(op, "ten-classes", make(name, 32, 10), 40)
    yield loss(op, "sequence", make(name, 3, 8, 20), 40)
    yield loss(op, "chunks", make(name, 700, 40), 700)
    yield loss(op, "vocabulary", make(name, 2, 50257), 50257)


CASES = [
    *on_elements("mean_squared_error", numbers),
    *on_elements("mean_absolute_error", numbers),
    loss("mean_squared_error", "two-chunks", numbers(4100), 100),
    *on_elements("binary_cross_entropy", chances),
    *on_elements("sigmoid_cross_entropy", logits),
    *on_classes("categorical_cross_entropy", classes, "p"),
    *on_classes("softmax_cross_entropy", classes, "logits"),
    *on_classes("sparse_categorical_cross_entropy", labelled, "p"),
    *on_classes("sparse_softmax_cross_entropy", labelled, "logits"),
    loss("softmax_cross_entropy", "vector", classes("logits", 45), 45),
    loss("categorical_cross_entropy", "vector", classes("p", 45), 45),
    loss("binary_cross_entropy", "certain", certain, 12, smooth=False),
    loss("sigmoid_cross_entropy", "large-logits", logits(300, scale=1e4), 300),
    loss("categorical_cross_entropy", "soft", classes("p", 5, 33, soft=True), 33),
    loss("categorical_cross_entropy", "certain", certain, 12, smooth=False),
    loss("sparse_categorical_cross_entropy", "certain", certain_labels, 12, smooth=False),
    loss("softmax_cross_entropy", "soft", classes("logits", 5, 33, soft=True), 33),
    loss("softmax_cross_entropy", "large-logits", classes("logits", 30, 33, scale=1e4), 33, smooth=False),
    loss("sparse_softmax_cross_entropy", "large-logits", labelled("logits", 30, 33, scale=1e4), 33, smooth=False),
    *(
        loss("sparse_softmax_cross_entropy", kind, labelled("logits", 9, 5, kind=kind), 9)
        for kind in ("int8", "int32", "uint8", "uint64")
    ),
    *(correct(f"width-{size}", classes("p", 70, size)) for size in SIZES),
    *(correct(f"labels-{size}", lambda rng, dtype, size=size: {
        "p": rng.integers(0, 4, (70, size)).astype(dtype), "t": rng.integers(0, size, 70)
    }) for size in SIZES),
    correct("chunks", classes("logits", 9, 90, 40)),
    correct("vector", classes("p", 45)),
    *(binary(f"size-{size}", drawn_answers(size)) for size in SIZES),
    binary("number", drawn_answers()),
    binary("image", drawn_answers(2, 5, 6, 3), threshold=0.25),
    binary("two-chunks", drawn_answers(4100)),
    binary("chunks", drawn_answers(3, 11_000)),
]  # fmt: skip

# On a GPU: those that run in the simulator.
RAGGED = SIZES[-1]
SIMULATED = {
    "mean_squared_error-two-chunks",
    "mean_absolute_error-number",
    "count_correct_binary-number",
    "count_correct_binary-image",
    "count_correct_binary-two-chunks",
    "binary_cross_entropy-certain",
    "sigmoid_cross_entropy-large-logits",
    *(
        f"{op}-{id}"
        for op in ("mean_squared_error", "mean_absolute_error", "binary_cross_entropy", "sigmoid_cross_entropy")
        for id in (f"size-{RAGGED}", "image")
    ),
    *(
        f"{op}-{id}"
        for op in ("categorical_cross_entropy", "softmax_cross_entropy")
        for id in (f"width-{RAGGED}", "sequence", "soft", "certain", "large-logits")
    ),
    *(
        f"{op}-{id}"
        for op in ("sparse_categorical_cross_entropy", "sparse_softmax_cross_entropy")
        for id in (f"width-{RAGGED}", "sequence", "certain", "int8", "uint64")
    ),
}
CASES = [dataclasses.replace(case, simulate=True) if str(case) in SIMULATED else case for case in CASES]
