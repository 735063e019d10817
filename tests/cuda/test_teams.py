"""Rows of all lengths, for which teams of one lane to a block are made: what softmax, the losses and counts find."""

import numpy as np
import pytest

from handloom import kernels
from handloom.kernels.arrays import simulated

pytestmark = [
    pytest.mark.usefixtures("kernels_run"),
    # Inf - Inf and the like: NumPy says so, a GPU does not.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
# A lane; two; several, of which the last has nothing left; a warp, all or in part; a block; a block that comes again.
LENGTHS = (1, 5, 6, 20, 27, 1000, 1021, 1028, 8192 + 3)


def drawn(rows, length, dtype=np.float32):
    rng = np.random.default_rng(length)
    x = rng.normal(0, 3, (rows, length)).astype(dtype)
    t = rng.uniform(0.1, 1, (rows, length)).astype(dtype)
    return x, t / t.sum(-1, keepdims=True), rng.integers(0, length, rows)


@pytest.mark.parametrize("width, itemsize", [(1, 4), (4, 4), (1, 8), (2, 8)])
def test_a_team_holds_its_row_and_no_smaller_one_would_do(width, itemsize):
    from handloom.kernels.teams import ACCESSES, HELD, SECTOR, THREADS, team_of

    sizes = []
    for length in range(width, 9000, width):
        team = team_of(length, width, itemsize)
        assert team.whole == (length <= team.chunk) and team.held * itemsize <= HELD
        assert not team.whole or length > team.chunk - team.size * width, "an access too many"
        if 1 < team.size < THREADS:
            half = length / (team.size // 2)
            assert half * itemsize > HELD or (half > ACCESSES * width and team.size // 2 * width * itemsize < SECTOR)
        sizes.append(team.size)
    assert sizes == sorted(sizes) and set(sizes) == {1, 2, 4, 8, 16, 32, THREADS}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(op, length):
    x, dy, _ = drawn(5, length)
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    (y, saved), (there, saved_there) = forward(x), forward(simulated(x))
    np.testing.assert_allclose(there, y, rtol=1e-5, atol=1e-7)
    (dx,), (dx_there,) = backward(dy, saved), backward(simulated(dy), saved_there)
    np.testing.assert_allclose(dx_there, dx, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("op", ["softmax_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("sparse", [False, True], ids=["rows", "labels"])
def test_losses(op, sparse, length):
    x, t, labels = drawn(5, length)
    y = kernels.softmax(x) if op.startswith("categorical") else x
    op, t = (f"sparse_{op}", labels) if sparse else (op, t)
    forward, backward = getattr(kernels, f"{op}_forward"), getattr(kernels, f"{op}_backward")
    (loss, saved), (there, saved_there) = forward(y, t), forward(simulated(y), simulated(t))
    np.testing.assert_allclose(there, loss, rtol=2e-5, atol=1e-6)
    (dy,), (dy_there,) = backward(1.0, saved), backward(1.0, saved_there)
    np.testing.assert_allclose(dy_there, dy, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
def test_counts(length):
    x, t, labels = drawn(5, length)
    t[::2] = x[::2]
    labels[1:] = x[1:].argmax(-1)
    x[3] = x[3].max()  # all equal: the first one counts
    for expected in (t, labels):
        there = kernels.count_correct(simulated(x), simulated(expected))
        assert there == kernels.count_correct(x, expected) >= 3


@pytest.mark.parametrize("length", [1028, 8192 + 4])
def test_extreme_rows_of_blocks(length):
    x = np.zeros((7, length), np.float32)
    x[0, :2] = 1e4, -1e4
    x[1] = -1e4
    x[2], x[2, -1] = -np.inf, 0
    x[3], x[4, 20], x[5, -2] = -np.inf, np.inf, np.nan
    x[6, : length // 2] = -np.inf
    for op in ("softmax", "log_softmax"):
        here, there = (getattr(kernels, op)(array) for array in (x, simulated(x)))
        np.testing.assert_allclose(there, here, rtol=1e-6)
        assert np.isnan(there[3:6]).all() and not np.isnan(there[[0, 1, 2, 6]]).any()
