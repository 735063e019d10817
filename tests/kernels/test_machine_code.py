"""The machine code of the fast kernels on three instruction sets, whichever the machine has that runs this: compiled
for each and read. What makes a kernel fast is there or not, on a busy machine too."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from assembly import AVX2, AVX512, NEON, assembly, innermost_loops, instructions

# Where tests run side by side, one process compiles all this, for all of them.
pytestmark = pytest.mark.xdist_group("machine code")

TARGETS = AVX512, AVX2, NEON

# Each kernel of the tables below, in float32.
SINGLE = """
import numpy as np
from handloom import kernels
from handloom.kernels.recording import Recording

def ones(*shape):
    return np.ones(shape, "float32")

def train(op, *arrays, backward=lambda y: y, needs=None, **options):
    y, saved = getattr(kernels, op + "_forward")(*arrays, **options)
    getattr(kernels, op + "_backward")(backward(y), saved, needs)

for rows, depth in ((400, 1100), (32, 1200), (8, 8)):
    train("dense", ones(rows, depth), ones(depth, 190), ones(190), activation="tanh")
kernels.matmul(ones(1100, 65), ones(1100, 70), transpose_a=True)
kernels.matmul(ones(16, 500), ones(2000, 500), transpose_b=True)
kernels.matmul(ones(9000, 60), ones(60, 250))
kernels.matmul(ones(90, 100), ones(100, 90))
kernels.matmul(ones(6, 20, 10), ones(6, 10, 40))
kernels.matmul(ones(300, 1100), ones(1100, 10))

window = {"padding": "same", "variant": "threaded"}
for high, channels in ((2, 1), (3, 1), (3, 3), (3, 48)):
    train("conv2d", ones(4, 12, 12, channels), ones(high, 3, channels, 64), ones(64), activation="tanh", **window)
kernels.conv2d(ones(4, 12, 12, 48), ones(3, 3, 48, 4), **window)
train("conv2d", ones(4, 12, 12, 32), ones(3, 3, 32, 12), **window)
kernels.conv2d(ones(1, 8, 8, 160), ones(3, 3, 160, 200), activation="tanh", **window)
train("conv2d", ones(8, 28, 28, 64), ones(3, 3, 64, 64), variant="winograd")
train("conv2d_max_pool2d", ones(4, 12, 12, 1), ones(3, 3, 1, 64), activation="relu")
for variant in ("direct", "winograd"):
    train("conv2d_max_pool2d", ones(8, 28, 28, 64), ones(3, 3, 64, 64), activation="relu", variant=variant)
