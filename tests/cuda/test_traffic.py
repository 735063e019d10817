"""What accesses cost beyond their bytes: turns of shared memory's banks and sectors of global memory, counted in the
simulator on whole tiles. Every line that is not named here costs the least that its bytes can.
"""

import numpy as np
import pytest
from numba import cuda, float32
from numba.core import config

from handloom import kernels
from handloom.kernels.arrays import simulated
from handloom.kernels.dispatch import backend
from handloom.kernels.launch import kernel, pointer

if not config.ENABLE_CUDASIM:
    pytest.skip("not in the simulator: make test-cuda runs these", allow_module_level=True)
# Without the toolkit these cannot be imported.
from traffic import traffic  # noqa: E402

from handloom.kernels.ptx import load, store  # noqa: E402

ml_dtypes = pytest.importorskip("ml_dtypes")
product = backend("handloom.kernels.gemm", "cuda").product

SHARED, GLOBAL, STORE, LOAD = True, False, True, False


def ones(*shape, dtype=np.float32):
    return simulated(np.ones(shape, dtype))


def assert_costs(run, exceptions):
    """exceptions: {(kernel, shared?, store?): times the least}"""
    found = {}
    for site in traffic(run):
        key = site.kernel, site.shared, site.store
        found[key] = max(found.get(key, 1), site.ratio)
    assert found, "nothing was launched"
    assert {key: ratio for key, ratio in found.items() if ratio > 1} == exceptions


ORIENTATIONS = pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)], ids=str)


def multiply(variant, size, k, turned, dtype=np.float32):
    a, b = ((k, size) if turned[0] else (size, k)), ((size, k) if turned[1] else (k, size))
    operands = ones(*a, dtype=dtype), ones(*b, dtype=dtype)
    return lambda: kernels.matmul(*operands, transpose_a=turned[0], transpose_b=turned[1], variant=variant)


@ORIENTATIONS
def test_register_tiles(turned):
    """Terms are stored down the columns of a tile without a conflict; rows and columns meet a neighbour's at times."""
    twice = (not turned[0] and not turned[1]) or turned[0]
    assert_costs(multiply("registers", 64, 8, turned), {("multiply_registers", SHARED, STORE): 2} if twice else {})


@ORIENTATIONS
def test_vectors(turned):
    assert_costs(multiply("vectors", 64, 16, turned), {})


def test_large_blocks_cost_no_more(monkeypatch):
    monkeypatch.setattr(product, "BLOCKS", 1)
    assert_costs(multiply("vectors", 128, 8, (False, False)), {})


@pytest.mark.parametrize("dtype, turned", [(np.float32, (True, True)), (ml_dtypes.bfloat16, (False, False))], ids=str)
def test_tensor_cores(dtype, turned):
    """In the end a thread reads 32 bytes of shared memory for eight results in bfloat16."""
    exceptions = {} if dtype == np.float32 else {("multiply_tensor", SHARED, LOAD): 2}
    assert_costs(multiply("tensor", 128, 64 // np.dtype(dtype).itemsize, turned, dtype), exceptions)


@pytest.mark.parametrize("turned", [(False, True), (True, False)], ids=str)
def test_warpgroups(turned):
    """They read lines of tiles, eight at once, without a conflict."""
    run = multiply("warpgroup", 256, 64, turned, ml_dtypes.bfloat16)
    assert_costs(run, {("multiply_warpgroup", SHARED, LOAD): 2})


def test_the_simplest_products():
    """Each thread of a row reads the same numbers of A. Tiles in shared memory of 16 columns: two rows at a time."""
    assert_costs(multiply("naive", 32, 4, (False, False)), {})
    assert_costs(multiply("shared", 16, 16, (False, False)), {})


def test_convolutions():
    x, w, results = ones(1, 1, 34, 8), ones(1, 3, 8, 64), []
    assert_costs(lambda: results.append(kernels.conv2d_forward(x, w, variant="implicit")), {})
    assert_costs(lambda: kernels.conv2d_backward(*results[0], (False, True, False)), {})


def test_fewer_multiplications(monkeypatch):
    """The transforms alone."""
    winograd = backend("handloom.kernels.convolution", "cuda").winograd
    monkeypatch.setattr(winograd, "pays", lambda *sizes: True)
    monkeypatch.setattr(winograd.gemm_default, "stack", lambda v, u, m: m.fill(1))
    assert_costs(lambda: kernels.conv2d(ones(1, 6, 10, 32), ones(3, 3, 32, 32), variant="winograd"), {})


def test_lstm():
    """The bias of the product x W, once; and in the gradient the groups' sums, whose rows are then read without a
    conflict."""
    x, w, u, b, results = ones(16, 2, 8), ones(8, 64), ones(16, 64), ones(64), []
    assert_costs(lambda: results.append(kernels.lstm_forward(x, w, u, b)), {("multiply_vectors", GLOBAL, LOAD): 4})
    (y, *_), saved = results[0]
    only_u = False, False, True, False, False, False
    assert_costs(lambda: kernels.lstm_backward(y, saved, only_u), {("step_backward", SHARED, STORE): 2})


def test_what_goes_through_memory_once():
    x, pixels = ones(8, 256), ones(2, 6, 6, 32)
    targets = kernels.softmax(x)
    y, pooled = kernels.max_pool2d_forward(pixels, 2)
    wide_y, wide = kernels.max_pool2d_forward(ones(2, 4, 4, 64), 2)
    w, g, m, v = (ones(1024) for _ in range(4))
    step = {"step": 1, "learning_rate": 0.1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
    for run in (
        lambda: kernels.softmax(x),
        lambda: kernels.relu(x),
        lambda: kernels.dropout(x, 0.5, seed=1),
        lambda: kernels.softmax_cross_entropy(x, targets),
        lambda: kernels.max_pool2d(pixels, 2),
        lambda: kernels.max_pool2d_backward(y, pooled),
        lambda: kernels.max_pool2d_backward(wide_y, wide),
        lambda: kernels.avg_pool2d(pixels, 2),
        lambda: kernels.global_max_pool2d(pixels),
        lambda: kernels.adam_update(w, g, m, v, **step),
    ):
        assert_costs(run, {})


@kernel(threads=32)
def turn(x: pointer(float32), y: pointer(float32)):
    """32 x 32 numbers, turned in shared memory, whose columns lie in one bank."""
    tile = cuda.shared.array(1024, float32)
    lane = cuda.threadIdx.x
    for i in range(32):
        store(tile, i * 32 + lane, load(x, i * 32 + lane))
    cuda.syncthreads()
    for i in range(32):
        store(y, i * 32 + lane, load(tile, lane * 32 + i))


def test_what_costs_more_is_seen():
    """And a softmax whose threads take a row each: a sector for every number, of which it holds eight."""
    assert_costs(lambda: turn((1,), ones(1024), ones(1024)), {("turn", SHARED, LOAD): 32})
    assert_costs(
        lambda: kernels.softmax(ones(32, 8), variant="three-pass"),
        {("normalize_three_pass", GLOBAL, LOAD): 8, ("normalize_three_pass", GLOBAL, STORE): 8},
    )
