"""gpu-check without a GPU: in the simulator from end to end, its processes and its report, and the carried cubins."""

import ctypes
import functools
import json
import os
import subprocess
import sys
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numba import float32
from numba.core import config

from handloom.bench.gpu import clock, command, contract, parts, worker
from handloom.bench.gpu.report import Report
from handloom.kernels import store

simulator = pytest.mark.skipif(not config.ENABLE_CUDASIM, reason="not in the simulator: make test-cuda runs these")
numba_cuda = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="needs numba-cuda: make test-cuda runs these")


class TestProcesses:
    """Tasks that kill their process do not hide the others."""

    CHILD = """
import os, sys, time
from handloom.bench.gpu import worker

def well():
    print("this does not disturb")
    return [worker.row("well", "ok", figure=1.5)]

def badly():
    raise AssertionError("not equal")

def crash():
    os._exit(9)

def hang():
    time.sleep(60)

tasks = [("first", well), ("crash", crash), ("wrong", badly), ("hang", hang), ("last", well)]
sys.exit(worker.work(tasks, int(sys.argv[sys.argv.index("--first") + 1])))
"""

    def test_each_task_gets_its_row(self, monkeypatch):
        monkeypatch.setattr(worker, "COMMAND", [sys.executable, "-c", self.CHILD])
        rows, totals = [], []

        def told(message):
            rows.extend(message.get("rows", ()))
            totals.extend([len(message["tasks"])] if "tasks" in message else [])

        worker.run("part", [], told, silence=10)
        assert [(row["name"], row["status"]) for row in rows] == [
            ("well", "ok"), ("crash", "fault"), ("wrong", "wrong"), ("hang", "fault"), ("well", "ok")
        ]  # fmt: skip
        assert rows[0]["figure"] == 1.5
        assert rows[1]["text"] == "the process ended with status 9"
        assert rows[2]["text"] == "not equal"
        assert rows[3]["text"] == "the process said nothing for 10 s"
        assert totals == [5, 5, 5], "a process for each that died, and one more"

    def test_a_process_that_does_not_even_start_is_a_row(self, monkeypatch):
        monkeypatch.setattr(worker, "COMMAND", [sys.executable, "-c", "raise SystemExit(4)"])
        rows = []
        worker.run("gemm", [], lambda message: rows.extend(message["rows"]))
        assert rows == [worker.row("gemm", "fault", "the process ended with status 4 before its first case")]

    @pytest.fixture
    def rows_of(self, monkeypatch):
        """rows_of(tasks, more options of `run`): the rows of tasks that are written as Python."""

        def rows_of(tasks, **options):
            child = (
                "import os, sys, time\nfrom handloom.bench.gpu import worker\n"
                "def fails(text): raise RuntimeError(text)\n"
                f"sys.exit(worker.work({tasks}, int(sys.argv[-1])))"
            )
            monkeypatch.setattr(worker, "COMMAND", [sys.executable, "-c", child])
            rows = []
            worker.run("gemm", [], lambda message: rows.extend(message.get("rows", ())), **options)
            return [(row["name"], row["status"], row["text"]) for row in rows]

        return rows_of

    def test_where_all_die_the_rest_is_not_run(self, rows_of, monkeypatch):
        monkeypatch.setattr(worker, "CHILDREN", 2)
        died = "fault", "the process ended with status 9"
        left = "not run", "2 processes died before"
        rows = rows_of("[(name, lambda: os._exit(9)) for name in 'abcd']")
        assert rows == [("a", *died), ("b", *died), ("c", *left), ("d", *left)]

    def test_a_group_whose_tasks_die_does_not_hide_the_others(self, rows_of, monkeypatch):
        monkeypatch.setattr(worker, "FAULTS", 2)
        tasks = "[(name, lambda: os._exit(9), 'naive') for name in 'abcd'] + [('e', lambda: [], 'tensor')]"
        died = "fault", "the process ended with status 9"
        left = "not run", "naive ended 2 processes before"
        rows = rows_of(tasks.replace("lambda: []", "lambda: [worker.row('e', 'ok')]"))
        assert rows == [("a", *died), ("b", *died), ("c", *left), ("d", *left), ("e", "ok", "")]

    def test_tasks_that_can_use_cuda_no_more_count_as_well(self, rows_of, monkeypatch):
        monkeypatch.setattr(worker, "FAULTS", 2)
        lost = "setattr(worker, '_usable', lambda: False)"
        fault = "fault", "RuntimeError: lost"
        rows = rows_of(f"{lost} or [(name, lambda: fails('lost'), 'naive') for name in 'abc']")
        assert rows == [("a", *fault), ("b", *fault), ("c", "not run", "naive ended 2 processes before")]

    def test_what_fails_alike_over_and_over_ends_its_part(self, rows_of, monkeypatch):
        """Whatever kernel it is, and with whatever arguments."""
        monkeypatch.setattr(worker, "ALIKE", 3)
        text = "handloom.kernels.{0}.run: cannot be launched (no image); grid ({0},)"
        fails = f"time.sleep(30 * (name > 'c')) or fails({text!r}.format(name))"
        tasks = f"[(name, lambda name=name: {fails}) for name in 'abcde']"
        *failed, d, e = rows_of(tasks)
        assert [(name, status) for name, status, _ in failed] == [(name, "wrong") for name in "abc"]
        why = "not run", "the 3 before failed alike: RuntimeError: cannot be launched (no image)"
        assert (d, e) == (("d", *why), ("e", *why))

    def test_other_failures_and_what_goes_well_between_do_not(self, rows_of, monkeypatch):
        monkeypatch.setattr(worker, "ALIKE", 3)
        tasks = "[(text, lambda text=text: fails(text) if text else [worker.row('', 'ok')]) for text in {}]"
        texts = ["a", "a", "b", "a", "a", "", "a", "a"]
        assert [name for name, status, _ in rows_of(tasks.format(texts)) if status != "not run"] == texts

    def test_when_the_time_is_over_nothing_begins(self, rows_of):
        tasks = "[('a', lambda: [worker.row('a', 'ok')]), ('b', lambda: time.sleep(60)), ('c', lambda: [])]"
        begin = time.monotonic()
        left = "not run", worker.LATE
        assert rows_of(tasks, deadline=begin + 8) == [("a", "ok", ""), ("b", *left), ("c", *left)]
        assert time.monotonic() - begin < 20
        assert rows_of(tasks, deadline=begin) == [("gemm", *left)]


