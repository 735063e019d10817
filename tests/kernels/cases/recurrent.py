"""Cases for lstm and lstm_cell."""

import dataclasses

import workspaces
from harness import Case
from workspaces import rounded


def draw(rng, dtype, x_shape, hidden, bias, state, names):
    """Random weights, so that gates in another order would be seen; scaled so that few gates saturate."""

    def uniform(*shape):
        return rng.uniform(-1, 1, shape).astype(dtype)

    n, inputs = x_shape[0], x_shape[-1]
    return {
        "x": uniform(*x_shape),
        "w": uniform(inputs, 4 * hidden) / dtype.type(inputs**0.5),
        "u": uniform(hidden, 4 * hidden) / dtype.type(hidden**0.5),
        "b": uniform(4 * hidden) if bias else None,
        names[0]: uniform(n, hidden) if "h" in state else None,
        names[1]: uniform(n, hidden) if "c" in state else None,
    }


def label(bias, state):
    """What is missing, for the case's name."""
    return ("" if bias else "-unbiased") + {"hc": "", "": "-from-zero"}.get(state, f"-only-{state}0")


def workspace(variant, x, w, u, b, h, c):
    """As the docstrings of lstm and lstm_backward say, and those of lstm_cell for one step."""
    size, hidden, itemsize = x.shape[-1], u.shape[0], x.itemsize
    rows, columns, state, width = x.size // size, 4 * hidden, x.shape[0] * hidden, 128 // itemsize
    forward = rows * (size + 6 * hidden) + state + columns + (state if x.ndim == 2 else 0)
    backward = w.size + u.size + 2 * state
    if variant == "steps":
        return itemsize * forward, itemsize * (backward + x.size + 2 * columns + (state if x.ndim == 2 else 0))
    backward += rows * columns + 16 * columns
    products = (rows, size, columns), (size + hidden, columns, rows)
    if rows == x.shape[0]:  # one step
        forward = itemsize * (forward + 5 * state) + largest(((rows, columns, size), (rows, columns, hidden)), itemsize)
        return forward, itemsize * backward + largest((*products, (rows, hidden, columns)), itemsize)
    side = width * {1: 4, 2: 2}.get(x.shape[0], 1)
    forward += rounded(columns, width) * size + rounded(columns, side) * hidden
    backward += columns * rounded(hidden, side)
    return itemsize * forward, itemsize * backward + largest(products, itemsize)


def largest(products, itemsize):
    return max(workspaces.product("threaded", *shape, itemsize) for shape in products)


def sequence(n, steps, inputs, hidden, bias=True, state="hc"):
    names = "h0", "c0"
    return Case(
        "lstm",
        f"{n}x{steps}x{inputs}to{hidden}{label(bias, state)}",
        lambda rng, dtype: draw(rng, dtype, (n, steps, inputs), hidden, bias, state, names),
        wrt=("x", "w", "u", "b", *names),
        length=n * steps + inputs + 4 * hidden,
        workspace=workspace,
        backward=lambda function, douts, saved, needs: function(douts[0], saved, needs, dh=douts[1], dc=douts[2]),
    )


def cell(n, inputs, hidden, bias=True, state="hc"):
    names = "h", "c"
    return Case(
        "lstm_cell",
        f"{n}x{inputs}to{hidden}{label(bias, state)}",
        lambda rng, dtype: draw(rng, dtype, (n, inputs), hidden, bias, state, names),
        wrt=("x", "w", "u", "b", *names),
        length=n + inputs + 4 * hidden,
        workspace=workspace,
        backward=lambda function, douts, saved, needs: function(douts[0], saved, needs, dc=douts[1]),
    )


CASES = [
    # Rows that straddle the register tile (8 or 6) and the chunk, units that straddle a vector (16, 8, 4).
    *(
        sequence(n, 3, 5, hidden)
        for n, hidden in [(1, 1), (5, 3), (6, 4), (7, 7), (8, 8), (9, 9), (15, 15), (16, 16), (17, 17), (3, 33)]
    ),
    sequence(32, 4, 10, 64),
    sequence(131, 2, 3, 5),
    sequence(2, 1, 4, 6),
    # A U of more than two megabytes, which threads share out by units.
    sequence(5, 3, 7, 384),
    sequence(1, 1, 1, 1),
    sequence(3, 40, 2, 5),
    sequence(4, 5, 1, 20, bias=False),
    sequence(4, 5, 3, 20, state=""),
    sequence(4, 5, 3, 20, bias=False, state=""),
    sequence(4, 5, 3, 20, state="h"),
    sequence(4, 5, 3, 20, state="c"),
    *(cell(n, inputs, hidden) for n, inputs, hidden in [(1, 2, 3), (7, 3, 15), (8, 100, 16), (9, 5, 17), (3, 4, 40)]),
    cell(4, 3, 5, bias=False),
    cell(4, 3, 5, state=""),
    # What straddles the GPU's tiles: 16 rows, 16 units, 64 terms on the way back; 32 terms.
    sequence(17, 2, 3, 5),
    sequence(2, 2, 2, 18, bias=False, state="h"),
    cell(1, 2, 33),
]

# On a GPU: which of these run in the simulator.
SIMULATED = {"17x2x3to5", "2x2x2to18-unbiased-only-h0", "4x3to5-from-zero", "1x2to33"}
CASES = [dataclasses.replace(case, simulate=case.id in SIMULATED) for case in CASES]
