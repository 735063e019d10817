"""`Input`: the shape that a `Sequential` model starts from."""

from __future__ import annotations

from ..devices import check_device
from .arguments import as_dtype, as_shape


class Input:
    """The shape of one input, as the first entry of a `Sequential` model. No layer: it has no weights and no output.

    Args:
        shape: without the batch axis; None for any length.
        dtype: of the inputs; the layers' own by default.
        name: for the reader.
        device: of the model that it begins, where that was given none.

    Example:

    >>> from handloom import nn
    >>> nn.Sequential([nn.Input((4,)), nn.Dense(2)]).count_params()
    10
    """

    __slots__ = ("shape", "dtype", "name", "device")

    def __init__(self, shape, dtype=None, name=None, device=None):
        self.shape = (None, *as_shape("Input", "shape", shape))
        self.dtype = as_dtype("Input", dtype)
        self.name = name or "input"
        self.device = None if device is None else check_device("Input", device)

    def __repr__(self):
        return f"<Input shape={self.shape}>"