def test_the_report_holds_everything_in_both_files(tmp_path):
    report = Report(tmp_path / "out", quick=True)
    report.machine = {"device": "H100", "versions": {"numpy": "2.4"}}
    report.add("gemm", [worker.row("matmul-a", "ok", error=1e-7), worker.row("matmul-b", "wrong", "x [/x]\ny")])
    figures = {"variant": "naive", "mode": "float32", "us": 8.0, "gflops": 1234.0, "peers_us": {"cuBLAS": 4.0}}
    report.add("timings", [worker.row("matmul 8^3", "ok", **figures)])
    report.leave_out("programs", "interrupted")
    report.save()
    content = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert content["schema"] == 1 and content["machine"] == report.machine and content["rows"] == report.rows
    assert content["not_run"] == [{"part": "programs", "text": "interrupted"}]
    text = (tmp_path / "out" / "gpu-check.txt").read_text()
    assert all(word in text for word in ("device: H100", "1,234", "0.50 cuBLAS (4.0)", "x [/x]", "not run: programs"))
    assert [row["name"] for row in report.bad()] == ["matmul-b"]


def test_what_was_not_run_for_one_reason_is_one_line(tmp_path):
    report = Report(tmp_path, quick=True)
    report.add("gemm", [worker.row(f"matmul-{i}", "not run", "naive ended 3 processes before") for i in range(40)])
    report.save()
    assert len(json.loads((tmp_path / "gpu-check.json").read_text())["rows"]) == 40
    text = (tmp_path / "gpu-check.txt").read_text()
    assert "matmul-0 and 39 more" in text and text.count("matmul-") == 1


