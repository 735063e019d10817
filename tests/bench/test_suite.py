"""The suite at toy sizes: what is verified, what is written, what is refused."""

import json
import os
import shlex
import subprocess
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest

from handloom import bench, kernels
from handloom.bench import cases, measure, peers, timing
from handloom.bench.case import Candidate, Case, Work
from handloom.bench.cases import convolution, networks, programs

ROOT = Path(__file__).parents[2]
LIMITS = {
    "multiply-adds, GFLOP/s": {1: 100.0},
    "copy, GB/s": {level: {1: 10.0} for level in ("L1", "L2", "L3", "memory")},
}
EFFORT = timing.Effort(1, 0.0, 0.0)


def suite(dtype="float32", asked=()):
    return measure.Suite(LIMITS, 1, EFFORT, dtype, list(asked))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_family_agrees_with_its_reference_and_gets_all_figures(dtype, toy):
    assert {case.family for case in toy} == {case.family for case in REAL} - {"programs"}
    for case in cases.select([], "quick", dtype):
        rows = suite(dtype).rows(case)
        assert [row.variant for row in rows] == list(case.variants) and [row.default for row in rows][-1]
        for row in rows:
            assert row.wrong is None, row
            assert list(row.us) == ["handloom"] and row.us["handloom"] > 0 and row.cpu_us["handloom"] >= 0
            low, high = row.p20_p80["handloom"]
            assert low <= row.us["handloom"] <= high and row.first_s["handloom"] > 0
            assert row.gbs > 0 and row.share > 0 and row.limit in ("multiply-adds", *LIMITS["copy, GB/s"])
            assert row.ratio is None and row.dtype == dtype


REAL = cases.every()
CONV_AND_GEMM = ("conv2d", "matmul", "dense")


def test_names_are_unique_and_every_command_finds_its_row_again():
    assert len({case.name for case in REAL}) == len(REAL)
    for case in REAL:
        row = suite()._row(case, "x", Work(None, None))
        words = shlex.split(row.command)
        options = bench.command.parser().parse_args(words[2:])
        assert words[:2] == ["handloom", "bench"] and options.threads == 1
        assert cases.select(options.only, options.extent) == [case]
    assert cases.select(["conv2d", "gemm"]) == [case for case in REAL if case.quick and case.op in CONV_AND_GEMM]
    assert sum(case.quick for case in REAL) < 40  # it promises two minutes


def test_quick_is_a_part_of_full_and_full_of_the_survey():
    quick, full, survey = (cases.select([], extent) for extent in ("quick", "full", "survey"))
    assert set(quick) < set(full) < set(survey) and survey == REAL
    assert {case.extent for case in quick} == {"quick"} and {case.extent for case in full} == {"quick", "full"}
    for text in ("matmul/32x32x32", "dropout/backward", "conv2d/forward/1x7x7x512-3x3-512-pad1x1"):  # in no smaller one
        assert {case.extent for case in cases.select([text])} == {"survey"}
    assert [case.name for case in cases.select(["matmul/48x48x48", "relu/forward"])] == [
        "matmul/48x48x48", "relu/forward/16777216",
    ]  # fmt: skip
    options = bench.command.parser().parse_args
    assert [options(given).extent for given in ([], ["--quick"], ["--full"], ["--survey"])] == [
        "quick", "quick", "full", "survey",
    ]  # fmt: skip


def small(layer):
    """A layer of a network with few channels, of an image that its window just fits into, as even or odd as it was."""
    size, c, f, window, padding, options = layer
    groups = options.get("groups", 1)
    size = max(window) * options.get("dilation", 1) + 2 + size % 2
    if groups > 1:
        c, f, options = 4, 4, {**options, "groups": 4 if groups == c else 2}
    else:
        c, f = min(c, 5), 7
    return size, c, f, window, padding, tuple(options.items())


