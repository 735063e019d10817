"""gpu-check: every CUDA kernel on a GPU, verified and timed. (Not yet run on a GPU.)

    make gpu-check                          or, where handloom is installed: handloom gpu-check
    python bench/gpu                        the same from a bare checkout

What it does, and where that is written:

    machine     the device, its driver and the versions                                        machine.py
    contract    every case x variant x dtype of every operation against its reference          contract.py
    programs    the three programs, trained there and on the CPU from the same seed            training.py
    timings     kernels beside cuBLAS and torch, as shares of them or of copying memory        timings.py, clock.py

Every part runs in a process of its own, which is started again behind a case that killed it (worker.py); parts.py has
their order. Results are written after each part (report.py). cubins.py compiles all kernels that are needed here,
without a GPU.
"""

from .command import main

__all__ = ["main"]
