"""Whether this process can use a GPU, and if not, what is missing and how to get it.

The driver is asked itself, through ctypes, and the list of installed packages: that takes less than a millisecond where
there is no driver, and imports neither CuPy nor Numba-CUDA. In Numba's simulator (`NUMBA_ENABLE_CUDASIM=1`) there is
one GPU, which is none.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib import metadata
from typing import NamedTuple

LIBRARY = "libcuda.so.1"
OLDEST, NEWEST = 12, 13  # versions of CUDA that handloom has an extra for
CUPY = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")  # the first was built where it is used
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class Gpus(NamedTuple):
    """The GPUs that can be used, or why there are none: a sentence that ends with the way out."""

    names: tuple[str, ...] = ()
    cuda: str = ""  # the newest version of CUDA that the driver runs, such as "13.0"
    problem: str | None = None


def simulated() -> bool:
    """Whether CUDA kernels run in Numba's simulator, as was decided when the process started."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "") not in ("", "0")


@cache
def find() -> Gpus:
    """The GPUs of this process; asked once."""
    if simulated():
        return Gpus(("Numba's simulator",))
    try:
        driver = open_driver()
    except OSError:
        return Gpus(
            problem=f"there is no NVIDIA driver ({LIBRARY} was not found): install it, or start the container with "
            "its GPUs (docker run --gpus all)"
        )
    status = driver.cuInit(0)
    count = _integer(driver.cuDeviceGetCount) if status == 0 else 0
    if status not in (0, NO_DEVICE):
        return Gpus(
            problem=f"the NVIDIA driver does not start (error {status}: {_text_of(driver, status)}): make nvidia-smi "
            "work first; after an update of the driver the machine has to be started again"
        )
    if count == 0:
        return Gpus(problem=_no_gpu())
    version = _integer(driver.cuDriverGetVersion)  # 12040 for 12.4
    major, minor = version // 1000, version % 1000 // 10
    problem = _missing(major, f"{major}.{minor}")
    names = () if problem else tuple(_name_of(driver, index) for index in range(count))
    return Gpus(names, f"{major}.{minor}", problem)


def open_driver():
    """The driver's library; OSError where there is none."""
    return ctypes.CDLL(LIBRARY)


def _integer(function) -> int:
    """What a function of the driver writes where its one argument points."""
    number = ctypes.c_int(0)
    return number.value if function(ctypes.byref(number)) == 0 else 0


def _text_of(driver, status) -> str:
    text = ctypes.c_char_p()
    driver.cuGetErrorString(status, ctypes.byref(text))
    return (text.value or b"unknown").decode()


def _name_of(driver, index) -> str:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    return name.value.decode()


def _no_gpu() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return "there is an NVIDIA driver, but it finds no GPU: see what nvidia-smi lists"
    return (
        f"there is an NVIDIA driver, but it finds no GPU, and CUDA_VISIBLE_DEVICES is {visible!r}: unset it before "
        "Python starts, or name one that nvidia-smi lists"
    )


def _missing(major: int, cuda: str) -> str | None:
    """What the installed packages lack to use a GPU whose driver runs CUDA up to `cuda`."""
    if major < OLDEST:
        return f"the NVIDIA driver runs CUDA up to {cuda}: it must run {OLDEST}.0 at least, upgrade the driver"
    extra = f"handloom[cuda{min(major, NEWEST)}]"
    cupy = [package for package in CUPY if _version(package)]
    if not cupy:
        return f"there is a GPU, but CuPy is not installed: pip install '{extra}'"
    if len(cupy) > 1:
        names = " and ".join(cupy)
        return f"{names} are both installed: pip uninstall {' '.join(cupy)}, then pip install '{extra}'"
    made_for = int(cupy[0][9:11] or major)
    if made_for > major:
        return (
            f"{cupy[0]} is for CUDA {made_for} and the NVIDIA driver runs CUDA up to {cuda}: upgrade the driver, or "
            f"pip uninstall {cupy[0]}, then pip install '{extra}'"
        )
    toolkit = f"numba-cuda[cu{min(max(made_for, OLDEST), NEWEST)}]"
    if not _version("numba-cuda"):
        return f"there is a GPU, but Numba-CUDA is not installed: pip install '{toolkit}'"
    bindings = _version("cuda-bindings")  # its major version is that of the toolkit which compiles the kernels
    if bindings and int(bindings.split(".")[0]) > major:
        return (
            f"Numba-CUDA compiles with CUDA {bindings.split('.')[0]} and the NVIDIA driver runs CUDA up to {cuda}: "
            f"upgrade the driver, or pip install '{toolkit}'"
        )
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