def test_every_kind_of_layer_of_the_survey_agrees_with_its_reference_when_it_is_small():
    kinds = dict.fromkeys(map(small, networks.RESNET_50 + networks.INCEPTION_V3 + networks.OTHERS))
    assert len(kinds) >= 20
    for size, c, f, window, padding, options in kinds:
        for case in convolution._cases(2, size, c, f, window, padding=padding, **dict(options)):
            (row,) = suite().rows(case)
            assert row.wrong is None and row.us["handloom"] > 0, row


def test_what_leaves_a_layer_of_resnet_enters_another():
    leaving = {(56, 64)}  # from the first pooling
    for size, _, f, window, padding, options in networks.RESNET_50:
        leaving.add(((size + 2 * padding[0] - window[0]) // options.get("strides", 1) + 1, f))
    assert {(size, c) for size, c, *_ in networks.RESNET_50[1:]} <= leaving and (7, 2048) in leaving


def test_flops_and_bytes_are_the_algorithms():
    work = {name: case.make(np.dtype("float32")) for case in REAL for name in [case.name] if name in EXPECTED}
    assert {name: (one.flops, one.bytes) for name, one in work.items()} == EXPECTED


EXPECTED = {
    "matmul/48x48x48": (2 * 48**3, 4 * 3 * 48**2),
    "conv2d/forward/32x28x28x1-3x3-32": (2 * 32 * 26 * 26 * 32 * 9, 4 * (32 * 28 * 28 + 9 * 32 + 32 * 26 * 26 * 32)),
    "max_pool2d/backward/32x26x26x32-2x2-strides2": (
        32 * 13 * 13 * 32 * 4,
        4 * (32 * 26 * 26 * 32 + 32 * 13 * 13 * 32) + 32 * 13 * 13 * 32,
    ),
    "conv2d/forward/1x224x224x3-7x7-64-strides2-pad3x3": (
        2 * 112 * 112 * 64 * 7 * 7 * 3,
        4 * (224 * 224 * 3 + 7 * 7 * 3 * 64 + 112 * 112 * 64),
    ),
    "conv2d/weight-gradient/1x17x17x128-1x7-192-pad0x3": (
        2 * 17 * 17 * 192 * 7 * 128,
        4 * (17 * 17 * (128 + 192) + 7 * 128 * 192),
    ),
    "avg_pool2d/forward/2x28x28x32-3x3-strides1-same": (2 * 28 * 28 * 32 * 9, 4 * 2 * 2 * 28 * 28 * 32),
    "softmax/forward/32x10": (5 * 320, 4 * 640),
    "adam_update/7000": (12 * 7000, 4 * 7 * 7000),
    "fit/dense": (
        2 * 32 * (2 * 100 * 64 + 3 * 64 * 10),  # no gradient of the data
        4 * (3 * (101 * 64 + 65 * 10) + 32 * (100 + 10)),
    ),
    "predict/dense": (2 * (100 * 64 + 64 * 10), 4 * (101 * 64 + 65 * 10 + 100 + 10)),
}


def broken(monkeypatch):
    relu = kernels.relu
    monkeypatch.setattr(kernels, "relu", wraps(relu)(lambda x: relu(x) * np.float32(1.001)))


def test_a_wrong_kernel_gets_no_time(toy, monkeypatch):
    broken(monkeypatch)
    (row,) = suite().rows(next(case for case in toy if case.name == "relu/forward/5x7"))
    assert "differs" in row.wrong and row.us == {} and row.gbs is None


def test_a_wrong_rung_is_found_among_right_ones(toy, monkeypatch):
    """Each has an output of its own."""
    launcher = kernels.VARIANTS["matmul"].launcher

    def broken(device, variant):
        return (lambda a, b, c, *rest: c.fill(0)) if variant == "packed" else launcher(device, variant)

    monkeypatch.setattr(kernels.VARIANTS["matmul"], "launcher", broken)
    rows = suite().rows(next(case for case in toy if case.name == "matmul/17x19x23"))
    assert [row.variant for row in rows if row.wrong] == ["packed"]
    assert all(row.us for row in rows if not row.wrong)


def test_a_kernel_that_goes_wrong_while_it_is_timed_gets_no_time_either():
    calls = []
    candidate = Candidate(lambda: calls.append(1), lambda: np.full(3, len(calls) > 1, np.float32))
    case = Case("gemm", "none", "", "case", lambda dtype: Work(lambda variant: candidate, lambda: np.zeros(3), bytes=1))
    (row,) = suite().rows(case)
    assert "differs" in row.wrong and row.us == {}


def test_a_peer_that_is_wrong_or_fails_is_left_out_aloud(monkeypatch):
    def of(name, value):
        return lambda: {name: Candidate(lambda: None, lambda: np.full(3, value))}

    def failing():
        raise ModuleNotFoundError("no flax")

    others = {"numpy": of("numpy", 1.0), "torch": of("torch", 0.0), "jax": failing}
    work = Work(lambda variant: of("x", 0.0)()["x"], lambda: np.zeros(3), others, bytes=1)
    monkeypatch.setattr(peers, "installed", lambda: ["numpy", "torch", "jax"])
    one = suite(asked=("numpy", "torch", "jax", "keras"))
    (row,) = one.rows(Case("gemm", "none", "", "case", lambda dtype: work))
    assert list(row.us) == ["handloom", "torch"] and row.ratio > 0
    assert one.not_measured == [
        "keras: not installed",
        "none/case: jax: ModuleNotFoundError: no flax",
        "none/case: numpy: differs by 1.0e+30 of the largest magnitude from the reference",
    ]


@pytest.mark.parametrize(
    "found, wrong",
    [
        (np.zeros(2), "differs in shape"),
        ((np.ones(3), np.ones(3)), "differs in shape"),
        (np.array([1, np.nan, 1]), "differs by nan"),
        (np.array([1, np.inf, 1]), "differs by inf"),
        (np.array([1, 1, 1.001]), "differs by 1.0e-03"),
        (np.array([1, 1, 1.00001]), None),
    ],
)
def test_what_differs(found, wrong):
    text = measure.differs(Candidate(None, lambda: found), np.ones(3), 1e-4)
    assert wrong in text if wrong else text is None
    if not isinstance(found, tuple):
        text = measure.agree({"ours": np.ones(3), "theirs": found}, 1e-4)
        assert wrong in text and "theirs" in text if wrong else text is None


@pytest.mark.parametrize("program", programs.PROGRAMS)
def test_the_programs_predict_what_the_reference_does(program, monkeypatch):
    monkeypatch.setattr(programs, "STEPS", dict.fromkeys(programs.PROGRAMS, 2))
    for op in ("fit", "predict"):
        case = next(case for case in REAL if case.name == f"{op}/{program}")
        (row,) = suite().rows(case)
        assert row.wrong is None and row.us["handloom"] > 0


def test_the_command_writes_rows_limits_machine_and_method(toy, tmp_path, capsys):
    path = tmp_path / "found.json"
    assert (
        bench.main(["--only", "gemm", "--only", "softmax", "--peers", "numpy", "--threads", "1", "--json", str(path)])
        == 0
    )
    found = json.loads(path.read_text())
    assert found["schema"] == 3 and found["complete"] and found["device"] == "cpu"
    assert found["machine"]["threads"] == 1 and found["machine"]["caches"] and found["machine"]["versions"]["numpy"]
    assert [name for name, _ in found["method"]] == ["numpy"]
    assert {row["family"] for row in found["rows"]} == {"gemm", "activation"}
    naive = found["rows"][0]
    assert naive["name"] == "matmul/17x19x23" and naive["variant"] == "naive" and not naive["default"]
    assert (
        set(naive["us"]) == {"handloom", "numpy"} and naive["ratio"] == naive["us"]["numpy"] / naive["us"]["handloom"]
    )
    text = capsys.readouterr().out
    assert "handloom bench --only matmul/17x19x23 --threads 1" in text and "x the best peer: numpy" in text
    assert "first call" in text and "cpu" in text
    assert "ahead by more than 5 %" in text and f"written to {path}" in text
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]


def test_a_wrong_result_is_printed_and_is_the_exit_status(toy, monkeypatch, capsys):
    broken(monkeypatch)
    assert bench.main(["--only", "relu/forward", "--peers", "none", "--threads", "1"]) == 1
    assert "WRONG: differs by" in capsys.readouterr().out


def test_a_survey_takes_a_line_a_row_and_a_summary_by_family(toy, monkeypatch, capsys):
    monkeypatch.setattr(bench.command, "MANY", 0)
    command = ["--survey", "--only", "matmul", "--only", "softmax/forward", "--peers", "numpy,jax", "--threads", "1"]
    assert bench.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("gemm")
    rungs = list(kernels.VARIANTS["matmul"]["cpu"])
    assert [line.split()[:2] for line in lines[first + 1 : first + len(rungs)]] == [
        ["matmul/17x19x23", rung] for rung in rungs[:-1]
    ]
    row = lines[first + len(rungs)]
    assert row.startswith("  matmul/17x19x23  ") and " us  " in row and "% of " in row and " x numpy" in row
    assert lines[first + len(rungs) + 2] == "activation" and "softmax/forward/5x7" in "".join(lines[first:])
    behind = lines.index("furthest behind:")
    assert "x the best peer: handloom bench --only matmul/" in lines[behind + 1]
    assert any(line.startswith("against the best peer of each, ") for line in lines[behind:])


def test_ctrl_c_keeps_the_results_so_far(toy, tmp_path, monkeypatch, capsys):
    rows_of = measure.Suite.rows

    def rows(self, case):
        if case.op == "conv2d":
            raise KeyboardInterrupt
        return rows_of(self, case)

    monkeypatch.setattr(measure.Suite, "rows", rows)
    path = tmp_path / "found.json"
    assert bench.main(["--peers", "none", "--threads", "1", "--json", str(path)]) == 130
    found = json.loads(path.read_text())
    assert not found["complete"] and {row["family"] for row in found["rows"]} == {"gemm"}
    assert "interrupted" in capsys.readouterr().out


def test_options_that_make_no_sense_are_refused_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setattr(measure.Suite, "rows", lambda *args: pytest.fail("it ran"))
    cores = len(os.sched_getaffinity(0))
    for arguments, message in (
        (["--threads", "0"], f"--threads is 0: must be from 1 to {cores}"),
        (["--peers", "numpy,tensorflow"], "--peers: 'tensorflow' is no peer: the peers are numpy, torch"),
        (["--quick", "--full"], "not allowed with"),
    ):
        with pytest.raises(SystemExit) as stop:
            bench.main(arguments)
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert bench.main(["--only", "conv2"]) == 2
    assert "did you mean 'conv2d'" in capsys.readouterr().err


def test_everyone_gets_the_same_cores(toy, monkeypatch):
    seen, rows_of = [], measure.Suite.rows

    def rows(self, case):
        seen.append(os.sched_getaffinity(0))
        return rows_of(self, case)

    monkeypatch.setattr(measure.Suite, "rows", rows)
    before = os.sched_getaffinity(0)
    bench.main(["--only", "adam_update", "--peers", "none", "--threads", "1"])
    assert [len(cores) for cores in seen] == [1] and os.sched_getaffinity(0) == before


def test_the_cases_run_under_pytest_benchmark(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "bench",
        "-k",
        "softmax/backward or adam",
    ]
    options = ["--benchmark-max-time=0.001", "--benchmark-min-rounds=1", f"--benchmark-json={tmp_path / 'found.json'}"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT, env=alone)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    assert all(one["stats"]["median"] > 0 for one in found)
    assert {one["group"] for one in found} == {"softmax/backward/1024x1000", "adam_update/700000"}
    assert {"softmax/backward/1024x1000-threaded", "adam_update/700000-default"} <= {
        one["name"].partition("[")[2].rstrip("]") for one in found
    }
