"""torch's convolution and its gradients, contiguous (NCHW) and channels_last (NHWC), without autograd around them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Peer:
    call: Callable
    # From torch's result to our layout.
    nhwc: Callable


def candidates(direction: str, x, w, dy) -> dict[str, Peer]:
    try:
        import torch
    except ImportError:
        return {}
    return {
        "torch NCHW": _peer(torch, direction, torch.contiguous_format, x, w, dy),
        "torch NHWC": _peer(torch, direction, torch.channels_last, x, w, dy),
    }


def _peer(torch, direction, layout, x, w, dy) -> Peer:
    def tensor(array, axes):
        return torch.from_numpy(np.ascontiguousarray(array.transpose(axes))).contiguous(memory_format=layout)

    tx, tw, tdy = tensor(x, (0, 3, 1, 2)), tensor(w, (3, 2, 0, 1)), tensor(dy, (0, 3, 1, 2))
    if direction == "forward":
        return Peer(lambda: torch.nn.functional.conv2d(tx, tw), _images)
    which = 0 if direction == "data gradient" else 1
    wanted = [which == 0, which == 1, False]

    def backward():
        fixed = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        return torch.ops.aten.convolution_backward(tdy, tx, tw, *fixed, wanted)[which]

    return Peer(backward, _images if which == 0 else _weights)


def _images(tensor):
    return tensor.permute(0, 2, 3, 1).numpy()


def _weights(tensor):
    return tensor.permute(2, 3, 1, 0).numpy()