def test_what_was_found_is_kept_while_more_is_looked_for(tmp_path, monkeypatch):
    report = Report(tmp_path / "out", quick=True)
    report.add("gemm", [worker.row("matmul-a", "ok", error=1e-7)])
    assert not report.folder.exists()
    monkeypatch.setattr("handloom.bench.gpu.report.SAVED_EVERY", -1)
    report.add("gemm", [worker.row("matmul-b", "ok", error=1e-7)])
    assert len(json.loads((report.folder / "gpu-check.json").read_text())["rows"]) == 2


def test_what_is_no_part_and_no_folder_is_an_error(capsys, tmp_path):
    for argv, complaint in (
        (["--only", "wool"], "--only: 'wool' is no part: the parts are gemm, programs, activation, convolution"),
        (["--cubins", str(tmp_path / "none")], "--cubins: there is no folder"),
    ):
        with pytest.raises(SystemExit) as end:
            command.main(argv)
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.skipif(config.ENABLE_CUDASIM, reason="the simulator is a GPU of a kind")
def test_without_a_gpu_it_says_what_is_missing(capsys, tmp_path, monkeypatch):
    from handloom.nn import gpu

    if gpu.find().problem is None:
        pytest.skip("there is a GPU")
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().out.startswith("gpu-check: there is ")
    assert not (tmp_path / "out").exists(), "results belong to a machine"


def test_an_interrupt_leaves_what_there_is(tmp_path, monkeypatch):
    def run(part, arguments, told, *rest):
        if part == "programs":
            raise KeyboardInterrupt
        told({"rows": [worker.row(part, "ok", device="a GPU", error=0.0)]})

    monkeypatch.setattr(worker, "run", run)
    only = [word for part in ("gemm", "programs", "timings") for word in ("--only", part)]
    assert command.main(["--out", str(tmp_path), *only]) == 130
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert [row["part"] for row in content["rows"]] == ["gemm"]
    assert [(left["part"], left["text"]) for left in content["not_run"]] == [
        ("programs", "interrupted"),
        ("timings", "interrupted before"),
    ]


def test_past_its_limit_no_part_begins(tmp_path, monkeypatch):
    def run(part, arguments, told, *rest):
        time.sleep(1)
        told({"rows": [worker.row(part, "ok", device="a GPU", error=0.0)]})
        given.append((part, *rest))

    given, begin = [], time.monotonic()
    monkeypatch.setattr(worker, "run", run)
    only = [word for part in ("gemm", "losses", "timings") for word in ("--only", part)]
    assert command.main(["--out", str(tmp_path), "--limit", "1.5", *only]) == 0
    machine, (part, silence, deadline) = given
    assert machine == ("machine",) and (part, silence) == ("gemm", contract.SILENCE)
    assert 0 <= deadline - begin - 1.5 < 1
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert [row["part"] for row in content["rows"]] == ["gemm"]
    assert [(left["part"], left["text"]) for left in content["not_run"]] == [
        ("losses", worker.LATE),
        ("timings", worker.LATE),
    ]


@numba_cuda
def test_what_says_most_comes_first():
    from handloom.bench.gpu import timings

    names = parts.names()
    assert names[:2] == ["gemm", "programs"] and names[-1] == "timings"
    assert sorted(names) == sorted([*contract.families(), "programs", "timings"])
    assert parts.silence("gemm") < parts.silence("programs") == parts.silence("timings")
    begin = [name.split()[0] for name, _ in timings.tasks(quick=False)]
    order = list(dict.fromkeys(begin))
    assert order[:5] == ["copy", "peak", "launch", "matmul", "step"] and order[-1] == "conv2d"


def test_points_of_a_family_come_variant_by_variant():
    points = contract.points("gemm")
    groups = [point.group for point in points]
    order = list(dict.fromkeys(groups))
    assert sorted(groups, key=order.index) == groups, "each group in one piece"
    assert order[:3] == ["the default of matmul", "the default of dense", "variant naive"]
    assert order[-2:] == ["variant tensor", "variant warpgroup"]
    assert len({str(point) for point in points}) == len(points) > 100


