"""What tests of simulated kernels share."""

import numpy as np
import pytest

from handloom.kernels import arrays


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
