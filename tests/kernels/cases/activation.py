"""Cases for the activations: sizes that straddle a vector of float32 and of float64, and rows that do."""

import dataclasses

from harness import Case

from handloom.kernels.simd import VECTOR_BYTES

WIDTH = VECTOR_BYTES // 4


def drawn(*shape, scale=3.0):
    return lambda rng, dtype: {"x": rng.normal(0, scale, shape).astype(dtype)}


def activation(op, id, make, **options):
    return Case(op, id, make, options, wrt=("x",))


def softmax(op, id, *shape, scale=3.0, axis=-1):
    def workspace(variant, x):
        return (0, 0) if axis == -1 else (x.nbytes, 2 * x.nbytes)

    make = drawn(*shape, scale=scale)
    return Case(op, id, make, {"axis": axis}, wrt=("x",), length=shape[axis], workspace=workspace)


SIZES = (0, 1, WIDTH - 1, WIDTH, WIDTH + 1, 2 * WIDTH + 3)
PLAIN = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu")

CASES = [
    *(activation(op, f"size-{size}", drawn(size)) for op in PLAIN for size in SIZES),
    *(activation(op, "image", drawn(2, 5, 6, 3)) for op in PLAIN),
    *(activation(op, "number", drawn()) for op in PLAIN),
    *(activation(op, "wide-range", drawn(300, scale=30.0)) for op in PLAIN),
    *(activation(op, "chunks", drawn(3, 11_000)) for op in PLAIN),
    activation("leaky_relu", "slope", drawn(40), negative_slope=0.01),
    activation("leaky_relu", "rising", drawn(40), negative_slope=-1.5),
    activation("elu", "alpha", drawn(40), alpha=0.3),
    *(activation("gelu", f"tanh-{size}", drawn(size), approximate=True) for size in SIZES),
    activation("gelu", "tanh-wide-range", drawn(300, scale=30.0), approximate=True),
    *(
        case
        for op in ("softmax", "log_softmax")
        for case in (
            *(softmax(op, f"width-{size}", 3, size) for size in SIZES[1:]),
            softmax(op, "ten-classes", 32, 10),
            softmax(op, "no-rows", 0, 7),
            softmax(op, "vector", 45),
            softmax(op, "sequence", 3, 8, 20),
            softmax(op, "first-axis", 7, 3, 5, axis=0),
            softmax(op, "middle-axis", 30, 50, 5, axis=1),
            softmax(op, "negative-axis", 3, 50, 5, axis=-2),
            softmax(op, "large-logits", 5, 33, scale=1e4),
            softmax(op, "long-row", 1, 5000),
            softmax(op, "vocabulary", 2, 50257),
            softmax(op, "chunks", 700, 40),
            *(softmax(op, f"many-rows-{rows}", rows, 3) for rows in (63, 65, 129, 257)),
            softmax(op, "rows-of-one", 4096, 1),
        )
    ),
]

# On a GPU: those that run in the simulator.
RAGGED = SIZES[-1]
SIMULATED = {
    "relu-size-0",
    "tanh-number",
    "elu-alpha",
    "leaky_relu-slope",
    "gelu-tanh-wide-range",
    f"gelu-tanh-{RAGGED}",
    *(f"{op}-{id}" for op in PLAIN for id in (f"size-{RAGGED}", "wide-range")),
    *(
        f"{op}-{id}"
        for op in ("softmax", "log_softmax")
        for id in (f"width-{RAGGED}", "sequence", "first-axis", "long-row")
    ),
}
CASES = [dataclasses.replace(case, simulate=True) if str(case) in SIMULATED else case for case in CASES]
