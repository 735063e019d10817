"""The peers on a GPU: cuBLAS through CuPy, and torch with its cuBLAS and cuDNN where it is installed with CUDA.

Each function gives {name: (call, what makes a NumPy array of its result)}. torch's tensors share the memory of CuPy's
arrays, and its calls go to the same stream. TF32 is off in both, but for what is named so.
"""

import importlib.util
import os
from functools import cache

import numpy as np

from ..peers.torch_programs import TorchProgram

os.environ["CUPY_TF32"] = "0"  # read when CuPy is first imported


@cache
def torch_or_none():
    """torch, set to float32's own precision; None where it is missing or was made without CUDA."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    return torch


def missing() -> list[str]:
    return [] if torch_or_none() else ["torch with CUDA is not installed: no such peer"]


def free() -> None:
    if torch := torch_or_none():
        torch.cuda.empty_cache()


def _tensor(array):
    """torch's view of a CuPy array. bfloat16 goes as integers, for which both have a name."""
    torch = torch_or_none()
    if array.dtype.name == "bfloat16":
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def _read(tensor):
    return tensor.detach().float().cpu().numpy()


def _read_images(tensor):
    return _read(tensor.permute(0, 2, 3, 1))


def _read_weights(tensor):
    return _read(tensor.permute(2, 3, 1, 0))


def empty_kernel(x):
    import cupy

    nothing = cupy.RawKernel('extern "C" __global__ void nothing(float *x) {}', "nothing")
    return {"CuPy RawKernel": (lambda: nothing((1,), (32,), (x,)), None)}


def products(a, b):
    import cupy

    found = {"cuBLAS (CuPy)": (lambda: cupy.matmul(a, b), lambda c: c.get().astype(np.float32))}
    if torch := torch_or_none():
        ta, tb = _tensor(a), _tensor(b)
        found["cuBLAS (torch)"] = (lambda: torch.matmul(ta, tb), _read)
    return found


def products_in_tf32(a, b):
    if not (torch := torch_or_none()):
        return {}
    ta, tb = _tensor(a), _tensor(b)
    return {"cuBLAS in TF32 (torch)": (_in_tf32(torch.backends.cuda.matmul, lambda: torch.matmul(ta, tb)), _read)}


def _in_tf32(settings, call):
    """The call, with TF32 for as long as it takes."""

    def called():
        settings.allow_tf32 = True
        try:
            return call()
        finally:
            settings.allow_tf32 = False

    return called


def convolution(direction, x, w, dy, strides, edge):
    """In torch's layout for channels last, without autograd around it."""
    if not (torch := torch_or_none()):
        return {}
    tx, tdy = (_tensor(array).permute(0, 3, 1, 2) for array in (x, dy))
    tw = _tensor(w).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    if direction == "forward":
        call = lambda: torch.nn.functional.conv2d(tx, tw, stride=strides, padding=edge)  # noqa: E731
        return {"cuDNN (torch)": (call, _read_images)}
    which = 0 if direction == "data gradient" else 1
    fixed = None, [strides] * 2, [edge] * 2, [1, 1], False, [0, 0], 1, [which == 0, which == 1, False]
    call = lambda: torch.ops.aten.convolution_backward(tdy, tx, tw, *fixed)[which]  # noqa: E731
    return {"cuDNN (torch)": (call, _read_images if which == 0 else _read_weights)}


def convolution_in_tf32(*sizes):
    if not (torch := torch_or_none()):
        return {}
    ((call, read),) = convolution(*sizes).values()
    return {"cuDNN in TF32 (torch)": (_in_tf32(torch.backends.cudnn, call), read)}


def pooling(op, x):
    if not (torch := torch_or_none()):
        return {}
    tx, pool = _tensor(x).permute(0, 3, 1, 2), getattr(torch.nn.functional, op)
    return {"torch": (lambda: pool(tx, 3, 2), _read_images)}


def relu(x):
    if not (torch := torch_or_none()):
        return {}
    tx = _tensor(x)
    return {"torch": (lambda: torch.relu(tx), _read)}


def softmax(x):
    if not (torch := torch_or_none()):
        return {}
    tx = _tensor(x)
    return {"torch": (lambda: torch.softmax(tx, -1), _read)}


def cross_entropy(x, t):
    if not (torch := torch_or_none()):
        return {}
    tx, tt = _tensor(x), _tensor(t)
    return {"torch": (lambda: torch.nn.functional.cross_entropy(tx, tt), _read)}


def _adam(start, g):
    """torch's optimizer with one parameter, whose gradient is set."""
    torch = torch_or_none()
    parameter = torch.nn.Parameter(_tensor(start).clone())
    parameter.grad = _tensor(g)
    return parameter, torch.optim.Adam([parameter], lr=0.01, eps=1e-7, fused=True)


def adam(start, g):
    if not torch_or_none():
        return {}
    _, optimizer = _adam(start, g)
    return {"torch": (optimizer.step, None)}


def adam_results(start, g):
    """What one step makes of `start`."""
    parameter, optimizer = _adam(start, g)
    optimizer.step()
    return {"torch": _read(parameter)}


def lstm(x, w, u, b, dy=None):
    """torch's outputs or, with dy, its gradient for x beside those for the weights. Its gates stand in our order."""
    if not (torch := torch_or_none()):
        return {}
    tx = _tensor(x)
    layer = torch.nn.LSTM(x.shape[2], u.shape[0], batch_first=True, device=tx.device)
    with torch.no_grad():
        ours = (_tensor(w).T, _tensor(u).T, _tensor(b), _tensor(b) * 0)
        for parameter, tensor in zip(layer.parameters(), ours, strict=True):
            parameter.copy_(tensor)
    if dy is None:

        def outputs():
            with torch.no_grad():
                return layer(tx)[0]

        return {"cuDNN (torch)": (outputs, _read)}
    tx, tdy = tx.detach().requires_grad_(), _tensor(dy)
    wanted = [tx, *layer.parameters()]
    return {"cuDNN (torch)": (lambda: torch.autograd.grad(layer(tx)[0], wanted, tdy)[0], _read)}


class TorchProgramThere(TorchProgram):
    """One of the three programs, its batches in the GPU's memory."""

    def __init__(self, program, weights, batches):
        super().__init__(program, weights, batches)
        self.model.to("cuda")
        self.batches = [(x.to("cuda"), labels.to("cuda")) for x, labels in self.batches]
        self.optimizer = self.torch.optim.Adam(self.model.parameters(), fused=True, eps=1e-7)

    def predict(self):
        with self.torch.no_grad():
            return self.torch.softmax(self.model(self.batches[0][0]), -1).cpu().numpy()
