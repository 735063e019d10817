"""Devices: their names, which one new layers take, and how arrays get from one to another.

A device is "cpu" or "cuda:0", "cuda:1" and so on; "cuda" is short for the GPU in use, the first one if nobody says
otherwise. Arrays know where they live: NumPy's on the CPU, CuPy's on their GPU. This is the one file in nn/ that asks.
"""

from __future__ import annotations

import re
import threading
from contextlib import ContextDecorator, nullcontext

import numpy as np

from ..kernels import dispatch
from ..kernels.arrays import SimulatedArray, simulated
from . import gpu
from .utils import did_you_mean


class _Here(threading.local):
    default = None  # what the innermost `with device(...)` says
    gpu = "cuda:0"  # what "cuda" means


_here = _Here()


def list_devices():
    """The names of all devices that can be used, "cpu" and then each GPU.

    >>> from handloom import nn
    >>> "cpu" in nn.list_devices()
    True
    """
    return ["cpu", *(f"cuda:{index}" for index in range(len(gpu.find().names)))]


def default_device():
    """Where layers are made that are not given a device."""
    return _here.default or "cpu"


def inside_device():
    """Whether a `with device(...)` is open in this thread."""
    return _here.default is not None


class device(ContextDecorator):
    """Inside, layers are made on this device, and lists and numbers become arrays there; for this thread alone.

        with nn.device("cuda:1"):
            model = nn.Sequential([nn.Dense(64, activation="relu"), nn.Dense(10)])

    Kernels run on CuPy's current GPU, which this sets as well: whatever works on arrays of another GPU than the first
    belongs inside. `name` is the device's full name, `nn.device("cuda").name == "cuda:0"`.

    >>> from handloom import nn
    >>> with nn.device("cpu"):
    ...     layer = nn.Dense(3)
    >>> layer.device
    'cpu'
    """

    def __init__(self, name=None):
        self.name = check_device("device", name)
        self._before = []

    def __repr__(self):
        return f"device({self.name!r})"

    def __enter__(self):
        current = _current(self.name)
        current.__enter__()
        self._before.append((current, _here.default, _here.gpu))
        _here.default = self.name
        if self.name != "cpu":
            _here.gpu = self.name
        return self

    def __exit__(self, *error):
        current, _here.default, _here.gpu = self._before.pop()
        current.__exit__(*error)
        return False


def check_device(operation, device_name):
    """The device's full name (the default's for None), or an error that says what is missing."""
    if device_name is None:
        return default_device()
    if isinstance(device_name, device):
        return device_name.name
    if not isinstance(device_name, str):
        raise TypeError(f"{operation}: device must be a name such as 'cpu' or 'cuda', got {device_name!r}")
    if device_name == "cpu":
        return "cpu"
    if not re.fullmatch(r"cuda(:\d+)?", device_name):
        text = did_you_mean(f"{operation}: device", device_name, ("cpu", "cuda", "cuda:0"))
        raise ValueError(text.replace("mean 'cpu'", "mean 'cuda'") if "gpu" in device_name.lower() else text)
    problem = gpu.find().problem
    if problem is not None:
        raise ValueError(f"{operation}: device {device_name!r}: {problem}")
    name = _here.gpu if device_name == "cuda" else f"cuda:{_index(device_name)}"
    known = list_devices()
    if name not in known:
        raise ValueError(f"{operation}: device {device_name!r}: there is none of this name: the devices are {known}")
    return name


def device_of(array):
    """The name of the device that an array lives on."""
    if isinstance(array, SimulatedArray):
        return "cuda:0"
    if type(array).__module__.split(".")[0] == "cupy":
        return f"cuda:{array.device.id}"
    return "cpu"


def place(array, name):
    """`array` on the device of this full name: itself where it is there already, else a copy."""
    if name == "cpu":
        return array if type(array) is np.ndarray else to_host(array)
    if device_of(array) == name:
        return array
    if gpu.simulated():
        return simulated(array)
    import cupy

    with _current(name):
        return cupy.asarray(array)


def beside(x, other):
    """`x` (array, list or number) as an array on the device where the array `other` lives."""
    return x if type(x) is type(other) is np.ndarray else place(as_array(x), device_of(other))


def as_array(x):
    """Arrays as they are, on whichever device; lists, numbers and what offers itself as an array as NumPy's."""
    return x if device_of(x) != "cpu" else np.asarray(x)


def to_host(array):
    """`array` as a NumPy array: itself where it is one, else a copy."""
    if isinstance(array, SimulatedArray):
        return np.array(array)
    return array if device_of(array) == "cpu" else array.get()


def explain_mixture(operation, a, b):
    """Raises if one is a NumPy and the other a CuPy array, which CuPy refuses without saying so; numbers fit both."""
    arrays = {"a": a, "b": b}
    dispatch.device_of(operation, **{name: array for name, array in arrays.items() if hasattr(array, "__setitem__")})


def place_input(layer, x, name="x"):
    """`x`, an array or list that a layer is called on, on the layer's device. What is on a GPU is not moved unasked."""
    if type(x) is not np.ndarray:
        x = as_array(x)
        origin = device_of(x)
        if origin not in ("cpu", layer.device):
            raise TypeError(
                f"{type(layer).__name__}: {name} is a CuPy array on {origin} and the layer {layer.name!r} is on "
                f"{layer.device}: move one, for example with nn.to_device({name}, {layer.device!r}), or the layer with "
                f"its to({origin!r})"
            )
    return place(x, layer.device)


def on_cpu(layer):
    """Whether a layer is on the CPU."""
    return layer.device == "cpu"


def to_device(x, device=None):
    """`x` (array, tensor, list or number) on a device, by default that of `with nn.device(...)`.

    Itself where it is there already, else a copy: to "cpu" a NumPy array, to "cuda" a CuPy array. A tensor becomes a
    tensor, through which gradients find their way back.

    >>> import numpy as np
    >>> from handloom import nn
    >>> nn.to_device(np.zeros(2), "cpu")
    array([0., 0.])
    """
    from .tensor import Tensor

    name = check_device("to_device", device)
    if isinstance(x, Tensor):
        return x.to(name)
    return place(as_array(x), name)


def _index(name):
    return int(name.split(":")[1])


def _current(name):
    """A context in which a device's GPU is CuPy's current one."""
    if name == "cpu" or gpu.simulated():
        return nullcontext()
    import cupy

    return cupy.cuda.Device(_index(name))
