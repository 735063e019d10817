"""How many instructions kernels take for the bytes they move: so few that memory and not they should set the time.

Counted where compiled kernels are executed. An H200 has 132 processors that begin four instructions of warps a cycle
each, 1.7 10^9 cycles a second by assumption, and its memory moves, also by assumption, 4.2 10^12 bytes in a second: 4.7
for an instruction. A share of 1 is an instruction for each 4.7 bytes; it is no measurement of time.

PTX is not a GPU's own code: what becomes several instructions there counts as many here, roughly.
"""

import re

import compiled
import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import simulated

pytestmark = [
    pytest.mark.skipif(not compiled.COMPILED, reason="needs compiled kernels: make test-ptx runs these"),
    pytest.mark.usefixtures("kernels_run"),
]

BYTES = 4.2e12 / (132 * 4 * 1.7e9)
# Of 64 bits a GPU computes with two of 32; divisions are subroutines; what ex2 and rcp begin keeps a unit busy.
COSTS = (
    (r"(div|rem)\.[su]64", 110), (r"(div|rem)\.[su]32", 22), (r"(div|sqrt|rcp)\.rn\.f32", 10),
    (r"(ex2|rcp)\.approx.*", 4),
    (r"(mul\.lo|mad\.lo|min|max)\.[su]64", 4), (r"(add|sub|neg|and|or|xor|not|shl|shr|selp|setp\.\w+)\.[sub]64", 2),
    (r"mov.*|ld\.param.*|cvta.*|cvt\.u32\.u64", 0.3),
)  # fmt: skip


def cost(operation):
    return next((number for pattern, number in COSTS if re.fullmatch(pattern, operation)), 1)


def drawn(*shape):
    return simulated(np.random.default_rng(1).uniform(0.1, 1, shape).astype(np.float32))


def both(op, *args, **options):
    """Forward and backward."""
    y, saved = getattr(kernels, f"{op}_forward")(*args, **options)
    getattr(kernels, f"{op}_backward")(simulated(np.ones(np.shape(y), np.float32)), saved)


def labels(rows, classes):
    return simulated(np.arange(rows) * 7 % classes)


STATE = {"step": 3, "learning_rate": 1e-3, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
# {kernel: the share that it may have}, of what is launched for a call
CASES = {
    "relu": (lambda: both("relu", drawn(64, 512)), {"apply_function": 0.25, "multiply_by_slope": 0.2}),
    "dropout": (lambda: both("dropout", drawn(64, 512), 0.5, seed=1), {"drop": 0.9}),
    "adam": (lambda: kernels.adam_update(*(drawn(1 << 15) for _ in range(4)), **STATE), {"update_adam": 0.5}),
    "softmax": (
        lambda: both("softmax", drawn(64, 1000)), {"normalize_registers": 0.45, "slope_registers": 0.1},
    ),
    "softmax of ten": (
        lambda: both("softmax", drawn(2048, 10)), {"normalize_registers": 0.65, "slope_registers": 0.25},
    ),
    "cross-entropy": (
        lambda: both("sparse_softmax_cross_entropy", drawn(64, 1000), labels(64, 1000)),
        {"lose_softmax": 1.0, "slope_softmax": 0.5},
    ),
    "cross-entropy of ten": (
        lambda: both("sparse_softmax_cross_entropy", drawn(2048, 10), labels(2048, 10)),
        {"lose_softmax": 1.6, "slope_softmax": 0.6},
    ),
    "count of answers": (
        lambda: kernels.count_correct_binary(drawn(1 << 15), drawn(1 << 15)), {"count_right_answers": 0.5},
    ),
    "count of ten": (
        lambda: kernels.count_correct(drawn(2048, 10), labels(2048, 10)), {"count_right_rows": 2.2},
    ),
    "max": (
        lambda: both("max_pool2d", drawn(1, 28, 28, 64)), {"take_maxima": 0.4, "collect_from_maxima": 0.65},
    ),
    "max of overlapping windows": (
        lambda: both("max_pool2d", drawn(1, 28, 28, 64), 3, strides=2, padding="same"),
        {"take_maxima": 0.75, "collect_from_maxima": 1.1},
    ),
    "mean": (
        lambda: both("avg_pool2d", drawn(1, 28, 28, 64)), {"take_means": 0.4, "collect_from_means": 0.65},
    ),
    "mean of overlapping windows": (
        lambda: both("avg_pool2d", drawn(1, 28, 28, 64), 3, strides=2, padding="same"),
        {"take_means": 0.6, "collect_from_means": 0.9},
    ),
    "mean of images": (
        lambda: both("global_avg_pool2d", drawn(2, 7, 7, 512)), {"take_shared_means": 0.6, "collect_from_means": 0.8},
    ),
    "lstm": (
        lambda: kernels.lstm_forward(drawn(8, 3, 100), drawn(100, 256), drawn(64, 256), drawn(256)),
        {"begin_sequence": 1.3, "interleave_gates": 0.3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_instructions_for_the_bytes(case):
    call, shares = CASES[case]
    with compiled.counting() as launches:
        call()
    found = {}
    for kernel, size, tally in launches:
        if kernel in shares:
            found[kernel] = BYTES * sum(cost(operation) * warps for operation, warps in tally.items()) / size
    assert found.keys() == shares.keys()
    for kernel, share in found.items():
        assert shares[kernel] / 2 < share < shares[kernel], f"{kernel}: {share:.2f}; state what it takes now"
