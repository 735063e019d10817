"""A benchmark suite of toy sizes: nobody is asked how fast anything is."""

from dataclasses import replace

import pytest

from handloom.bench import cases, quiet, timing
from handloom.bench.cases import activation, convolution, gemm, losses, optimizers, pooling, randomness, recurrent
from handloom.kernels import limits


@pytest.fixture
def short(monkeypatch):
    """Limits measured in no time."""
    monkeypatch.setattr(limits, "SAMPLES", 2)
    monkeypatch.setattr(limits, "STRETCH", 1e-5)
    monkeypatch.setattr(limits, "ROUNDS", 100)
    monkeypatch.setattr(limits, "LARGEST", 1 << 16)


@pytest.fixture
def toy(short, monkeypatch):
    """A case of each family, all quick; those with ladders in all variants."""
    found = [
        gemm._product(17, 19, 23, ladder=True),
        gemm._product(5, 7, 3, batch=(2,), turned="tn"),
        *(case for case in gemm.CASES if case.op == "dense"),
        *convolution._cases(2, 9, 4, 8, 3, ladder=True),
        *convolution._cases(1, 9, 4, 8, 3, groups=2, dilation=2, strides=2),
        *convolution._cases(2, 9, 4, 8, (1, 3), padding=(0, 1)),
        *pooling._cases("max_pool2d", 2, 7, 3, 3, 2, ladder=True),
        *pooling._cases("avg_pool2d", 2, 6, 3, 2, 2),
        *pooling._cases("max_pool2d", 2, 7, 3, 3, 1, "same"),
        *pooling._cases("avg_pool2d", 2, 7, 3, 3, 1, "same"),
        *recurrent._cases(3, 4, 5, 6),
        *(case for op in ("softmax", "log_softmax", "gelu", "relu") for case in activation._cases(op, 5, 7)),
        *losses.CASES[:2],
        optimizers.CASES[0],
        optimizers.CASES[3],
        *(case for case in randomness.CASES if case.case in ("1048576", "32x10")),
    ]
    found = [replace(case, quick=True) for case in found]
    monkeypatch.setattr(quiet, "PAUSE", 0.0)
    monkeypatch.setattr(timing, "WAKING", 0.0)
    for name in ("QUICK", "FULL"):
        monkeypatch.setattr(timing, name, timing.Effort(1, 0.0, 0.0))
    monkeypatch.setattr(cases, "every", lambda: found)
    return found
