"""Fresh Python processes, for what one process cannot show: caches, forks, start-up."""

import os
import subprocess
import sys
from pathlib import Path

# Says at the end how many functions this process compiled (loading one from the cache is not compiling).
COUNTING = """
from numba.core import event
_recorder = event.RecordingListener()
event.register("numba:compile", _recorder)
def compiled():
    return sum(1 for _, e in _recorder.buffer if e.is_start)
"""


def start(code: str, folder: Path, **environment) -> subprocess.Popen:
    """A process that runs `code` in `folder`; warnings are errors. Entries of the environment may be None: unset."""
    merged = {**os.environ, "PYTHONPATH": str(folder), "HANDLOOM_CACHE_DIR": str(folder / "cache"), **environment}
    merged = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=merged, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen, timeout: float = 240) -> tuple[str, str]:
    """What a process wrote, output and errors; it must end well."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {timeout} s\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
    return out, err


def run(code: str, folder: Path, **environment) -> tuple[str, str]:
    return finish(start(code, folder, **environment))
