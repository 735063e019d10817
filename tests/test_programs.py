"""The three programs from end to end: silent, repeatable to the bit on any number of threads, without growing."""

import pytest
from processes import COUNTING, run

PROGRAMS = ("dense", "cnn", "lstm")
# 75 samples make batches of 32, 32 and 11: no chunk divides them.
TRAIN = """
import hashlib
import numba, numpy as np
from handloom.bench.cases import programs
from handloom.kernels import threads
from handloom.nn.utils import set_random_seed

def train(program, epochs=2):
    set_random_seed(7)
    x, y = programs.data(program, steps=3)
    model = programs.build(program)
    history = model.fit(x[:75], y[:75], epochs=epochs, batch_size=32, verbose=0)
    parts = [np.float64(history.history["loss"]), model.predict(x[:75], verbose=0), *model.get_weights()]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
"""


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_whole_fit_gives_the_same_bits_on_any_number_of_threads(program, tmp_path):
    code = (
        TRAIN
        + f"""
class Region:
    # In place of the lock that guards parallel regions: counts them.
    entered = 0
    def acquire(self, blocking):
        self.entered += 1
        return True
    def release(self):
        pass

threads._region = region = Region()
threads.THREADS_PAY = 0
found = []
for count in (1, 2, 3, 7, 7):
    numba.set_num_threads(count)
    found.append(train({program!r}))
parallel = region.entered
threads.THREADS_PAY = 10**18
found.append(train({program!r}))
print(len(found), len(set(found)), parallel > 0, region.entered == parallel)
"""
    )
    out, _ = run(code, tmp_path, NUMBA_NUM_THREADS="8", HANDLOOM_CACHE_DIR=None)
    assert out == "6 1 True True\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_second_process_compiles_nothing_and_says_nothing(program, tmp_path):
    """Warnings are errors in these processes."""
    code = COUNTING + TRAIN + f"print(train({program!r}), compiled())"
    first, _ = run(code, tmp_path, HANDLOOM_CACHE_DIR=None)
    assert run(code, tmp_path, HANDLOOM_CACHE_DIR=None) == (f"{first.split()[0]} 0\n", "")


def test_a_hundred_epochs_do_not_grow_the_memory(tmp_path):
    code = (
        TRAIN
        + """
import gc, os

def megabytes():
    gc.collect()
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

x, y = programs.data("cnn", steps=2)
model = programs.build("cnn")
model.fit(x, y, epochs=20, batch_size=32, verbose=0)
before = megabytes()
model.fit(x, y, epochs=100, batch_size=32, verbose=0)
print(megabytes() - before)
"""
    )
    out, _ = run(code, tmp_path, HANDLOOM_CACHE_DIR=None)
    assert float(out) < 4
