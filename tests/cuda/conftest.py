"""What tests of CUDA kernels share."""

import compiled
import numpy as np
import pytest

from handloom.kernels import arrays


def pytest_collection_modifyitems(config, items):
    """In a run of compiled kernels nothing but what runs them."""
    if compiled.COMPILED:
        running = [item for item in items if {"kernels_run", "cupy"} & set(item.fixturenames)]
        config.hook.pytest_deselected(items=[item for item in items if item not in running])
        items[:] = running


@pytest.fixture
def kernels_run(monkeypatch):
    """Kernels run in the simulator, or compiled: see compiled.py."""
    if compiled.COMPILED:
        compiled.install(monkeypatch)
    elif not compiled.SIMULATED:
        pytest.skip(compiled.WHERE)


@pytest.fixture
def nan_filled_memory(monkeypatch):
    """Fresh arrays start as NaN, so that an output a kernel forgot to write is seen."""
    empty = arrays._Simulated.empty

    def poisoned(shape, dtype):
        array = empty(shape, dtype)
        if array.dtype.kind not in "biu":
            array.fill(np.nan)
        return array

    monkeypatch.setattr(arrays._Simulated, "empty", staticmethod(poisoned))
