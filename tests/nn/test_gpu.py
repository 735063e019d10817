"""Which GPUs there are, and the sentence for everything that can be missing."""

import time

import fake_gpu
import pytest
from fake_gpu import INSTALLED, Driver
from processes import run

from handloom import info, nn
from handloom.nn import gpu

CUDA13 = {"cupy-cuda13x": "14.2.0", "numba-cuda": "0.30.4", "cuda-bindings": "13.0.3"}
ONE, OF_CUDA_13 = Driver(), Driver(cuda=13000)

PROBLEMS = {
    "no driver": (
        None,
        INSTALLED,
        "there is no NVIDIA driver (libcuda.so.1 was not found): install it, or start the container with its GPUs "
        "(docker run --gpus all)",
    ),
    "a driver that does not start": (
        Driver(status=803),
        INSTALLED,
        "the NVIDIA driver does not start (error 803: what the driver calls it): make nvidia-smi work first; after an "
        "update of the driver the machine has to be started again",
    ),
    "no GPU": (
        Driver(status=gpu.NO_DEVICE),
        INSTALLED,
        "there is an NVIDIA driver, but it finds no GPU: see what nvidia-smi lists",
    ),
    "a count of none": (
        Driver(gpus=0),
        INSTALLED,
        "there is an NVIDIA driver, but it finds no GPU: see what nvidia-smi lists",
    ),
    "an old driver": (
        Driver(cuda=11080),
        INSTALLED,
        "the NVIDIA driver runs CUDA up to 11.8: it must run 12.0 at least, upgrade the driver",
    ),
    "no CuPy": (ONE, {}, "there is a GPU, but CuPy is not installed: pip install 'handloom[cuda12]'"),
    "no CuPy, CUDA 13": (
        OF_CUDA_13,
        {},
        "there is a GPU, but CuPy is not installed: pip install 'handloom[cuda13]'",
    ),
    "two CuPys": (
        OF_CUDA_13,
        {**INSTALLED, **CUDA13},
        "cupy-cuda12x and cupy-cuda13x are both installed: pip uninstall cupy-cuda12x cupy-cuda13x, then pip install "
        "'handloom[cuda13]'",
    ),
    "CuPy for a newer CUDA": (
        ONE,
        CUDA13,
        "cupy-cuda13x is for CUDA 13 and the NVIDIA driver runs CUDA up to 12.4: upgrade the driver, or pip uninstall "
        "cupy-cuda13x, then pip install 'handloom[cuda12]'",
    ),
    "no Numba-CUDA": (
        ONE,
        {"cupy-cuda12x": "13.4.0"},
        "there is a GPU, but Numba-CUDA is not installed: pip install 'numba-cuda[cu12]'",
    ),
    "no Numba-CUDA, and CuPy for an older CUDA": (
        OF_CUDA_13,
        {"cupy-cuda12x": "13.4.0"},
        "there is a GPU, but Numba-CUDA is not installed: pip install 'numba-cuda[cu12]'",
    ),
    "a toolkit of a newer CUDA": (
        ONE,
        {**INSTALLED, "cuda-bindings": "13.0.3"},
        "Numba-CUDA compiles with CUDA 13 and the NVIDIA driver runs CUDA up to 12.4: upgrade the driver, or pip "
        "install 'numba-cuda[cu12]'",
    ),
}


@pytest.mark.parametrize("driver, packages, problem", PROBLEMS.values(), ids=PROBLEMS)
def test_everything_that_is_missing_has_its_sentence(driver, packages, problem, monkeypatch):
    fake_gpu.install(monkeypatch, driver, packages)
    assert nn.list_devices() == ["cpu"]
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError) as error:
            nn.Dense(1, device=name)
        assert str(error.value) == f"Dense: device {name!r}: {problem}"


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_hidden_gpus_are_told_from_none(visible, monkeypatch):
    fake_gpu.install(monkeypatch, Driver(status=gpu.NO_DEVICE))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = (
        f"there is an NVIDIA driver, but it finds no GPU, and CUDA_VISIBLE_DEVICES is {visible!r}: unset it before "
        "Python starts, or name one that nvidia-smi lists"
    )
    assert gpu.find().problem == expected


@pytest.mark.parametrize(
    "driver, packages",
    [
        (ONE, INSTALLED),
        (OF_CUDA_13, CUDA13),
        (OF_CUDA_13, INSTALLED),
        (Driver(cuda=14000), CUDA13),
        (ONE, {**INSTALLED, "cuda-bindings": "12.9.1"}),
        (ONE, {"cupy": "14.0.0", "numba-cuda": "0.20.0"}),  # built from source; a Numba-CUDA without bindings
        (OF_CUDA_13, {"cupy-cuda11x": "13.4.0", "numba-cuda": "0.30.4", "cuda-bindings": "12.9.1"}),
    ],
)
def test_what_goes_together_is_let_through(driver, packages, monkeypatch):
    fake_gpu.install(monkeypatch, driver, packages)
    assert gpu.find().problem is None
    assert nn.list_devices() == ["cpu", "cuda:0"]


def test_info_says_why_there_is_none(monkeypatch):
    fake_gpu.install(monkeypatch)
    assert info.facts()["gpu"] == f"none: {PROBLEMS['no driver'][2]}"


def test_info_names_the_gpus(monkeypatch):
    fake_gpu.install(monkeypatch, Driver(gpus=2))
    assert gpu.find() == (("Imaginary 0", "Imaginary 1"), "12.4", None)
    assert info.facts()["gpu"] == "cuda:0 Imaginary 0, cuda:1 Imaginary 1 (driver for CUDA 12.4)"


def test_the_simulator_is_one_gpu(monkeypatch):
    fake_gpu.install(monkeypatch)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    assert not gpu.simulated()
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert gpu.simulated() and nn.list_devices() == ["cpu", "cuda:0"]


def test_asking_is_quick_and_imports_nothing(tmp_path):
    code = """
import sys
before = set(sys.modules)  # some packages for CUDA put one of these there when Python starts
from handloom.nn import gpu
gpu.find()
assert not {"numpy", "numba", "cupy", "numba_cuda", "cuda"} & sys.modules.keys() - before
"""
    run(code, tmp_path)
    if gpu.find().names:
        pytest.skip("there is a GPU, and starting its driver takes long")
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        gpu.find.__wrapped__()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3
