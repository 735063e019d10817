"""`handloom warmup --device cuda`: the machine code of all kernels that are needed, made without a GPU.

Which kernels those are, nobody writes down: the contract's cases, the programs and gpu-check's timings are run with
arrays that hold nothing, and every kernel that would be launched is noted instead. Launchers choose kernels by shapes,
dtypes and addresses alone, and the addresses here are whole 16 bytes where a GPU's are.
"""

import importlib.util
import json
import multiprocessing
import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from ... import nn
from ...kernels import store
from ...kernels.arrays import SimulatedArray, _Simulated
from ...kernels.jit import source_hash
from ...nn import gpu
from ..cases import programs
from . import contract, timings

ROOT = Path(__file__).resolve().parents[2]  # of the sources


@contextmanager
def noting():
    """Inside, kernels are noted instead of launched, in the dict that this gives: by a name of their own."""
    from ...kernels.launch import Kernel, carried_file

    noted = {}

    def note(kernel, grid, *args, shared=0):
        if all(grid):
            noted.setdefault(str(carried_file(kernel, "", Path())), kernel)

    with (
        mock.patch.object(Kernel, "__call__", note),
        mock.patch.object(gpu, "simulated", lambda: True),
        mock.patch.object(_Simulated, "empty", staticmethod(untouched)),
    ):
        gpu.find.cache_clear()
        try:
            yield noted
        finally:
            gpu.find.cache_clear()


def untouched(shape, dtype=np.float32):
    """An array as no kernel leaves it: zeros, and of integers the largest, which stand for no label out of range."""
    array = np.zeros(shape, dtype).view(SimulatedArray)
    if array.dtype.kind in "iu":
        array.fill(np.iinfo(array.dtype).max)
    return array


def contract_kernels() -> dict:
    """Those of every case, variant and dtype."""
    with noting() as noted:
        for point in contract.points():
            contract.run(point, _place)
    return noted


def _place(array):
    return array.view(SimulatedArray)


def program_kernels() -> dict:
    """Those of the three programs: training, evaluation, prediction."""
    with noting() as noted:
        for name in ("dense", "cnn", "lstm"):
            with nn.device("cuda"):
                model = programs.build(name)
            x, y = programs.data(name, 2)
            model.fit(x, y, epochs=1, batch_size=programs.BATCH, verbose=0)
            model.evaluate(x, y, batch_size=programs.BATCH, verbose=0)
            model.predict(x, batch_size=programs.BATCH, verbose=0)
    return noted


def timing_kernels() -> dict:
    from . import limits  # imports instructions that Numba alone does not have

    with noting() as noted:
        for kernel in limits.KERNELS.values():
            kernel((1,), untouched(2), untouched(limits.THREADS), 1)
        for make in timings.cases(quick=False).values():
            for call in make(untouched).ours.values():
                call()
    return noted


def kernels() -> dict:
    """All of them, by name."""
    found = {**program_kernels(), **timing_kernels()}
    if why := contract.missing():
        print(f"handloom warmup: without those of the contract: {why}")
        return found
    return {**found, **contract_kernels()}


def compile_all(noted, architectures, folder) -> tuple[int, int, list[str]]:
    """Puts their machine code into a folder, and says how far it is: (files, bytes, what could not be compiled).

    One process a core. They are forked, because kernels close over functions, which cannot be sent to a process.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    todo = [(kernel, [arch for arch in architectures if kernel.only in (None, arch)]) for kernel in noted.values()]
    count, size, failed = 0, 0, []
    store.say_compiling(store.writable(store.cache_folder()))  # here, because each process would
    cores, fork = len(os.sched_getaffinity(0)), multiprocessing.get_context("fork")
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}")
    with ProcessPoolExecutor(cores, fork, _begin, (todo, folder)) as pool:
        found = pool.map(_keep, range(len(todo)))  # forks, before Progress starts a thread
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("", total=sum(len(archs) for _, archs in todo), now="")
            for (kernel, _), (sizes, errors) in zip(todo, found):
                for text in errors:
                    progress.console.print(text, markup=False, highlight=False)
                now = kernel.function.__qualname__.partition(".")[0]
                progress.update(bar, advance=len(sizes) + len(errors), now=now)
                count, size, failed = count + len(sizes), size + sum(sizes), failed + errors
    return count, size, failed


_shared = []


def _begin(*given):
    """A process that compiles starts."""
    _shared[:] = given
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # after Ctrl-C it ends what it compiles, and the parent says so


def _keep(number) -> tuple[list[int], list[str]]:
    """Bytes of the machine code of one kernel that is in its files now, for each architecture; what failed."""
    from ...kernels.launch import carried_file, kept_cubin

    todo, folder = _shared
    kernel, architectures = todo[number]
    sizes, errors = [], []
    for arch in architectures:
        file = carried_file(kernel, arch, folder)
        if (cubin := store.read(file)) is None:
            try:
                cubin = kept_cubin(kernel, arch)
            except RuntimeError as error:
                errors.append(str(error))
                continue
            store.write(file, cubin)
            if store.read(file) is None:
                raise OSError(f"warmup: {file.parent} cannot be written")
        sizes.append(len(cubin))
    return sizes, errors


def note_sources(noted, architectures, folder) -> None:
    """Writes down which sources the folders of machine code were made from: what `stale` looks at.

    One file for each architecture, at the end: where it is, the others are complete.
    """
    made_from = {source_hash(*kernel._sources): kernel._sources for kernel in noted.values()}
    content = {name: [os.path.relpath(file, ROOT) for file in files] for name, files in made_from.items()}
    Path(folder).mkdir(parents=True, exist_ok=True)  # all kernels may have failed
    for arch in architectures:
        _record(folder, arch).write_text(json.dumps(content, indent=1) + "\n")


def stale(folder, arch) -> str | None:
    """Why this machine code is not all that these sources need on a GPU; None if it is."""
    record = _record(folder, arch)
    try:
        made_from = json.loads(record.read_text())
    except (OSError, ValueError):
        return f"{record.name}, which is written last, is not there"
    for name, files in made_from.items():
        files = [ROOT / file for file in files]
        if not all(file.is_file() for file in files) or source_hash(*map(str, files)) != name:
            return f"{os.path.relpath(files[0], ROOT)}, or what it imports, was another"
    return None


def _record(folder, arch):
    return Path(folder) / f"{arch}.json"


def warmup(architectures, folder) -> int:
    """The command: 1 if a kernel could not be compiled."""
    if gpu.simulated():
        raise SystemExit("handloom warmup: in the simulator nothing is compiled: unset NUMBA_ENABLE_CUDASIM")
    if importlib.util.find_spec("numba_cuda") is None:
        raise SystemExit("handloom warmup: numba-cuda is not installed: pip install 'handloom[cuda13]', or cuda12")
    for arch in architectures:
        if not re.fullmatch(r"sm_\d{2,3}[a-z]?", arch):
            raise SystemExit(f"handloom warmup: --arch is {arch!r}: must be an architecture such as sm_90a")
    noted = kernels()
    count, size, failed = compile_all(noted, architectures, Path(folder))
    note_sources(noted, architectures, folder)
    print(f"{count} kernels, {size / 1e6:.1f} MB in {folder}: use them with HANDLOOM_CUBINS={folder}")
    for text in failed:
        print(text.splitlines()[0])
    return 1 if failed else 0