for size in (9, 33):
    for width in (1, 4):
        train("conv2d", ones(2, size, size, 36), ones(3, 3, width, 36), groups=36 // width, **window)
    train("conv2d", ones(2, size, size, 36), ones(5, 5, 1, 36), groups=36, **window)

gradient = {"backward": lambda y: y[0], "needs": (False, True, True, True, True, True)}
for rows in (1, 8):
    train("lstm", ones(rows, 2, 3), ones(3, 16), ones(4, 16), **gradient)

for op in ("tanh", "gelu", "softmax", "log_softmax"):
    train(op, ones(64, 1000))
for op in ("sigmoid_cross_entropy", "softmax_cross_entropy", "categorical_cross_entropy"):
    train(op, ones(4, 100), ones(4, 100), backward=lambda loss: 1.0)

w, g, m, v = (ones(100) for _ in range(4))
kernels.adam_update(w, g, m, v, step=1, learning_rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
kernels.rmsprop_update(w, g, v, m, learning_rate=0.1, rho=0.9, momentum=0.9, epsilon=1e-7)
kernels.sgd_update(w, g, learning_rate=0.1)
kernels.sgd_update(w, g, m, learning_rate=0.1, momentum=0.9)

w, m, v = (ones(700, 400) for _ in range(3))
with Recording() as gradients:
    g = kernels.matmul(ones(32, 700), ones(32, 400), transpose_a=True)
with Recording(after=gradients):
    kernels.adam_update(w, g, m, v, step=1, learning_rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7)

for op in (kernels.uniform, kernels.normal, kernels.truncated_normal):
    op(10, seed=1)
kernels.dropout(ones(10), 0.5, seed=1)
"""

# And for AVX2 alone, since they take long to compile: pooling, whose vectors do what others do on every target,
POOLING = """
for op in ("max_pool2d", "avg_pool2d"):
    for channels in (1, 40):
        train(op, ones(1, 4, 4, channels))
train("max_pool2d", ones(2, 4, 4, 1))  # more than one small image: adds where maxima were
"""

# and the tiles in float64.
DOUBLE = """
import numpy as np
from handloom import kernels

kernels.matmul(np.ones((300, 600)), np.ones((600, 300)))
for high, channels in ((2, 1), (3, 1), (3, 3), (3, 32)):
    x, w = np.ones((4, 12, 12, channels)), np.ones((high, 3, channels, 64))
    y, saved = kernels.conv2d_forward(x, w, padding="same", variant="threaded")
    kernels.conv2d_backward(y, saved, (False, True, False))
"""

# Rows of the register tiles: the one that fills the registers, the one for what is left over, that of an LSTM's state
# with eight rows, that of the gradient of few weights, and that for the gradient of weights of 12 filters.
HEIGHTS = {
    AVX512: {"tall": 14, "short": 4, "state": 8, "low": 9, "turned": 12},
    AVX2: {"tall": 6, "short": 2, "state": 4, "low": 5, "turned": 6},
    NEON: {"tall": 12, "short": 3, "state": 8, "low": 11, "turned": 12},
}
# Kernels with sums in registers: which of these tiles (or how many sums), and how many vectors it is wide.
TILES = [
    ("multiply_panels", "tall", 2),
    ("multiply_panels", "short", 2),
    ("multiply_direct", "tall", 2),
    ("multiply_direct", "short", 2),
    ("multiply_read", "tall", 2),
    ("multiply_read", "short", 2),
    ("multiply_part", "tall", 2),
    ("multiply_part", "short", 2),
    ("multiply_turned", "tall", 2),
    ("multiply_dots", 4, 3),
    ("multiply_dots", 6, 1),
    ("multiply_stack", "tall", 2),
    ("multiply_stack", "short", 2),
    ("small_dense", "tall", 2),
    ("multiply_plain", "tall", 2),
    ("multiply_plain", "short", 2),
    ("dense_gradients", "tall", 2),
    ("dense_gradients", "short", 2),
    ("multiply-2", "tall", 2),
    ("multiply-1", "tall", 1),
    ("multiply_far-2", "tall", 2),
    ("correlate-{tall}-2-True", "tall", 2),
    ("correlate-{tall}-2-False", "tall", 2),
    ("correlate-{low}-2-False", "low", 2),
    ("correlate_windows-{low}-2", "low", 2),
    ("correlate_turned-{turned}", "turned", 2),
    ("scatter_band", "tall", 2),
    ("adam_product", "tall", 2),
    ("multiply_tiles-False", "tall", 2),
    ("multiply_tiles-True", "tall", 2),
    ("multiply_windows-2", "tall", 2),
    ("convolve_rows-1-3", 4 * 3, 2),
    ("convolve_rows-1-5", 4 * 5, 2),
    ("convolve_box-1-3", 4 * 3, 2),
    ("convolve_box-1-5", 4 * 5, 2),
    ("correlate_box-1-3", 4 * 9, 1),
    ("correlate_box-1-5", 9, 1),
    ("correlate_box-4-1", 3 * 4, 1),
    ("forward-{state}x2", "state", 2),
    ("backward-{state}x2", "state", 2),
    ("forward-1x8", 1, 8),
    ("backward-1x8", 1, 8),
]
IN_DOUBLE = ("multiply_panels", "multiply-2", "correlate-")

# Kernels that go through memory a vector at a time, and what their loops do with whole vectors.
PACKED = {
    "convolve_rows-1-5": {"multiply-add"},
    "convolve_rows-4-1": {"multiply-add"},
    "convolve_box-4-1": {"multiply-add"},
    "transform_weights": {"multiply-add", "multiply"},
    "forward-{state}x2": {"multiply-add", "multiply", "divide"},
    "backward-{state}x2": {"multiply-add", "multiply", "divide"},
    "max_forward_chunk": {"compare"},
    "max_backward_chunk": {"compare integers"},
    "max_backward_narrow": {"compare integers"},
    "avg_forward_chunk": {"add"},
    "avg_backward_chunk": {"divide"},
    "avg_backward_narrow": {"divide"},
    "activation_tanh": {"multiply-add", "divide"},
    "activation_tanh_slope": {"multiply-add"},
    "activation_gelu": {"multiply-add", "multiply", "divide"},
    "activation_gelu_slope": {"multiply-add", "multiply", "divide"},
    "softmax_rows": {"multiply-add", "multiply"},
    "softmax_rows_backward": {"multiply-add"},
    "log_softmax_rows": {"multiply-add", "multiply"},
    "log_softmax_rows_backward": {"multiply-add", "multiply"},
    "loss_logistic": {"multiply-add", "divide"},
    "loss_logistic_slope": {"multiply-add", "divide"},
    "loss_softmax_given": {"multiply-add", "multiply"},
    "loss_softmax_given_slope": {"multiply-add", "multiply"},
    "loss_probability_given": {"multiply-add", "divide"},
    "loss_probability_given_slope": {"divide"},
    "sgd_chunk": {"multiply-add"},
    "momentum_chunk": {"multiply"},
    "rmsprop_chunk": {"multiply", "root", "divide"},
    "adam_chunk": {"multiply-add", "root", "divide"},
    "adam_product": {"multiply-add", "root", "divide"},
    "uniform_chunk": {"multiply-add"},
    "dropout_chunk": {"multiply"},
    "normal_chunk": {"multiply-add", "root", "divide"},
    "truncated_normal_chunk": {"multiply-add", "divide"},
}
# These compute in float64, whatever they return.
WIDE = "normal_chunk", "truncated_normal_chunk"


@pytest.fixture(scope="module")
def code():
    """A function of a target and a dtype: the assembly of the kernels above. All are begun at once."""
    with ThreadPoolExecutor(min(2, len(os.sched_getaffinity(0)))) as pool:
        calls = {AVX2: SINGLE + POOLING}
        single = {(target, "float32"): pool.submit(assembly, calls.get(target, SINGLE), target) for target in TARGETS}
        double = {(AVX2, "float64"): pool.submit(assembly, DOUBLE, AVX2)}
        yield lambda target, dtype: (single | double)[target, dtype].result()
        pool.shutdown(cancel_futures=True)


def lines(pattern, text):
    return [line for line in text if re.match(pattern, line)]


def loops_of(texts, target):
    return [loop for text in texts for loop in innermost_loops(text, target)]


def flaws(loop, target):
    """What must not be in a loop that computes."""
    found = {"calls": target.dialect.call, "one number at a time": target.dialect.scalar}
    return {what: lines(pattern, loop) for what, pattern in found.items() if lines(pattern, loop)}


# 12 taps of x where they are: no layer of the calls takes NEON's tile that way.
ABSENT = {(NEON, "correlate-{tall}-2-False")}
POINTS = [
    pytest.param(
        target,
        dtype,
        *tile,
        id=f"{target}-{dtype}-{tile[0]}-{tile[1]}",
    )
    for target in TARGETS
    for dtype in ("float32", "float64")
    for tile in TILES
    if dtype == "float32" or (target is AVX2 and tile[0].startswith(IN_DOUBLE))
    if (target, tile[0]) not in ABSENT
]


@pytest.mark.parametrize("target, dtype, kernel, tile, columns", POINTS)
def test_sums_stay_in_registers(code, target, dtype, kernel, tile, columns):
    """Every loop with a tile's multiply-adds has them in whole vectors, and stores nothing on the stack."""
    heights = HEIGHTS[target]
    step = heights.get(tile, tile) * columns
    multiply_add, divide = (target.packed(instruction, dtype) for instruction in ("multiply-add", "divide"))
    loops = loops_of(code(target, dtype)[kernel.format(**heights)], target)
    sums = [(loop, len(lines(multiply_add, loop))) for loop in loops if not lines(divide, loop)]  # no activation's
    hot = [loop for loop, count in sums if count and count % step == 0]
    assert hot, f"no loop with {step} multiply-adds, but with {sorted({count for _, count in sums})}"
    for loop in hot:
        assert not flaws(loop, target)
        assert not lines(target.dialect.stack_store, loop), "sums or addresses go through the stack"


# Loops over rows that stay in registers: the last step of a row's maximum and of its sum, and one quotient.
SCALARS = {"softmax_rows": 3, "softmax_rows_backward": 1, "log_softmax_rows": 2, "log_softmax_rows_backward": 1}


@pytest.mark.parametrize(
    "kernel, target",
    [(k, t) for k in PACKED for t in TARGETS if t is AVX2 or not k.startswith(("max_", "avg_"))],
    ids=str,
)
def test_loops_work_on_whole_vectors(code, target, kernel):
    dtype = "float64" if kernel in WIDE else "float32"
    needed = [target.packed(instruction, dtype) for instruction in PACKED[kernel]]
    loops = loops_of(code(target, "float32")[kernel.format(**HEIGHTS[target])], target)
    hot = [loop for loop in loops if all(lines(pattern, loop) for pattern in needed)]
    assert hot, f"no loop with all of {PACKED[kernel]}"
    for loop in hot:
        assert sum(map(len, flaws(loop, target).values())) <= SCALARS.get(kernel, 0), flaws(loop, target)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_random_bits_are_made_in_whole_vectors_and_turned_into_numbers_without_a_library(code, target):
    """A library takes one number at a time, and its results differ between machines."""
    for name in ("uniform_chunk", "dropout_chunk", "normal_chunk", "truncated_normal_chunk"):
        texts = code(target, "float32")[name]
        multiply = target.packed("multiply integers", "float32")
        assert any(lines(multiply, loop) for loop in loops_of(texts, target)), name
        for text in texts:
            library = [
                line for line in instructions(text, target) if re.search(r"\b(?:log|exp|sin|cos|sqrt|erf)f?\b", line)
            ]
            assert not library, f"{name}: {library}"


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_float32_kernels_do_no_float64_arithmetic(code, target):
    for name, texts in code(target, "float32").items():
        found = [line for text in texts for line in lines(target.dialect.float64, instructions(text, target))]
        assert not found or name in WIDE, f"{name}: {found}"


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_kernels_estimate_nothing_and_count_no_references(code, target):
    for name, texts in code(target, "float32").items():
        for text in texts:
            estimates = lines(target.dialect.estimate, instructions(text, target))
            assert not estimates, f"{name}: {estimates}"
            # Python calls some small ones directly, with arrays that it owns.
            assert "NRT_" not in text or "PyArg_" in text, f"{name}: two threads would fight over such a count"


BROKEN = {
    AVX2: """
sum:
    xorl %eax, %eax
.LBB0_1:
    vfmadd231ps (%rsi), %ymm1, %ymm0
    vmovaps %ymm0, 32(%rsp)
    jl .LBB0_3
    callq *%rax
    vmulss %xmm1, %xmm2, %xmm3
.LBB0_2:
    vmovaps (%rsi), %ymm4
    jne .LBB0_2
.LBB0_3:
    vaddsd %xmm1, %xmm2, %xmm3
    vrcpps %ymm1, %ymm2
    cmpq %rax, 8(%rsp)
    jne .LBB0_1
    retq
""",
    NEON: """
sum:
    mov x0, xzr
.LBB0_1:
    fmla v0.4s, v1.4s, v2.s[0]
    str q0, [sp, #32]
    b.lt .LBB0_3
    bl logf
    fmul s1, s2, s3
.LBB0_2:
    ldr q4, [x1]
    cbnz x2, .LBB0_2
.LBB0_3:
    fadd d1, d2, d3
    frecpe v1.4s, v2.4s
    b.ne .LBB0_1
    ret
""",
}


@pytest.mark.parametrize("target", BROKEN, ids=str)
def test_what_is_looked_for_would_be_seen(target):
    (inner,) = innermost_loops(BROKEN[target], target)
    assert len(inner) == 2
    text, dialect = instructions(BROKEN[target], target), target.dialect
    for pattern in (target.packed("multiply-add", "float32"), dialect.stack_store, dialect.float64, dialect.estimate):
        assert len(lines(pattern, text)) == 1
    (call,), (product, total) = flaws(text, target).values()
    assert "call" in call or "bl" in call
    assert "mul" in product and "add" in total
    # Without the loop inside, the branch around the call belongs to the loop.
    straight = BROKEN[target].replace("jne .LBB0_2", "nop").replace("cbnz x2, .LBB0_2", "nop")
    (loop,) = innermost_loops(straight, target)
    assert loop == [line for line in instructions(straight, target) if not line.endswith(":")][1:-1]
