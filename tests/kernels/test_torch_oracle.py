"""conv2d, pooling, lstm and their gradients against torch: an implementation that shares nothing with ours.

Random weights, several channels, gate order mapped by name.
"""

import numpy as np
import pytest
from harness import assert_close

from handloom import kernels

pytestmark = pytest.mark.oracle


@pytest.fixture
def draw():
    rng = np.random.default_rng(3)
    return lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)


def nchw(torch, array):
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2))).requires_grad_()


def nhwc(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((4, 11, 9, 3), (3, 3, 3, 20), {}),
        ((2, 12, 17, 8), (3, 2, 8, 33), {"strides": (2, 3)}),
        ((2, 10, 10, 6), (3, 3, 2, 9), {"groups": 3, "padding": ((1, 1), (1, 1))}),
        ((2, 15, 13, 5), (3, 3, 5, 16), {"dilation": (2, 1), "padding": ((2, 2), (1, 1))}),
        ((3, 9, 9, 7), (1, 1, 7, 4), {}),
        ((2, 14, 14, 1), (5, 5, 1, 1), {"strides": 2}),
        ((2, 8, 8, 12), (3, 3, 1, 12), {"groups": 12}),
    ],
)
def test_convolution(torch, draw, x_shape, w_shape, options):
    x, w, b = draw(*x_shape), draw(*w_shape), draw(w_shape[-1])
    y, saved = kernels.conv2d_forward(x, w, b, **options)
    tx, tw = nchw(torch, x), torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1))).requires_grad_()
    tb = torch.from_numpy(b).requires_grad_()
    padding = [side[0] for side in options.get("padding", ((0, 0), (0, 0)))]
    ty = torch.nn.functional.conv2d(
        tx, tw, tb, options.get("strides", 1), padding, options.get("dilation", 1), options.get("groups", 1)
    )
    length = y.size
    assert_close(y, nhwc(ty), length, "output")
    dy = draw(*y.shape)
    ty.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    dx, dw, db = kernels.conv2d_backward(dy, saved)
    assert_close(dx, nhwc(tx.grad), length, "data gradient")
    assert_close(dw, tw.grad.permute(2, 3, 1, 0).numpy(), length, "weight gradient")
    assert_close(db, tb.grad.numpy(), length, "bias gradient")


@pytest.mark.parametrize("size, strides", [(2, 2), (3, 2), ((3, 2), (1, 2)), (3, 1)])
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_pooling(torch, draw, kind, size, strides, channels):
    x = draw(3, 13, 11, channels)
    y, saved = getattr(kernels, f"{kind}_pool2d_forward")(x, size, strides=strides)
    tx = nchw(torch, x)
    ty = getattr(torch.nn.functional, f"{kind}_pool2d")(tx, size, strides)
    assert_close(y, nhwc(ty), 9, "output")
    dy = draw(*y.shape)
    ty.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    (dx,) = getattr(kernels, f"{kind}_pool2d_backward")(dy, saved)
    assert_close(dx, nhwc(tx.grad), 9, "gradient")


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_global_pooling(torch, draw, kind):
    x = draw(3, 7, 6, 21)
    y, saved = getattr(kernels, f"global_{kind}_pool2d_forward")(x)
    tx = nchw(torch, x)
    ty = tx.amax((2, 3)) if kind == "max" else tx.mean((2, 3))
    assert_close(y, ty.detach().numpy(), 42, "output")
    dy = draw(*y.shape)
    ty.backward(torch.from_numpy(dy))
    (dx,) = getattr(kernels, f"global_{kind}_pool2d_backward")(dy, saved)
    assert_close(dx, nhwc(tx.grad), 42, "gradient")


@pytest.mark.parametrize("n, t, i, h", [(1, 1, 3, 5), (5, 9, 20, 17), (32, 12, 30, 64)])
def test_lstm(torch, draw, n, t, i, h):
    x, w, u, b = draw(n, t, i), draw(i, 4 * h), draw(h, 4 * h), draw(4 * h)
    h0, c0 = draw(n, h), draw(n, h)
    (y, (hn, cn)), saved = kernels.lstm_forward(x, w, u, b, h0, c0)
    network = torch.nn.LSTM(i, h, batch_first=True)
    # Ours: i, f, c, o along the last axis. torch: input, forget, cell, output along the first, and two biases.
    with torch.no_grad():
        network.weight_ih_l0.copy_(torch.from_numpy(w.T.copy()))
        network.weight_hh_l0.copy_(torch.from_numpy(u.T.copy()))
        network.bias_ih_l0.copy_(torch.from_numpy(b))
        network.bias_hh_l0.zero_()
    tx, th0, tc0 = (torch.from_numpy(array).requires_grad_() for array in (x, h0[None], c0[None]))
    ty, (thn, tcn) = network(tx, (th0, tc0))
    length = t * (i + h)
    assert_close(y, ty.detach().numpy(), length, "outputs")
    assert_close(hn, thn[0].detach().numpy(), length, "last h")
    assert_close(cn, tcn[0].detach().numpy(), length, "last c")
    dy, dh, dc = draw(n, t, h), draw(n, h), draw(n, h)
    torch.autograd.backward((ty, thn, tcn), [torch.from_numpy(array) for array in (dy, dh[None], dc[None])])
    gradients = kernels.lstm_backward(dy, saved, dh=dh, dc=dc)
    expected = (
        tx.grad,
        network.weight_ih_l0.grad.T,
        network.weight_hh_l0.grad.T,
        network.bias_ih_l0.grad,
        th0.grad[0],
        tc0.grad[0],
    )
    for name, got, want in zip(("x", "w", "u", "b", "h0", "c0"), gradients, expected, strict=True):
        assert_close(got, want.numpy(), n * length, f"gradient of {name}")
