"""Machines that are not there: a driver, the list of installed packages, and as much of CuPy as moves arrays."""

import sys
from importlib import metadata
from types import ModuleType

import numpy as np

from handloom.nn import gpu

INSTALLED = {"cupy-cuda12x": "13.4.0", "numba-cuda": "0.30.4", "cuda-bindings": "12.9.1"}


class Driver:
    """libcuda.so.1 with `gpus` GPUs, which runs CUDA up to `cuda`; `status` is what cuInit returns."""

    def __init__(self, gpus=1, cuda=12040, status=0):
        self.gpus, self.cuda, self.status = gpus, cuda, status

    def cuInit(self, flags):
        return self.status

    def cuGetErrorString(self, status, text):
        text._obj.value = b"what the driver calls it"
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.cuda
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = f"Imaginary {device.value}".encode()
        return 0


def install(monkeypatch, driver=None, packages=INSTALLED):
    """Puts a driver (none by default) and packages into this machine until the test ends."""

    def open_driver():
        if driver is None:
            raise OSError("libcuda.so.1: cannot open shared object file: No such file or directory")
        return driver

    real = metadata.version

    def version(package):
        if package not in (*gpu.CUPY, "numba-cuda", "cuda-bindings"):
            return real(package)
        if package not in packages:
            raise metadata.PackageNotFoundError(package)
        return packages[package]

    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpu, "open_driver", open_driver)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(gpu, "find", gpu.find.__wrapped__)  # not the one that remembers


class Device:
    """`cupy.cuda.Device`; `current` is the GPU in use."""

    current = 0

    def __init__(self, id):
        self.id, self._before = id, []

    def __enter__(self):
        self._before.append(Device.current)
        Device.current = self.id

    def __exit__(self, *error):
        Device.current = self._before.pop()


class Array:
    """`cupy.ndarray`, which NumPy can not look into."""

    __module__ = "cupy"
    __array_ufunc__ = None

    def __init__(self, data, device):
        self._data, self.device = np.array(data), Device(device)

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    strides = property(lambda self: self._data.strides)

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __setitem__(self, index, value):
        if not np.isscalar(value):
            assert type(value) is Array and value.device.id == self.device.id
            value = value._data
        self._data[index] = value

    def __getitem__(self, index):
        return Array(self._data[index], self.device.id)

    def __add__(self, other):
        if type(other) is not Array:
            raise TypeError(f"Unsupported type {type(other)}")
        assert other.device.id == self.device.id == Device.current
        return Array(self._data + other._data, self.device.id)

    def astype(self, dtype, copy=True):
        return Array(self._data.astype(dtype), self.device.id)

    def get(self):
        return self._data.copy()


def install_cupy(monkeypatch):
    """A module `cupy` until the test ends."""
    cupy = ModuleType("cupy")
    cupy.ndarray = Array
    cupy.asarray = lambda x: Array(x._data if type(x) is Array else x, Device.current)
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.Device = Device
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda", cupy.cuda)
    return cupy
