"""Which device a layer or model lives on: for now the CPU alone."""

from __future__ import annotations

import numpy as np

from .tensor import Tensor
from .utils import did_you_mean

DEVICES = ("cpu", "cuda")


def check_device(operation, device):
    """The device's name, or an error that says what there is."""
    if device is None or device == "cpu":
        return "cpu"
    if not isinstance(device, str):
        raise TypeError(f"{operation}: device must be a name such as 'cpu', got {device!r}")
    if device.split(":")[0] == "cuda":
        raise ValueError(
            f"{operation}: device {device!r}: this release has kernels for the CPU alone, leave the argument out or "
            "pass device='cpu'"
        )
    raise ValueError(did_you_mean(f"{operation}: device", device, DEVICES))


def to_device(x, device):
    """`x` (array or tensor) on `device`: itself where it is there already.

    >>> import numpy as np
    >>> to_device(np.zeros(2), "cpu")
    array([0., 0.])
    """
    check_device("to_device", device)
    return x if isinstance(x, Tensor) else np.asarray(x)
