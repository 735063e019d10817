"""What the results belong to: the device, its driver, the versions, the date and the sources."""

import datetime
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ...nn import gpu

PACKAGES = (
    "handloom", "numpy", "numba", "numba-cuda", "llvmlite", "cuda-core", "cuda-bindings", "cupy-cuda12x",
    "cupy-cuda13x", "ml_dtypes", "torch",
)  # fmt: skip
CLOCKS = {"ClockRate": "highest clock, MHz", "MemoryClockRate": "highest memory clock, MHz"}
UNKNOWN = "unknown"


def describe() -> dict:
    """Names and texts or numbers. RuntimeError where there is no GPU, with the way out."""
    found = gpu.find()
    if found.problem is not None:
        raise RuntimeError(f"gpu-check: {found.problem}")
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        **(_simulator() if gpu.simulated() else _device()),
        "python": platform.python_version(),
        "host": platform.machine(),
        "versions": versions(),
        **sources(),
    }


def versions() -> dict:
    """Of all packages that take part, as far as they are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def sources() -> dict:
    """The commit, and a hash of the kernels' sources, which also tells changes that are in no commit."""
    kernels = Path(sys.modules["handloom.kernels"].__file__).parent
    digest = hashlib.sha256()
    for file in sorted(kernels.rglob("*.py")):
        digest.update(file.relative_to(kernels).as_posix().encode() + b"\0" + file.read_bytes())
    commit = _output("git", "-C", str(kernels), "rev-parse", "--short=12", "HEAD")
    changed = commit and _output("git", "-C", str(kernels), "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": f"{commit} and changes" if changed else commit or UNKNOWN,
        "hash of kernels": digest.hexdigest()[:12],
    }


def _simulator() -> dict:
    return {"device": "Numba's simulator", "capability": "none", "driver": "none", "CUDA": "none"}


def _device() -> dict:
    import cupy
    from numba import cuda

    if getattr(cuda, "implementation", None) != "NVIDIA":
        raise RuntimeError(
            "gpu-check: numba.cuda is Numba's own, although numba-cuda is installed: Python has not read the .pth file "
            "that numba-cuda brings, as it does in site-packages alone: install it there"
        )
    device, runtime = cupy.cuda.Device(), cupy.cuda.runtime
    further = {
        "driver": _driver,
        "CUDA": lambda: f"driver {_dotted(runtime.driverGetVersion())}, CuPy {_dotted(runtime.runtimeGetVersion())}",
        "processors": lambda: device.attributes["MultiProcessorCount"],
        "memory, GB": lambda: round(runtime.memGetInfo()[1] / 1e9, 1),
        "free memory, GB": lambda: round(runtime.memGetInfo()[0] / 1e9, 1),
        "L2, MB": lambda: round(device.attributes["L2CacheSize"] / 2**20, 1),
        **{text: lambda name=name: device.attributes[name] / 1000 for name, text in CLOCKS.items()},
        "clocks now": lambda: _output("nvidia-smi", "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"),
    }
    return {
        "device": runtime.getDeviceProperties(device.id)["name"].decode(),
        "capability": device.compute_capability,
        **{name: _known(find) for name, find in further.items()},
    }


def _known(find):
    """What a function finds. Nothing that is merely good to know may end the run."""
    try:
        return find() or UNKNOWN
    except Exception:
        return UNKNOWN


def _driver() -> str:
    """The driver's own version, such as 580.65; CUDA tells only the version of CUDA that it runs."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = re.search(r"\d{3}\.\d+(\.\d+)?", text)
    return found[0] if found else ""


def _dotted(number) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _output(*command) -> str:
    """What a program prints; nothing where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
