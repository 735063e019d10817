"""torch's operations, eager: convolutions and pooling in both memory formats, gradients without the forward pass."""

from functools import partial

import numpy as np

from ..case import Candidate, keeping


def candidates(step) -> dict:
    """One for each memory format, for what takes images; else one."""
    import torch

    if step.op in ("conv2d", "conv2d_max_pool2d", "max_pool2d", "avg_pool2d"):
        formats = {"torch NCHW": torch.contiguous_format, "torch NHWC": torch.channels_last}
        return {name: _images(torch, step, memory_format) for name, memory_format in formats.items()}
    if step.op == "lstm":
        return {"torch": _lstm(torch, step)}
    functions = _functions(torch)
    if step.op not in functions:
        return {}
    tensors = [torch.from_numpy(array) for array in step.arrays]
    return {"torch": _differentiated(torch, step, functions[step.op], tensors)}


def _functions(torch):
    """Operations on tensors that have our layout, by our names."""
    of = torch.nn.functional
    found = {name: getattr(torch, name) for name in ("relu", "sigmoid", "tanh")}
    found |= {"silu": of.silu, "gelu": of.gelu}
    found |= {name: partial(getattr(torch, name), dim=-1) for name in ("softmax", "log_softmax")}
    found["softmax_cross_entropy"] = of.cross_entropy
    found["matmul"] = lambda a, b, transpose_a, transpose_b: torch.matmul(
        a.mT if transpose_a else a, b.mT if transpose_b else b
    )
    found["dense"] = lambda x, w, b, activation: torch.relu(torch.addmm(b, x, w))
    return found


def _differentiated(torch, step, function, leaves, gradient_of=lambda i: i, read=lambda tensor: tensor.numpy()):
    """`function` of the leaves, or its gradients by autograd on a graph that is kept."""
    if not step.wrt:

        def forward():
            with torch.inference_mode():
                return function(*leaves, **step.options)

        return keeping(forward, read)
    wanted = [leaves[i].requires_grad_() for i in step.wrt]
    y, dy = function(*leaves, **step.options), torch.as_tensor(step.dy)
    return keeping(
        lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True),
        lambda gradients: tuple(gradient.numpy() for gradient in gradients),
    )


def _images(torch, step, memory_format) -> Candidate:
    def tensor(array, axes=(0, 3, 1, 2)):
        turned = np.ascontiguousarray(array.transpose(axes))
        return torch.from_numpy(turned).contiguous(memory_format=memory_format)

    def read(result):
        return result.permute(0, 2, 3, 1).numpy()

    x, *w = step.arrays
    x = tensor(x)
    if step.op == "conv2d":
        return _conv2d(torch, step, x, tensor(w[0], (3, 2, 0, 1)), step.wrt and tensor(step.dy), read)
    if step.op == "conv2d_max_pool2d":
        of, weights, zeros = torch.nn.functional, tensor(w[0], (3, 2, 0, 1)), int(step.options["padding"] == "same")
        bias = torch.from_numpy(w[1])
        return keeping(lambda: of.max_pool2d(of.relu(of.conv2d(x, weights, bias, padding=zeros)), 2), read)
    of, (window, strides, padding) = torch.nn.functional, step.options.values()
    around = window // 2 if padding == "same" else 0  # odd windows of stride 1
    if step.op == "max_pool2d":
        pool = partial(of.max_pool2d, kernel_size=window, stride=strides, padding=around)
    else:
        pool = partial(of.avg_pool2d, kernel_size=window, stride=strides, padding=around, count_include_pad=False)
    if not step.wrt:
        return keeping(lambda: pool(x), read)
    y, dy = pool(x.requires_grad_()), tensor(step.dy)
    return keeping(lambda: torch.autograd.grad(y, x, dy, retain_graph=True), lambda found: (read(found[0]),))


def _conv2d(torch, step, x, w, dy, read):
    strides, dilation, groups = (step.options.get(name, 1) for name in ("strides", "dilation", "groups"))
    zeros = [before for before, after in step.options.get("padding", ((0, 0), (0, 0)))]  # as many after as before
    if not step.wrt:
        return keeping(lambda: torch.nn.functional.conv2d(x, w, None, strides, zeros, dilation, groups), read)
    which = step.wrt[0]
    wanted = [which == 0, which == 1, False]

    def backward():
        fixed = (None, [strides] * 2, zeros, [dilation] * 2, False, [0, 0], groups)
        return torch.ops.aten.convolution_backward(dy, x, w, *fixed, wanted)[which]

    return keeping(backward, (lambda dx: (read(dx),)) if which == 0 else (lambda dw: (dw.permute(2, 3, 1, 0).numpy(),)))


def _lstm(torch, step):
    """Gates i f g o, weights turned, one bias of two set to zero."""
    x, w, u, b = (torch.from_numpy(array) for array in step.arrays)
    module = torch.nn.LSTM(w.shape[0], u.shape[0], batch_first=True, dtype=x.dtype)
    weights = (w.T, u.T, b, torch.zeros_like(b))
    with torch.no_grad():
        for parameter, values in zip(module.parameters(), weights, strict=True):
            parameter.copy_(values)
    if not step.wrt:

        def forward():
            with torch.inference_mode():
                return module(x)[0]

        return keeping(forward, lambda y: y.numpy())
    leaves = [x.requires_grad_(), *list(module.parameters())[:3]]
    y, dy = module(x)[0], torch.from_numpy(step.dy)

    def read(gradients):
        dx, dw, du, db = (gradient.numpy() for gradient in gradients)
        return dx, dw.T, du.T, db

    return keeping(lambda: torch.autograd.grad(y, leaves, dy, retain_graph=True), read)


def optimizer(op: str, start, gradient, options: dict) -> dict:
    """One fused step over one tensor; Adam's epsilon sits elsewhere, which shows only where gradients are tiny."""
    import torch

    w = torch.nn.Parameter(torch.from_numpy(start.copy()))
    w.grad = torch.from_numpy(gradient.copy())

    def fresh():
        if op == "adam_update":
            betas = options["beta_1"], options["beta_2"]
            return torch.optim.Adam([w], options["learning_rate"], betas, options["epsilon"], fused=True)
        return torch.optim.SGD([w], options["learning_rate"], options["momentum"], fused=True)

    using = [fresh()]

    def result():
        with torch.no_grad():
            w.copy_(torch.from_numpy(start))
        using[:] = [fresh()]
        using[0].step()
        return w.detach().numpy().copy()

    return {"torch": Candidate(lambda: using[0].step(), result)}


def random(op: str, x) -> dict:
    import torch

    tensor = torch.from_numpy(x)
    if op == "dropout":
        return {"torch": Candidate(lambda: torch.nn.functional.dropout(tensor, 0.25), None)}
    if op == "dropout_backward":
        y = torch.nn.functional.dropout(tensor.requires_grad_(), 0.25)
        dy = tensor.detach()
        return {"torch": Candidate(lambda: torch.autograd.grad(y, tensor, dy, retain_graph=True), None)}
    return {"torch": Candidate(lambda: torch.rand(x.size, dtype=tensor.dtype), None)}
