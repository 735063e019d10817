"""Results on processors with less than this one: a process that compiles for it takes a few cases of every operation
through the contract's checks, forward and backward, against the reference.

In float32, in the variant that an operation chooses itself: products that are packed, read in place, turned, and in
parts; convolutions with tiles, depthwise, and Winograd's; an LSTM and its cell; pooling with and without overlap; and
one case of everything else, whose kernels have one path. In float64, a product and an LSTM.
"""

import runpy
from pathlib import Path

import pytest
from processes import finish, start

from handloom.kernels import simd

# Where tests run side by side, one process compiles for other processors at a time.
pytestmark = pytest.mark.xdist_group("other processors")

SUPPORT = str(Path(__file__).parents[1] / "support")
# Without a vector unit beyond the baseline and without fused multiply-adds; and with AVX2. All other tests run on the
# machine's own vectors: where those have 32 bytes, that is AVX2 already.
PROCESSORS = {
    name: (environment, vector_bytes, has_fma)
    for name, environment, vector_bytes, has_fma in (
        ("generic", {"NUMBA_CPU_NAME": "generic"}, 16, False),
        ("avx2", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}, 32, True),
    )
    if vector_bytes < simd.VECTOR_BYTES
}
# The cases of these operations; of others, that which is large enough for several chunks.
CASES = {
    "matmul": ("31x67x17", "large", "thin-and-deep", "few-rows-transposed-b"),
    "dense": ("program-1",),
    "conv2d": ("same-strides", "depthwise-alone", "depthwise-strides", "groups-in-three-tiles"),
    "conv2d_max_pool2d": ("odd-column", "points-sided"),
    "lstm": ("17x3x5to17", "5x3x7to384"),
    "lstm_cell": ("9x5to17",),
    "max_pool2d": ("overlap",),
    "avg_pool2d": ("33-channels",),
    "global_max_pool2d": ("3x7x5x21",),
    "global_avg_pool2d": ("3x7x5x21",),
    "sgd_update": ("plain-7x13", "nesterov-7x13"),
    "rmsprop_update": ("centered-momentum-7x13",),
    "adam_update": ("-7x13",),
    "adamw_update": ("-7x13",),
    "uniform": ("3x11-as-float32",),
    "normal": ("3x11-as-float32",),
    "truncated_normal": ("3x11-as-float32",),
    "permutation": ("100",),
}
DOUBLE = "matmul-31x67x17", "lstm-17x3x5to17"


def run_cases(vector_bytes, has_fma):
    """In a process for one of the processors: every check raises where it fails."""
    assert (vector_bytes, has_fma) == (simd.VECTOR_BYTES, simd.HAS_FMA)
    contract = runpy.run_path(str(Path(__file__).with_name("test_contract.py")))
    chosen = [case for case in contract["CASES"] if case.id in CASES.get(case.op, ("chunks",))]
    assert {case.op for case in chosen} == set(contract["OPS"])
    points = [(case, None, "float32") for case in chosen]
    points += [(case, None, "float64") for case in chosen if str(case) in DOUBLE]
    points += [(case, "winograd", "float32") for case in contract["CASES"] if str(case) == "conv2d-points"]
    for point in points:
        contract["test_forward_follows_the_reference"](*point)
        if point[0].wrt:
            contract["test_gradients_follow_the_reference"](*point)
    print(len(points))


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """One for each processor, at once."""
    code = "import runpy; runpy.run_path({!r})['run_cases']({}, {})"
    started = {
        name: start(code.format(__file__, *expected), tmp_path_factory.mktemp(name), PYTHONPATH=SUPPORT, **environment)
        for name, (environment, *expected) in PROCESSORS.items()
    }
    yield started
    for process in started.values():  # also one whose test was not chosen
        with process:
            process.kill()


@pytest.mark.parametrize("name", PROCESSORS)
def test_results_stay_within_tolerance(name, processes):
    out, _ = finish(processes[name], timeout=600)
    assert int(out) > 40
