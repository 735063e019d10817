"""The LSTM in plain NumPy, one step after another: what the kernels are checked against."""

import numpy as np


def _sigmoid(z):
    return 0.5 * np.tanh(0.5 * z) + 0.5


def _run(x, w, u, b, h0, c0):
    """Every step's gates (i, f, g, o) and states; h and c hold the state before step t at t, the last one at T."""
    n, steps, _ = x.shape
    hidden = u.shape[0]
    h = [np.zeros((n, hidden), x.dtype) if h0 is None else h0]
    c = [np.zeros((n, hidden), x.dtype) if c0 is None else c0]
    gates = []
    for t in range(steps):
        z = x[:, t] @ w + h[t] @ u
        if b is not None:
            z = z + b
        zi, zf, zg, zo = np.split(z, 4, axis=1)
        i, f, g, o = _sigmoid(zi), _sigmoid(zf), np.tanh(zg), _sigmoid(zo)
        c.append(f * c[t] + i * g)
        h.append(o * np.tanh(c[t + 1]))
        gates.append((i, f, g, o))
    return gates, h, c


def lstm(x, w, u, b=None, h0=None, c0=None):
    """All outputs, and the last state."""
    _, h, c = _run(x, w, u, b, h0, c0)
    return np.stack(h[1:], axis=1), (h[-1], c[-1])


def lstm_backward(dy, dh, dc, x, w, u, b=None, h0=None, c0=None):
    """Backward through time: the gradients of y and of the last state arrive, all inputs' gradients leave."""
    gates, h, c = _run(x, w, u, b, h0, c0)
    dx, dw, du, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u), np.zeros_like(w[0])
    for t in reversed(range(x.shape[1])):
        i, f, g, o = gates[t]
        dh = dh + dy[:, t]
        tanh_c = np.tanh(c[t + 1])
        dc = dc + dh * o * (1 - tanh_c**2)
        di, df, dg, do = dc * g, dc * c[t], dc * i, dh * tanh_c
        dz = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
        dx[:, t] = dz @ w.T
        dw += x[:, t].T @ dz
        du += h[t].T @ dz
        db += dz.sum(axis=0)
        dh, dc = dz @ u.T, dc * f
    return (
        dx, dw, du,
        None if b is None else db, None if h0 is None else dh, None if c0 is None else dc,
    )  # fmt: skip


def lstm_cell(x, w, u, b, h, c):
    """One step."""
    return lstm(x[:, None], w, u, b, h, c)[1]


def lstm_cell_backward(dh, dc, x, w, u, b, h, c):
    dy = np.zeros((x.shape[0], 1, u.shape[0]), x.dtype)
    dx, *others = lstm_backward(dy, dh, dc, x[:, None], w, u, b, h, c)
    return dx[:, 0], *others
