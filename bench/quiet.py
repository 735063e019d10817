"""Whether the machine is quiet while the benchmarks run.

A loop of multiply-adds, on all threads, always does the same work, so how far its samples lie apart says who else used
these cores. It runs beside every row that is measured. Others that load memory, or a cache that is shared, do not show
in it.
"""

import time

import numpy as np

from ..kernels.limits import fixed_loop
from .timing import wake

# Samples of the loop may lie this far apart, as a share of their median.
NOISY = 0.1
LOOKS = 5  # samples beside a row
PAUSE = 0.12  # seconds: threads of the one before spin on
LOOPS = 4  # of a sample, together about a millisecond


class Quiet:
    """`look` takes samples of the fixed loop."""

    def __init__(self, threads: int):
        self._run = fixed_loop(threads)
        self._run()
        self.seconds = []

    def look(self):
        time.sleep(PAUSE)
        wake(self._run)
        for _ in range(LOOKS):
            begin = time.perf_counter()
            for _ in range(LOOPS):
                self._run()
            self.seconds.append(time.perf_counter() - begin)

    @property
    def spread(self) -> float:
        """From the 10th to the 90th of a hundred samples, as a share of the median."""
        low, middle, high = np.percentile(self.seconds, (10, 50, 90))
        return float((high - low) / middle)

    @property
    def noisy(self) -> bool:
        return self.spread > NOISY
