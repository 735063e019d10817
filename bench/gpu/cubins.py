"""`handloom warmup --device cuda`: the machine code of all kernels that are needed, made without a GPU.

Which kernels those are, nobody writes down: the contract's cases, the programs and gpu-check's timings are run with
arrays that hold nothing, and every kernel that would be launched is noted instead. Launchers choose kernels by shapes,
dtypes and addresses alone, and the addresses here are whole 16 bytes where a GPU's are.
"""

import importlib.util
import re
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from ... import nn
from ...kernels import store
from ...kernels.arrays import SimulatedArray, _Simulated
from ...nn import gpu
from ..cases import programs
from . import contract, timings


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
    """Puts their machine code into a folder, and says how far it is: (files, bytes, what could not be compiled)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ...kernels.launch import carried_file

    todo = [(kernel, arch) for arch in architectures for kernel in noted.values() if kernel.only in (None, arch)]
    count, size, failed = 0, 0, []
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(todo), now="")
        for kernel, arch in todo:
            progress.update(bar, now=f"{arch} {kernel.function.__qualname__.partition('.')[0]}")
            file = carried_file(kernel, arch, folder)
            try:
                size += _keep(file, kernel, arch)
                count += 1
            except RuntimeError as error:
                failed.append(str(error))
                progress.console.print(str(error), markup=False, highlight=False)
            progress.advance(bar)
    return count, size, failed


def _keep(file, kernel, arch) -> int:
    """Bytes of the machine code that is in the file now."""
    from ...kernels.launch import kept_cubin

    if (cubin := store.read(file)) is None:
        cubin = kept_cubin(kernel, arch)
        store.write(file, cubin)
        if store.read(file) is None:
            raise OSError(f"warmup: {file.parent} cannot be written")
    return len(cubin)


def warmup(architectures, folder) -> int:
    """The command: 1 if a kernel could not be compiled."""
    if gpu.simulated():
        raise SystemExit("handloom warmup: in the simulator nothing is compiled: unset NUMBA_ENABLE_CUDASIM")
    if importlib.util.find_spec("numba_cuda") is None:
        raise SystemExit("handloom warmup: numba-cuda is not installed: pip install 'handloom[cuda13]', or cuda12")
    for arch in architectures:
        if not re.fullmatch(r"sm_\d{2,3}[a-z]?", arch):
            raise SystemExit(f"handloom warmup: --arch is {arch!r}: must be an architecture such as sm_90a")
    count, size, failed = compile_all(kernels(), architectures, Path(folder))
    print(f"{count} kernels, {size / 1e6:.1f} MB in {folder}: use them with HANDLOOM_CUBINS={folder}")
    for text in failed:
        print(text.splitlines()[0])
    return 1 if failed else 0
