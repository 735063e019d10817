"""Recurrent networks: `lstm` over whole sequences, and `lstm_cell`, one step of it.

For every step t, with H hidden units and the gates in Keras's order i, f, c, o (input, forget, candidate, output):

    z = x[:, t] W + h U + b                       (N, 4H) = [ z_i | z_f | z_c | z_o ]
    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o);  g = tanh(z_c)
    c = f c + i g
    h = o tanh(c)                                 y[:, t] = h

S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); the forget gate is from
F. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget", Neural Computation 12 (2000).

Arrays that are not C-contiguous are copied first. In the workspaces below, columns that lie in panels are rounded up to
32 (16 with float64); for U and one row of the batch to four times as many, for two rows to twice as many.
"""

from typing import NamedTuple

import numpy as np

from .. import checks
from ..arrays import contiguous, copy_of
from ..dispatch import Variants, device_of

_LADDER = {"steps": "cpu:STEPS", "fused": "cpu:FUSED"}
_CUDA_LADDER = {"stepwise": "cuda:STEPWISE", "fused": "cuda:FUSED"}
VARIANTS = {op: Variants(op, __name__, cpu=_LADDER, cuda=_CUDA_LADDER) for op in ("lstm", "lstm_cell")}

_INPUTS = {"lstm": ("x", "w", "u", "b", "h0", "c0"), "lstm_cell": ("x", "w", "u", "b", "h", "c")}


class LstmSaved(NamedTuple):
    """What the backward pass needs: the weights, which inputs were given, and what each step saw and computed."""

    w: np.ndarray
    u: np.ndarray
    given: tuple  # six bools, for x, w, u, b, h0, c0
    inputs: np.ndarray  # (N, T, I + H): x, and h before the step
    gates: np.ndarray  # (N, T, 4H): i, f, g, o after their activations
    cells: np.ndarray  # (N, T + 1, H): c before each step, and after the last
    variant: str | None


def lstm(x, w, u, b=None, h0=None, c0=None, *, variant=None):
    """y[:, t], c = step(x[:, t], y[:, t - 1], c) for t = 0 ... T - 1, with the step that the module's text gives.

    Parameters
    ----------
    x : (N, T, I) float32 | float64, any strides
    w : (I, 4H), dtype as x; columns in the order i, f, c, o
    u : (H, 4H), dtype as x; columns likewise
    b : (4H,), dtype as x, or None
    h0, c0 : (N, H), dtype as x: the state before the first step; None means zeros
    variant : a name in VARIANTS["lstm"]["cpu"]: steps, fused (the default); on a GPU stepwise, fused (the default)

    Workspace: w and u in panels (not for the variant steps; where u has one megabyte or two, that of the product x W
    instead of w's; where T is 1, that of the products x W and h U, and 5 N H numbers), 4H zeros for a missing b; and
    where nothing is saved, N T (I + 6H) + N H numbers for inputs, gates and states.
    On a GPU u once more and the state twice, H rounded up to 4 (stepwise: 5 N H numbers), zeros for a missing h0 or c0;
    and where nothing is saved, 5 N T H + N H numbers.

    Returns
    -------
    y : (N, T, H), h after every step
    (h, c) : both (N, H), the state after the last step, as arrays of their own

    Raises
    ------
    ValueError : shapes that do not fit, no rows or no steps, an unknown variant.
    TypeError : dtypes other than float32, float64, or mixed.

    Saved for backward: w and u; for each step x, h and c before it, and the gates after their activations.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> y, (h, c) = kernels.lstm(np.ones((1, 2, 3)), np.zeros((3, 4)), np.zeros((1, 4)), np.full(4, 100.0))
    >>> y.round(2), c
    (array([[[0.76],
            [0.96]]]), array([[2.]]))
    """
    y, saved = _run("lstm", (x, w, u, b, h0, c0), variant, keep=False)
    return y, _last_state(y, saved)


def lstm_forward(x, w, u, b=None, h0=None, c0=None, *, variant=None):
    """`lstm`, and what its backward needs."""
    y, saved = _run("lstm", (x, w, u, b, h0, c0), variant, keep=True)
    return (y, _last_state(y, saved)), saved


def lstm_backward(dy, saved, needs=None, *, dh=None, dc=None):
    """(dx, dw, du, db, dh0, dc0) from the gradients of y (N, T, H) and of the last state, dh and dc (N, H).

    Those of dy, dh and dc that are None count as zero; one must be given. A gradient is None where `needs`, six bools,
    says so, and for b, h0, c0 where that input was None.

    Workspace: 4 N T H numbers for dz, 4H for each of at most 16 chunks of rows, dh and dc once more, Uᵀ in panels
    (where T is 1, the workspace of the product dz Uᵀ), and that of the products dz Wᵀ for dx and [x h]ᵀ dz for dw and
    du (see matmul), the larger; where dw or du alone is wanted, the other one too. Of the variant steps: all gradients,
    those that are not wanted too, dy where that is None, and 4H numbers. On a GPU 4 N T H numbers for dz (stepwise:
    4 N H more), a row of 4H for every 64 of dz, dh and dc once more, the other of dw and du, and what their products
    take (see matmul).

    Going back from t = T - 1, with dh and dc the gradients of the state after step t:

        dh += dy[:, t];   dc += dh o (1 - tanh(c)^2)
        dz = [ dc g i (1 - i) | dc c_before f (1 - f) | dc i (1 - g^2) | dh tanh(c) o (1 - o) ]
        dh = dz U^T;      dc = dc f
        dW = sum of x[:, t]^T dz;   dU = sum of h_before^T dz;   db = sum of dz's rows;   dx[:, t] = dz W^T
    """
    return _run_back("lstm", saved, needs, dy=dy, dh=dh, dc=dc)


