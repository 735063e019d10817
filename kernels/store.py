"""Files of compiled code that several processes share.

A file is written aside and renamed, and starts with a checksum of the rest: one that was cut short or damaged counts
as missing. A lock file lets one process compile while the others wait for its result. Where the folder cannot be
written, what is not in it is compiled anew in every process, and one line on stderr says so.

The files lie in `$HANDLOOM_CACHE_DIR`, else `$XDG_CACHE_HOME/handloom`, else `~/.cache/handloom`.
"""

import fcntl
import functools
import hashlib
import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder that compiled kernels are kept in; it need not exist yet."""
    if folder := os.environ.get("HANDLOOM_CACHE_DIR"):
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handloom"


def _say(text: str) -> None:
    print(f"handloom: {text}", file=sys.stderr, flush=True)


@functools.cache
def say_compiling(kept: bool) -> None:
    """One line, the first time this process has to compile anything."""
    how_long = f"once; kept in {cache_folder()}" if kept else "for this process only"
    _say(f"compiling kernels for this machine ({how_long})")


@functools.cache
def writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        say_not_kept(cache_folder(), error.strerror)
        return False


@functools.cache
def say_not_kept(folder: Path, why: str) -> None:
    _say(
        f"cannot keep compiled kernels in {folder} ({why}): they are compiled anew in every process; "
        "set HANDLOOM_CACHE_DIR to a folder that can be written"
    )


def lock_file(file: Path):
    """The file, open and locked by this process alone; None on a file system that knows no locks."""
    try:
        lock = open(file, "w")  # noqa: SIM115, it stays open until `unlock`
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return None
    return lock


def unlock(lock) -> None:
    """Let the processes that wait for this file go on."""
    # Closing alone would not do: a child forked meanwhile shares the lock and would keep it.
    fcntl.flock(lock, fcntl.LOCK_UN)
    lock.close()


def read(file: Path) -> bytes | None:
    """What was kept in a file; None where there is none or it is damaged."""
    try:
        kept = file.read_bytes()
    except OSError:
        return None
    checksum, payload = kept[:32], kept[32:]
    return payload if hashlib.sha256(payload).digest() == checksum else None


def write(file: Path, payload: bytes) -> None:
    """Keep this in a file, if its folder can be written."""
    if not writable(file.parent):
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(payload).digest() + payload)
            os.replace(temporary, file)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        say_not_kept(cache_folder(), error.strerror)


def get(file: Path, make) -> bytes:
    """What is kept in a file, or what `make()` gives, which is then kept. Processes that ask at once make it once."""
    if (kept := read(file)) is not None:
        return kept
    lock = lock_file(file.with_suffix(".lock")) if writable(file.parent) else None
    try:
        if (kept := read(file)) is not None:  # another process was first
            return kept
        say_compiling(writable(file.parent))
        made = make()
        write(file, made)
        return made
    finally:
        if lock:
            unlock(lock)
