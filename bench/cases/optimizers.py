"""Optimizer steps: one call for all parameters of a model."""

from functools import partial

from ...kernels import adam_update, sgd_update
from ..case import Candidate, Case, Work, draw, size_of

ADAM = {"step": 1, "learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
SGD = {"learning_rate": 0.01, "momentum": 0.9}


def _update(op, update, options, states, flops, size, dtype):
    """What is compared is one update from the start; what is timed goes on from there."""
    from ...kernels.optimizers import reference
    from .. import peers

    start, gradient = draw(size, dtype), draw(size, dtype, 1, 1, 2)  # away from 0: where epsilon sits differs in torch
    w, g, state = start.copy(), gradient, [start * 0 for _ in range(states)]

    def result():
        w[...] = start
        for array in state:
            array.fill(0)
        update(w, g, *state, **options)
        return w.copy()

    zeros = [start * 0] * states
    return Work(
        lambda variant: Candidate(lambda: update(w, g, *state, **options), result),
        lambda: getattr(reference, op)(start, gradient, *zeros, **options)[0],
        peers.of_optimizer(op, start, gradient, options),
        flops * size,
        size_of(w, g, w) + 2 * size_of(*state),
    )


CASES = [
    Case(
        "optimizers",
        op,
        "",
        f"{size}",
        partial(_update, op, update, options, states, flops, size),
        quick=size == 700_000,
    )
    for op, update, options, states, flops in (
        ("adam_update", adam_update, ADAM, 2, 12),
        ("sgd_update", sgd_update, SGD, 1, 4),
    )
    for size in (7_000, 700_000, 25_000_000)
]