def test_a_device_is_its_name_and_its_capability_whatever_else_fails(monkeypatch):
    from types import SimpleNamespace

    from handloom.bench.gpu import machine

    class Device:
        id, compute_capability = 0, "90"

        @property
        def attributes(self):
            raise RuntimeError("cudaErrorInvalidValue")

    runtime = SimpleNamespace(getDeviceProperties=lambda device: {"name": b"H200"}, driverGetVersion=lambda: 13000)
    cupy = SimpleNamespace(cuda=SimpleNamespace(Device=Device, runtime=runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr("numba.cuda.implementation", "NVIDIA", raising=False)
    found = machine._device()
    assert (found["device"], found["capability"]) == ("H200", "90")
    assert found["processors"] == found["L2, MB"] == found["CUDA"] == found["highest clock, MHz"] == "unknown"


def test_a_gpu_works_before_it_is_timed(monkeypatch):
    """Else the first rounds are those of a GPU whose clocks are still low."""
    now, calls = [0.0], []

    def between(call, count):
        calls.append((call(), now[0], count))
        now[0] += 0.001 * count
        return 0.001

    monkeypatch.setattr(clock, "_between", between)
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    for warm in (clock.WARM, clock.FROM_IDLE):
        calls.clear()
        begin = now[0]
        clock.seconds_of({"a": lambda: "a", "b": lambda: "b"}, rounds=2, warm=warm)
        timed = next(at for _, at, count in calls if count > 3)
        assert warm <= timed - begin < warm + 0.02


@numba_cuda
def test_a_bare_checkout_is_mounted_under_one_name(tmp_path):
    """Where handloom is not installed: its folders are not importable by themselves, and processes start processes."""
    folder = Path(command.__file__).parent
    # The interpreter that the environment was made with, which reads no .pth file of it: handloom is not there.
    bare = {"PYTHONPATH": sysconfig.get_path("purelib"), "NUMBA_ENABLE_CUDASIM": "1", "PATH": os.environ["PATH"]}
    bare["HANDLOOM_CACHE_DIR"] = str(tmp_path / "cache")

    def python(*arguments):
        command = [sys._base_executable, *arguments]
        return subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True)

    if "No module" not in python("-c", "import handloom").stderr:
        pytest.skip("handloom is there without its environment")
    rooms = "kernels", "nn", "bench", "tests"
    code = (
        f"import importlib.util, runpy\nrunpy.run_path({str(folder / '__main__.py')!r})['mount']()\n"
        f"from handloom import kernels\nprint([name for name in {rooms} if importlib.util.find_spec(name)])"
    )
    done = python("-c", code)
    assert done.stdout == "[]\n", done.stderr
    done = python(str(folder), "--quick", "--only", "optimizers", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out" / "gpu-check.json").read_text())["rows"]
    assert {row["status"] for row in rows} == {"ok"}


def test_without_the_cases_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "SUPPORT", tmp_path)
    monkeypatch.setattr(worker, "run", lambda part, arguments, told, *rest: told({"rows": [worker.row(part, "ok")]}))
    assert command.main(["--out", str(tmp_path), "--only", "timings"]) == 0
    (left,) = json.loads((tmp_path / "gpu-check.json").read_text())["not_run"]
    assert left["part"] == "contract" and "the cases come with a checkout" in left["text"]


@numba_cuda
def test_cubins_of_other_sources_are_refused_before_anything_runs(tmp_path, monkeypatch, capsys):
    from handloom.bench.gpu import cubins
    from handloom.kernels.gemm.cuda import naive
    from handloom.kernels.jit import source_hash

    def run(part, arguments, told, *rest):
        told({"rows": [worker.row(part, "ok", device="a GPU", capability="90", error=0.0)]})
        ran.append(part)

    def check():
        ran.clear()
        status = command.main(["--only", "gemm", "--cubins", str(carried), "--out", str(tmp_path / "out")])
        return status, ran == ["machine", "gemm"], capsys.readouterr().out

    ran, carried = [], tmp_path / "cubins"
    carried.mkdir()
    monkeypatch.setattr(worker, "run", run)
    monkeypatch.setattr(cubins.gpu, "simulated", lambda: False)
    monkeypatch.setenv("HANDLOOM_CUBINS", "")  # which the command sets
    cubins.note_sources({"naive": naive(float32)}, ["sm_80"], carried)
    status, went_on, out = check()
    assert (status, went_on) == (2, False) and "sm_90a.json, which is written last, is not there" in out
    cubins.note_sources({"naive": naive(float32)}, ["sm_90a"], carried)
    assert check()[:2] == (0, True)
    (file,) = carried.glob("sm_90a.json")
    ((name, sources),) = json.loads(file.read_text()).items()
    assert name == source_hash(*(str(cubins.ROOT / source) for source in sources))
    for made_from in ({"0123456789ab": sources}, {name: ["kernels/gemm/cuda/gone.py"]}):
        file.write_text(json.dumps(made_from))
        status, went_on, out = check()
        assert (status, went_on) == (2, False)
        assert out.startswith(f"gpu-check: --cubins: {carried} does not hold the machine code of these sources for ")
        assert f"handloom warmup --device cuda --arch sm_90a --out {carried}\n" in out and out.count("\n") == 1


@pytest.mark.parametrize("arch", ["90", "sm_9", "sm_90a,sm_80"])
def test_an_architecture_must_be_one(arch, monkeypatch):
    from handloom.bench.gpu import cubins

    monkeypatch.setattr(cubins.gpu, "simulated", lambda: False)
    monkeypatch.setattr(cubins.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(SystemExit, match=f"--arch is '{arch}': must be an architecture such as sm_90a"):
        cubins.warmup([arch], "cubins")


def test_the_pretended_cuda_refuses_what_cuda_does_during_a_capture():
    """Whoever asks how far a stream is, or an event, or the device, loses the capture."""
    import pretended_cuda as cuda

    stream, event, where = 0x10, 0x20, ctypes.c_size_t()
    for ask, status in (
        (lambda: cuda.runtime["cudaEventQuery"](event), 907),
        (lambda: cuda.EventSynchronize(event), 907),
        (lambda: cuda.StreamSynchronize(stream), 900),
        (cuda.DeviceSynchronize, 900),
    ):
        for asked in (False, True):
            cuda.StreamBeginCapture(stream, 0)
            cuda.EventRecord(event, stream)
            assert not asked or ask() == status
            assert cuda.StreamEndCapture(stream, ctypes.addressof(where)) == (901 if asked else 0)
            assert cuda.EventSynchronize(event) == 907, "it belongs to the graph until it is recorded again"
            cuda.EventRecord(event, stream)
            assert cuda.EventSynchronize(event) == cuda.StreamSynchronize(stream) == cuda.DeviceSynchronize() == 0


@simulator
def test_one_family_from_end_to_end(tmp_path, capsys):
    assert command.main(["--quick", "--only", "optimizers", "--only", "timings", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "gpu-check.json").read_text())
    assert {"device", "driver", "versions", "date", "commit"} <= set(content["machine"])
    *contract, times = content["rows"]
    assert {row["status"] for row in contract} == {"ok"} and all(row["error"] < 1e-6 for row in contract)
    assert {"adam_update--17 default float32", "adam_update--17 default float64"} <= {row["name"] for row in contract}
    assert (times["status"], times["text"]) == ("not run", "times in a simulator mean nothing")
    assert "optimizers" in capsys.readouterr().out


@simulator
class TestWrongKernels:
    """What the contract finds."""

    @pytest.fixture(autouse=True)
    def point(self):
        points = [point for point in contract.points("activation", small=True) if point.case.op == "relu"]
        largest = max(points, key=lambda point: contract.arrays(point)["x"].size)
        self.check = lambda: contract.check(largest)

    def test_another_number(self, monkeypatch):
        from handloom import kernels

        right = kernels.relu

        @functools.wraps(right)
        def wrong(x, **options):
            return right(x, **options) * np.float32(1.001)

        monkeypatch.setattr(kernels, "relu", wrong)
        with pytest.raises(AssertionError, match="output 0"):
            self.check()

    def test_an_output_that_nobody_writes(self, monkeypatch):
        from handloom import kernels
        from handloom.kernels.arrays import namespace

        @functools.wraps(kernels.relu)
        def lazy(x, **options):
            return namespace(x).empty(x.shape, x.dtype)

        monkeypatch.setattr(kernels, "relu", lazy)
        with pytest.raises(AssertionError, match="output 0"):
            self.check()

    def test_an_input_that_was_changed(self, monkeypatch):
        from handloom import kernels

        right = kernels.relu_forward

        def spoils(x, **options):
            results = right(x, **options)
            x.fill(3)
            return results

        monkeypatch.setattr(kernels, "relu_forward", spoils)
        with pytest.raises(AssertionError, match="input x was changed"):
            self.check()

    def test_a_right_one(self):
        assert self.check()["status"] == "ok"


# os.fork warns, from Python 3.12 on, where NumPy has threads.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
class TestCubins:
    """Machine code for machines that cannot compile."""

    @pytest.fixture(autouse=True)
    def toolkit(self):
        import sass

        if config.ENABLE_CUDASIM:
            pytest.skip("in the simulator nothing is compiled")
        if missing := sass.missing():
            pytest.skip(f"no {', '.join(missing)}: make test-cuda")

    def test_kernels_are_noted_and_not_launched(self):
        from handloom import kernels
        from handloom.bench.gpu import cubins

        x = cubins.untouched((8, 8))
        with cubins.noting() as noted:
            kernels.matmul(x, x, variant="naive")
            kernels.matmul(x, x, variant="shared")
            kernels.matmul(x, x, variant="naive")
            kernels.matmul(x[:0], x, variant="registers")  # has no blocks
        names = [kernel.function.__name__ for kernel in noted.values()]
        assert names == ["multiply_naive", "multiply_shared"]

    def test_every_variant_is_among_them(self):
        from handloom.bench.gpu import cubins

        names = {kernel.function.__name__ for kernel in cubins.contract_kernels().values()}
        expected = "multiply_naive", "multiply_shared", "convolve_implicit", "correlate_implicit", "find_outside"
        assert names.issuperset(expected)
        trained = {kernel.function.__name__ for kernel in cubins.program_kernels().values()}
        assert {"convolve_implicit", "add_up_parts"} <= trained

    def test_what_was_carried_needs_no_toolkit(self, tmp_path, monkeypatch):
        from handloom.bench.gpu import cubins
        from handloom.kernels import launch
        from handloom.kernels.gemm.cuda import naive

        multiply = naive(float32)
        assert cubins.compile_all({"naive": multiply}, ["sm_80"], tmp_path)[::2] == (1, [])

        def fails(kernel, arch):
            raise RuntimeError(f"{kernel.name}: cannot be compiled for {arch}: there is no libnvvm")

        monkeypatch.setattr(launch, "compile_cubin", fails)
        monkeypatch.setattr(launch, "toolkit_hash", lambda: "0123abcd")
        monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("HANDLOOM_CUBINS", str(tmp_path))
        assert launch.entry_of(launch.kept_cubin(multiply, "sm_80"))
        with pytest.raises(RuntimeError, match="no libnvvm") as error:
            launch.kept_cubin(multiply, "sm_75")
        assert f"nor is it in HANDLOOM_CUBINS={tmp_path}: make it anew" in error.value.__notes__[0]

    def test_kernels_for_one_architecture_are_made_for_it_alone(self, tmp_path):
        from numba import uint16

        from handloom.bench.gpu import cubins
        from handloom.kernels.gemm.cuda import naive, warpgroup

        noted = {"naive": naive(float32), "warpgroup": warpgroup(uint16, True, True)}
        assert cubins.compile_all(noted, ["sm_80", "sm_90a"], tmp_path)[::2] == (3, [])

    def test_they_are_made_side_by_side(self, tmp_path, monkeypatch):
        """By processes, whose numbers stand for the machine code here."""
        from numba import float64

        from handloom.bench.gpu import cubins
        from handloom.kernels import launch
        from handloom.kernels.gemm.cuda import naive

        def number(kernel, arch):
            time.sleep(0.5)
            return str(os.getpid()).encode()

        monkeypatch.setattr(launch, "compile_cubin", number)
        monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setattr(cubins.os, "sched_getaffinity", lambda process: range(2))
        noted = {"float32": naive(float32), "float64": naive(float64)}
        assert cubins.compile_all(noted, ["sm_80", "sm_90a"], tmp_path)[::2] == (4, [])
        made = [[store.read(launch.carried_file(kernel, arch, tmp_path)) for arch in ("sm_80", "sm_90a")]
                for kernel in noted.values()]  # fmt: skip
        assert all(one == other for one, other in made), "the process that begins a kernel ends it"
        assert len({one for one, _ in made} - {str(os.getpid()).encode()}) == 2

    def test_they_are_what_is_made_one_by_one(self, tmp_path, monkeypatch):
        from handloom.bench.gpu import cubins
        from handloom.kernels import launch
        from handloom.kernels.gemm.cuda import naive

        monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path / "cache"))
        multiply = naive(float32)
        cubins.compile_all({"naive": multiply}, ["sm_80"], tmp_path)
        assert store.read(launch.carried_file(multiply, "sm_80", tmp_path)) == launch.compile_cubin(multiply, "sm_80")

    def test_a_kernel_that_does_not_compile_is_named(self, tmp_path, monkeypatch, capsys):
        from handloom.bench.gpu import cubins
        from handloom.kernels.launch import kernel, pointer

        @kernel(threads=32)
        def broken(x: pointer(float32)):
            x.nothing()

        monkeypatch.setattr(cubins, "kernels", lambda: {"broken": broken})
        assert cubins.warmup(["sm_80"], tmp_path) == 1
        assert cubins.stale(tmp_path, "sm_80") is None and cubins.stale(tmp_path, "sm_90a") is not None
        out = capsys.readouterr().out
        assert out.startswith("0 kernels, 0.0 MB in ") and "broken: cannot be compiled for sm_80" in out


