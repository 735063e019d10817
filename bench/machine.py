"""What a figure was measured on."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "handloom", "numpy", "numba", "llvmlite", "torch", "jax", "keras", "tensorflow", "tensorflow-cpu", "scikit-learn",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


def describe(threads: int) -> dict:
    """Processor, threads, date, commit and versions."""
    from ..kernels import limits, simd

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "vector bytes": simd.VECTOR_BYTES,
        "caches": limits.cache_sizes(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _commit(root: Path = ROOT) -> str | None:
    """The checkout's, with a + where files differ from it; None for what was installed from elsewhere."""
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
