"""Convolutions on an NVIDIA GPU.

    direct    a thread computes one number                                                         direct.py
    implicit  the product that im2col would lead to, in register tiles, without its matrix         implicit.py, tiles.py
    winograd  windows of 3 x 3 with four times fewer multiplications, where that pays              winograd.py
    tensor    the same product on the tensor cores, in TF32                                        tensor_cores.py

A rung does all passes: `forward`, `data_gradient`, `weight_gradient`, from two kernels, one that convolves and one that
correlates (rung.py); winograd has kernels of its own for y and dx. The data gradient is a convolution of dz, or for
strides above 1 several (window.py). Arrays are C-contiguous. `conv2d_max_pool2d` has its convolution and its pooling
one after the other (pooled.py).
"""

from ..rung import Rung
from .direct import conv2d_direct
from .implicit import conv2d_implicit
from .pooled import separate
from .tensor_cores import conv2d_tensor
from .winograd import conv2d_winograd

__all__ = [
    "conv2d_default",
    "conv2d_direct",
    "conv2d_implicit",
    "conv2d_max_pool2d_separate",
    "conv2d_rule",
    "conv2d_tensor",
    "conv2d_winograd",
]

# A register tile pays for itself from this many columns of a group on; below, most of it would be unused. The tensor
# cores' TF32 is for those who ask for it, and so is winograd until a GPU has shown where it pays.
FEW = 8


_RUNGS = {"direct": conv2d_direct, "implicit": conv2d_implicit}


def _name(columns):
    return "direct" if columns < FEW else "implicit"


def _for(columns):
    return _RUNGS[_name(columns)]


def conv2d_rule(x, w):
    """(The variant that `conv2d_default` takes forward and for dw, why), from images and weights."""
    depth, filters = w.shape[2:]
    columns = filters // (x.shape[3] // depth)
    name, for_dx = _name(columns), _name(depth)
    why = f"the default for {'less than' if columns < FEW else 'at least'} {FEW} columns a group, here {columns}"
    return name, why if for_dx == name else f"{why}; for dx, which has {depth}, {for_dx}"


conv2d_default = Rung(
    lambda x, w, b, y, g, activation: _for(g.F // g.groups).forward(x, w, b, y, g, activation),
    lambda dz, w, dx, g: _for(g.C // g.groups).data_gradient(dz, w, dx, g),
    lambda x, dz, dw, g: _for(g.F // g.groups).weight_gradient(x, dz, dw, g),
)
conv2d_max_pool2d_separate = separate(conv2d_default)
