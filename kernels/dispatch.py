"""From the arrays' type to the device, and from a variant's name to its launcher.

NumPy arrays mean the CPU, CuPy arrays the GPU, and `arrays.SimulatedArray` the GPU's kernels in the simulator. There is
no fallback: a mixture, or a type that nobody knows, is an error that says so.
"""

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

import numpy as np

from .arrays import SimulatedArray


def device_of(op: str, optional=MappingProxyType({}), /, **arrays) -> str:
    """ "cpu" or "cuda", from the arrays, and others by name of which each may be None instead."""
    for array in arrays.values():
        if type(array) is not np.ndarray:
            return _device_of_others(op, optional, arrays)
    for array in optional.values():
        if type(array) is not np.ndarray and array is not None:
            return _device_of_others(op, optional, arrays)
    return "cpu"


_devices = {}  # by type, as they come


def _device_of_others(op, optional, arrays):
    device = None
    for name, array in (*arrays.items(), *optional.items()):
        if array is not None or name in arrays:
            own = _devices.get(type(array))
            if own is None:
                own = _devices[type(array)] = _device_of_type(op, name, array)
            if device is None:
                device, first = own, name
            elif own != device:
                here, there = (first, name) if device == "cpu" else (name, first)
                raise TypeError(
                    f"{op}: {here} is a NumPy array and {there} a CuPy array: "
                    f'move one, for example with nn.to_device({there}, "cpu")'
                )
    return device


def _device_of_type(op: str, name: str, array) -> str:
    if isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{op}: {name} is a masked array: kernels know no masks, {name}.filled(...) makes an array")
        return "cuda" if isinstance(array, SimulatedArray) else "cpu"
    if type(array).__module__.split(".")[0] == "cupy":
        return "cuda"
    what = "None" if array is None else f"a {type(array).__name__}"
    raise TypeError(f"{op}: {name} is {what}: must be a NumPy or a CuPy array, np.asarray makes one")


@cache
def backend(package: str, device: str):
    """The module with an operation's kernels for a device; imported when it is first asked for."""
    return import_module(f"{package}.{device}")


class Variants:
    """The ladder of one operation: its variants on each device, simplest first, and the default.

    A variant is written "module:function", relative to the operation's folder, and imported when it is first used:

        Variants("matmul", __name__, cpu={"naive": "cpu:matmul_naive", "packed": "cpu:matmul_packed"})

    The last one named is the default, unless `default` names for a device a function that chooses one of them by shape
    and dtype; then `rule` names another, which says of the operands what that one chooses, and why. `variants[device]`
    lists the names; `launcher(device, name)` gives the function, `chosen(device, name)` says which it is.
    """

    def __init__(
        self,
        op: str,
        package: str,
        *,
        default: dict[str, str] | None = None,
        rule: dict[str, str] | None = None,
        **devices: dict[str, str],
    ):
        self._op, self._package, self._devices = op, package, devices
        self._default, self._rule = default or {}, rule or {}
        self._found = {}

    def __getitem__(self, device: str) -> dict[str, str]:
        return self._devices[device]

    def __iter__(self):
        return iter(self._devices)

    def launcher(self, device: str, variant: str | None):
        """The function behind a variant's name (None: the default)."""
        try:
            return self._found[device, variant]
        except KeyError:
            self._found[device, variant] = function = self._resolve(device, variant)
            return function

    def chosen(self, device: str, variant: str | None = None, *operands) -> tuple[str, str]:
        """(The variant that a call takes, why); where the default depends on the operands, they have to be given.

        >>> from handloom import kernels
        >>> kernels.VARIANTS["conv2d"].chosen("cpu")
        ('winograd', 'the default: the last rung of the ladder')
        """
        ladder = self._ladder(device, variant)
        if variant is not None:
            return variant, "asked for"
        if device in self._rule:
            return self._load(device, self._rule[device])(*operands)
        only = "the only one" if len(ladder) == 1 else "the default: the last rung of the ladder"
        return next(reversed(ladder)), only

    def _ladder(self, device, variant):
        """The variants of a device, of which `variant` must be one, or None."""
        ladder = self._devices.get(device)
        if ladder is None:
            raise TypeError(
                f"{self._op}: no kernel for {device} arrays: there are kernels for {', '.join(self._devices)}"
            )
        if variant is not None and variant not in ladder:
            raise ValueError(f"{self._op}: variant is {variant!r}: must be one of {', '.join(map(repr, ladder))}")
        return ladder

    def _resolve(self, device, variant):
        ladder = self._ladder(device, variant)
        default = self._default.get(device) or ladder[next(reversed(ladder))]
        return self._load(device, default if variant is None else ladder[variant])

    def _load(self, device, place):
        """The function at "module:function"."""
        if device == "cuda" and find_spec("numba_cuda") is None:  # what Numba itself brings is older than the kernels
            raise ImportError(
                f"{self._op}: CuPy arrays need Numba-CUDA, which is not installed: pip install 'handloom[cuda12]', or "
                "'handloom[cuda13]' where the NVIDIA driver runs CUDA 13"
            )
        module, function = place.split(":")
        return getattr(import_module(f"{self._package}.{module}"), function)