@pytest.mark.oracle
class TestPeers:
    """What torch is asked to compute on a GPU is what we compute; here both do it on the CPU, on small arrays."""

    @pytest.fixture(autouse=True)
    def small(self, torch, monkeypatch):
        from handloom.bench.gpu import peers, timings

        def products(a, b):
            return {"torch": (lambda: torch.matmul(torch.from_numpy(a), torch.from_numpy(b)), peers._read)}

        monkeypatch.setattr(peers, "torch_or_none", lambda: torch)
        monkeypatch.setattr(peers, "_tensor", torch.from_numpy)
        monkeypatch.setattr(peers, "products", products)
        monkeypatch.setattr(timings, "variants", lambda op, call: {"default": lambda: call(variant=None)})
        monkeypatch.setattr(timings, "BIG", 2**14)
        monkeypatch.setattr(timings, "IMAGES", 2)
        monkeypatch.setattr(timings, "MATMULS", (65,))
        monkeypatch.setattr(
            timings, "CONVOLUTIONS", ((20, 3, 8, 7, 2), (9, 8, 16, 3, 1), (10, 8, 8, 3, 2), (9, 8, 4, 1, 2))
        )
        monkeypatch.setattr(timings, "LSTMS", ((3, 5, 7, 4),))
        self.timings = timings

    def test_results_agree(self):
        rng = np.random.default_rng(0)
        compared = 0
        for name, make in self.timings.cases(quick=False).items():
            if any(other in name for other in ("launch", "TF32", "bfloat16")):
                continue
            timing = make(lambda shape: rng.uniform(-1, 1, shape).astype(np.float32))
            candidates, readers = self.timings._candidates(timing)
            assert len(candidates) == 2 and not timing.left_out, name
            both = timing.results or (
                lambda calls, read=readers: {who: read[who](call()) for who, call in calls.items()}
            )
            assert self.timings._disagreement(both(candidates), timing.tolerance) is None, name
            compared += 1
        assert compared > 15