def lstm_cell(x, w, u, b, h, c, *, variant=None):
    """(h, c) after one step of `lstm`.

    Parameters
    ----------
    x : (N, I) float32 | float64, any strides
    w, u, b : as in `lstm`
    h, c : (N, H), dtype as x: the state before the step; None means zeros
    variant : as in `lstm`

    Returns h, c : (N, H).  Raises as `lstm`.  Saved for backward: as in `lstm`, for one step.  Workspace: as `lstm` for
    T = 1, and h once more.

    >>> import numpy as np
    >>> from handloom import kernels
    >>> h, c = kernels.lstm_cell(np.ones((1, 3)), np.zeros((3, 4)), np.zeros((1, 4)), np.full(4, 100.0), None, None)
    >>> h.round(2), c
    (array([[0.76]]), array([[1.]]))
    """
    y, saved = _run("lstm_cell", (x, w, u, b, h, c), variant, keep=False)
    return _last_state(y, saved)


def lstm_cell_forward(x, w, u, b, h, c, *, variant=None):
    """`lstm_cell`, and what its backward needs."""
    y, saved = _run("lstm_cell", (x, w, u, b, h, c), variant, keep=True)
    return _last_state(y, saved), saved


def lstm_cell_backward(dh, saved, needs=None, *, dc=None):
    """(dx, dw, du, db, dh0, dc0) from the gradients of h and c after the step (N, H); as in `lstm_backward`.

    dh or dc may be None, which counts as zero.  Workspace: as in `lstm_backward` for T = 1.
    """
    dx, *others = _run_back("lstm_cell", saved, needs, dh=dh, dc=dc)
    return None if dx is None else dx[:, 0], *others


def _run(op, inputs, variant, keep):
    """(y, saved) of either operation; unless `keep`, what is saved lies in memory that the next call takes again."""
    named = dict(zip(_INPUTS[op], inputs))
    always, optional = (dict(zip(_INPUTS[op][part], inputs[part])) for part in (slice(3), slice(3, None)))
    passes = VARIANTS[op].launcher(device_of(op, optional, **always), variant)
    _check(op, named)
    x, *others = inputs
    x = contiguous(x if op == "lstm" else x[:, None])
    y, *trace = passes.forward(x, *others, keep)
    given = tuple([array is not None for array in inputs])
    return y, LstmSaved(others[0], others[1], given, *trace, variant)


def _last_state(y, saved):
    return copy_of(y[:, -1]), copy_of(saved.cells[:, -1])


def _run_back(op, saved, needs, dy=None, **state):
    """The six gradients of either operation, from dy and those of the last state."""
    name = f"{op}_backward"
    needs = checks.wanted(name, needs, _INPUTS[op])
    gradients = {"dy": dy, **state} if op == "lstm" else state
    if all(gradient is None for gradient in gradients.values()):
        raise ValueError(f"{name}: {', '.join(gradients)} are all None: at least one must be given")
    passes = VARIANTS[op].launcher(device_of(name, gradients, u=saved.u), saved.variant)
    checks.floats(name, u=saved.u, **gradients)
    n, steps, hidden = *saved.inputs.shape[:2], saved.u.shape[0]
    checks.shape(name, (n, steps, hidden), dy=dy)
    checks.shape(name, (n, hidden), **state)
    needs = tuple(need and given for need, given in zip(needs, saved.given))
    return passes.backward(saved, needs, dy, **state)


def _check(op, named):
    x, w, u, b, *state = named.values()
    checks.floats(op, **named)
    checks.rank(op, *((3, "(N, T, I)") if op == "lstm" else (2, "(N, I)")), x=x)
    checks.rank(op, 2, "(I, 4H)", w=w)
    checks.rank(op, 2, "(H, 4H)", u=u)
    checks.not_empty(op, x=x, u=u)
    hidden, gates = u.shape
    if gates != 4 * hidden:
        raise ValueError(f"{op}: u is {u.shape}: must be (H, 4H), for example ({hidden}, {4 * hidden})")
    if w.shape != (x.shape[-1], gates):
        raise ValueError(f"{op}: w is {w.shape}: must be {(x.shape[-1], gates)} for x {x.shape} and u {u.shape}")
    checks.shape(op, (gates,), b=b)
    checks.shape(op, (x.shape[0], hidden), **dict(zip(_INPUTS[op][4:], state)))
