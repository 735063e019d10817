"""Where CUDA kernels run in tests, there being no GPU.

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) as Python. Or compiled (HANDLOOM_PTX=1, which needs the toolkit), as the
PTX that the GPU's own code is made of, on the machine of ptx_machine.py. Tests with the fixture `kernels_run` go both
ways.
"""

import os
from collections import Counter
from contextlib import contextmanager
from functools import cache

import numpy as np
import ptx_machine
from numba.core import config

WHERE = "no kernels can run: make test-cuda runs these in the simulator, make test-ptx compiled"
SIMULATED = bool(config.ENABLE_CUDASIM)
COMPILED = not SIMULATED and os.environ.get("HANDLOOM_PTX") == "1"


def required() -> None:
    """Skip the module that calls this where kernels cannot run."""
    import pytest

    if not (SIMULATED or COMPILED):
        pytest.skip(WHERE, allow_module_level=True)


def install(monkeypatch) -> None:
    """Let arrays of the simulator go to the compiled kernels."""
    from handloom.kernels import launch

    monkeypatch.setattr(launch, "SIMULATED", True)
    monkeypatch.setattr(launch.Kernel, "_simulate", execute)


def execute(kernel, grid, args, shared) -> None:
    """One launch, as `Kernel._simulate`."""
    from handloom.kernels import launch

    launch._check_arguments(kernel, args)
    numbers = dict(kernel._numbers)
    given = [numbers[i](arg) if i in numbers else arg.ctypes.data for i, arg in enumerate(args)]
    memory = ptx_machine.Memory([np.asarray(args[i]) for i, _ in kernel._pointers])
    tally = Counter() if launches is not None else None
    ptx_machine.run(program_of(kernel), memory, given, grid, kernel.block, shared, tally)
    if launches is not None:
        sizes = {array.ctypes.data: array.nbytes for array in map(np.asarray, args) if array.ndim}
        launches.append((kernel.function.__name__, sum(sizes.values()), tally))


# While operations are counted: (kernel, bytes of all its arrays, how many warps began each operation) of each launch.
launches = None


@contextmanager
def counting():
    """What is launched inside: a list of such triples."""
    global launches
    launches = []
    try:
        yield launches
    finally:
        launches = None


@cache
def program_of(kernel):
    program = ptx_machine.parse(ptx_of(kernel))
    numbers = dict(kernel._numbers)
    sizes = [numbers[i]().itemsize if i in numbers else 8 for i in range(len(kernel.types))]
    read = [dtype.itemsize for dtype in program.parameters.values()]
    assert sizes == read, f"{kernel.name} reads arguments of {read} bytes, a launch packs {sizes}"
    return program


def ptx_of(kernel, arch="sm_90a") -> str:
    """What `launch.compile_cubin` links, in PTX: the last text before it becomes a GPU's own code."""
    from cuda.core import Linker, LinkerOptions

    from handloom.kernels import launch

    options = LinkerOptions(arch=arch, link_time_optimization=True, ptx=True)
    return (
        bytes(Linker(*launch._before_linking(kernel, (8, 0)), options=options).link("ptx").code).rstrip(b"\0").decode()
    )