class TestLimits:
    """The kernels that measure a GPU's arithmetic do the operations that are counted."""

    @simulator
    @pytest.mark.parametrize("name", ["float32", "TF32", "bfloat16"])
    def test_they_compute(self, name):
        from handloom.bench.gpu import limits
        from handloom.kernels import arrays

        rounds, x = 2, np.array([0.5, 0.25], np.float32).view(arrays.SimulatedArray)
        y = np.zeros(limits.THREADS, np.float32).view(arrays.SimulatedArray)
        limits.KERNELS[name]((1,), x, y, rounds)
        if name == "float32":
            sums = 0.5 + np.arange(limits.SUMS)
            for _ in range(rounds):
                sums = sums * 0.5 + 0.25
        else:
            terms = limits.FLOPS[name] * 32 // (2 * 16 * 8 * limits.TILES)  # in each number of a tile
            sums = np.arange(limits.NUMBERS) + rounds * terms * 0.5 * 0.25
        np.testing.assert_allclose(y, sums.sum(), rtol=1e-6)

    def test_a_run_of_the_suite_has_the_limits_and_its_shares(self):
        from handloom.bench.gpu import rows

        told = [
            worker.row("copy of 268 MB", "ok", us=1.0, gbs=2000.0, variant="cudaMemcpy", mode="bytes"),
            worker.row("peak of float32", "ok", us=1.0, gflops=50_000.0),
            worker.row("peak of TF32", "ok", us=1.0, gflops=400_000.0),
            worker.row("launch of an empty kernel", "ok", us=4.0),
            worker.row(
                "matmul 1024^3", "ok", "no torch", variant="vectors", mode="float32", us=100.0, p20_p80=[99.0, 101.0],
                peers_us={"cuBLAS": 80.0}, gflops=25_000.0,
            ),
            worker.row(
                "conv2d 32x56x56x64 -> 64, 1x1 / 1, data gradient, TF32", "ok", variant="tensor", mode="TF32", us=10.0,
                p20_p80=[9.0, 11.0], gflops=100_000.0,
            ),
            worker.row("peak of bfloat16", "fault", "the process ended with status 9"),
            worker.row("softmax", "wrong", "before timing: differs"),
            worker.row("step of cnn, batch 32", "ok", variant="fit", mode="float32", us=200.0, p20_p80=[1.0, 2.0]),
        ]  # fmt: skip
        found = rows.gather({"device": "a GPU", "name": "machine"}, told, True)
        assert found["limits"]["multiply-adds, GFLOP/s"] == {"all": 50_000.0} and found["limits"]["launch, us"] == 4.0
        assert found["limits"]["TF32 on tensor cores, GFLOP/s"] == {"all": 400_000.0}
        assert found["machine"] == {"device": "a GPU"} and found["not measured"] == [
            "no torch",
            "peak of bfloat16: the process ended with status 9",
        ]
        product, convolution, softmax, step = found["rows"]
        assert product["name"] == "matmul/1024^3" and product["share"] == 0.5 and product["ratio"] == 0.8
        assert product["flops"] == 2_500_000_000 and product["us"] == {"handloom": 100.0, "cuBLAS": 80.0}
        assert convolution["pass"] == "data-gradient" and convolution["limit"] == "TF32"
        assert convolution["share"] == 0.25
        assert convolution["name"] == "conv2d/data-gradient/32x56x56x64 -> 64, 1x1 / 1, TF32"
        assert softmax["wrong"] == "wrong: before timing: differs" and softmax["us"] == {}
        assert step["name"] == "fit/cnn" and step["family"] == "programs" and step["default"]

    def test_what_is_asked_for_is_timed_or_unknown(self):
        from handloom.bench.gpu import rows

        assert rows._beginnings([]) == [] and rows._beginnings(["limits"]) == ["copy"]
        assert rows._beginnings(["gemm", "conv2d/forward", "fit"]) == ["copy", "matmul", "conv2d", "step of"]
        assert rows._beginnings(["pooling"]) == ["copy", "max_pool2d", "avg_pool2d"]
        with pytest.raises(ValueError, match="bench: --only.*did you mean 'matmul'"):
            rows._beginnings(["matmull"])

    @pytest.mark.skipif(config.ENABLE_CUDASIM, reason="the simulator is a GPU of a kind")
    def test_without_a_gpu_the_suite_says_what_is_missing(self, capsys):
        from handloom import bench
        from handloom.nn import gpu

        if gpu.find().problem is None:
            pytest.skip("there is a GPU")
        assert bench.main(["--device", "cuda"]) == 2
        assert capsys.readouterr().err.startswith("bench: --device cuda: there is ")
        assert bench.main(["--device", "cuda", "--threads", "1", "--dtype", "float64"]) == 2
        assert "bench: --threads and --dtype: on a GPU there is no choice of these" in capsys.readouterr().err
