"""What `handloom info` and `handloom cache` say about this machine."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Instruction sets worth naming, of the hundred or so that LLVM lists.
_TELLING = re.compile(r"avx(2|512\w*|10\w*)?|fma|bmi2|f16c|amx-\w+|sse4\.2|neon|sve2?|dotprod|bf16|i8mm")


def facts() -> dict[str, str]:
    """A title and a text for everything there is to say; initialises the threading layer, compiles nothing."""
    import numba
    from llvmlite import binding

    from .bench.machine import describe
    from .kernels import simd
    from .kernels.store import cache_folder

    threads = numba.get_num_threads()  # asking is what loads a threading layer
    machine = describe(threads)
    features = sorted(flag for flag in simd.FEATURES if _TELLING.fullmatch(flag))
    lanes = simd.VECTOR_BYTES // 4
    return {
        "processor": f"{machine['processor']} ({binding.get_host_cpu_name()})",
        "features": " ".join(features) or "none that LLVM names",
        "vectors": f"{simd.VECTOR_BYTES * 8} bits: {lanes} float32 or {lanes // 2} float64",
        "cores": str(machine["cores"]),
        "threads": f"{threads}, threading layer {numba.threading_layer()}",
        "cache": f"{cache_folder()} ({_size()})",
        "gpu": _gpu(),
        "python": machine["python"],
        "versions": ", ".join(f"{name} {number}" for name, number in machine["versions"].items()),
    }


def clear_cache() -> int:
    """Remove all compiled kernels; how many there were. Whatever else lies in the folder stays."""
    kernels = len(_compiled())
    for folder in _cache_folders():
        shutil.rmtree(folder)
    return kernels


def _cache_folders() -> Iterator[Path]:
    """The folders that `kernels.jit` and `kernels.launch` made, one for each state of the sources."""
    from .kernels.store import cache_folder

    for folder in sorted(cache_folder().glob("*")):
        if folder.is_dir() and re.fullmatch("[0-9a-f]{12}-[0-9a-f]{8}", folder.name):
            yield folder


def _compiled() -> list[Path]:
    """The kernels in them, for CPUs and GPUs."""
    return [file for folder in _cache_folders() for file in folder.iterdir() if file.suffix in (".bin", ".cubin")]


def _size() -> str:
    files = _compiled()
    size = sum(file.stat().st_size for file in files)
    return f"{len(files)} compiled kernels, {size / 1e6:.1f} MB" if files else "empty"


def _gpu() -> str:
    """The GPUs' names, or why there is none to use, in the words of the error for `device="cuda"`."""
    from .nn import gpu

    names, cuda, problem = gpu.find()
    if problem is not None:
        return f"none: {problem}"
    devices = ", ".join(f"cuda:{index} {name}" for index, name in enumerate(names))
    return f"{devices} (driver for CUDA {cuda})" if cuda else devices
