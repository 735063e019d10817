"""`handloom doctor`: each check on machines that are not there, the table, the exit status."""

import math
import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import fake_gpu
import pytest
from fake_gpu import Driver
from processes import COUNTING, run

from handloom import cli, doctor
from handloom.doctor import OK, SLOW, UNKNOWN, WRONG, Finding
from handloom.nn import gpu

REQUIRED = ["numpy>=1.26", "numba>=0.62", 'torch; extra == "peers"', 'ml_dtypes>=0.4; extra == "test"']
TWO = {0, 1}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- the installation


def test_versions_that_suffice():
    installed = {"numpy": "2.4.6", "numba": "0.62.0rc1"}
    finding = doctor.versions(REQUIRED, installed.get, load=lambda name: None)
    assert finding == ("versions", OK, "numpy 2.4.6, numba 0.62.0rc1", "")
    assert doctor.versions().verdict == OK
    assert re.match(r"numpy \d.*, numba \d", doctor.versions().found)  # the metadata are read as they are written


def test_versions_that_are_too_old():
    installed = {"numpy": "1.9.3", "numba": "0.61.2"}
    assert doctor.versions(REQUIRED, installed.get) == (
        "versions",
        WRONG,
        "numpy 1.9.3, numba 0.61.2: handloom needs numpy>=1.26, numba>=0.62",
        "pip install 'numpy>=1.26' 'numba>=0.62'",
    )


def test_a_numba_that_does_not_go_with_numpy():
    def load(name):
        raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 2.9.\nmore")

    found = "Numba cannot start: Numba needs NumPy 2.4 or less. Got NumPy 2.9."
    finding = doctor.versions(REQUIRED, {"numpy": "2.9", "numba": "0.62"}.get, load)
    assert finding == ("versions", WRONG, found, "pip install --upgrade numba")


def settings(**changed):
    return SimpleNamespace(**{"DISABLE_JIT": 0, "OPT": 3, "DEBUGINFO_DEFAULT": 0, "BOUNDSCHECK": None, **changed})


def test_compiler_left_alone():
    assert doctor.compiler(settings()) == ("compiler", OK, "Numba's settings leave it at full optimisation", "")


@pytest.mark.parametrize(
    "changed, verdict, found, fix",
    [
        (
            {"DISABLE_JIT": 1, "OPT": 0},
            WRONG,
            "NUMBA_DISABLE_JIT is set: kernels cannot be compiled, and handloom.kernels cannot be imported",
            "unset NUMBA_DISABLE_JIT",
        ),
        ({"OPT": 2}, SLOW, "NUMBA_OPT: LLVM optimises at level 2 of 3", "unset NUMBA_OPT"),
        (
            {"DEBUGINFO_DEFAULT": 1, "BOUNDSCHECK": 1},
            SLOW,
            "NUMBA_DEBUGINFO: kernels are compiled for a debugger, many times slower, "
            "NUMBA_BOUNDSCHECK: every index is checked",
            "unset NUMBA_DEBUGINFO NUMBA_BOUNDSCHECK",
        ),
    ],
)
def test_compiler_held_back(changed, verdict, found, fix):
    assert doctor.compiler(settings(**changed)) == ("compiler", verdict, found, fix)


X86 = {"sse2", "avx", "avx2", "fma", "avx512f"}
ARM = {"neon", "fp-armv8"}
VIRTUAL = "another processor; in a virtual machine, pass the host's through (QEMU: -cpu host)"


@pytest.mark.parametrize("host", [X86, X86 - {"avx512f"}, ARM])
def test_vectors_of_full_width(host):
    assert doctor.vectors(host, host, {}) == ("vectors", OK, "kernels use the widest vectors of the processor", "")


@pytest.mark.parametrize(
    "used, host, environment, verdict, found, fix",
    [
        (
            set(),
            X86,
            {"NUMBA_CPU_NAME": "generic"},
            SLOW,
            "kernels are compiled without avx512f avx2 avx fma, which the processor has",
            "unset NUMBA_CPU_NAME",
        ),
        (
            {"sse2"},
            {"sse2", "avx"},
            {},  # Numba leaves AVX alone on some old processors
            SLOW,
            "kernels are compiled without avx, which the processor has",
            "NUMBA_ENABLE_AVX=1",
        ),
        (
            X86,
            X86 - {"avx512f"},
            {"NUMBA_CPU_FEATURES": "+avx512f"},
            WRONG,
            "kernels are compiled for avx512f, which the processor does not have: they crash",
            "unset NUMBA_CPU_FEATURES",
        ),
        (
            {"sse2", "avx"},
            {"sse2", "avx"},
            {},
            SLOW,
            "the processor shows no avx2 and no fma: products run at a fraction of what others reach",
            VIRTUAL,
        ),
    ],
)
def test_vectors_too_narrow_or_not_there(used, host, environment, verdict, found, fix):
    assert doctor.vectors(used, host, environment) == ("vectors", verdict, found, fix)


GLIBC = SimpleNamespace(mallopt=None)


def test_malloc_of_glibc():
    assert doctor.malloc({"PATH": "/bin"}, GLIBC) == ("malloc", OK, "glibc keeps freed memory for the next array", "")


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_malloc_with_settings_of_the_users_own(name):
    found = (
        f"{name}: where malloc has settings of the user's own, handloom makes none, and large arrays may be mapped "
        "anew each time"
    )
    assert doctor.malloc({"PATH": "/bin", name: "2"}, GLIBC) == ("malloc", SLOW, found, f"unset {name}")


def test_malloc_of_another_c_library():
    assert doctor.malloc({}, SimpleNamespace()) == (
        "malloc",
        SLOW,
        "the C library is not glibc: large arrays may be mapped anew each time",
        "a Linux with glibc, such as Debian instead of Alpine",
    )


LOCAL = "set HANDLOOM_CACHE_DIR to a folder on a local disk that can be written"


def free(size):
    return lambda folder: SimpleNamespace(free=size)


def mounted(tmp_path, point, kind):
    text = f"/dev/vda / ext4 rw 0 0\nserver:/export {str(point).replace(' ', chr(92) + '040')} {kind} rw 0 0\n"
    return write(tmp_path / "mounts", text)


def test_cache_with_room(tmp_path):
    folder = tmp_path / "not" / "yet"
    mounts = mounted(tmp_path, tmp_path / "not a part of it", "nfs4")
    assert doctor.cache(folder, mounts, free(5e9)) == ("cache", OK, f"{folder}, 5.0 GB free", "")
    assert doctor.cache(folder, tmp_path / "no such list", free(5e9)).verdict == OK
    assert not folder.parent.exists()  # looking leaves nothing behind


def test_cache_that_cannot_be_written(tmp_path):
    folder = write(tmp_path / "file", "") / "cache"
    found = f"{folder} cannot be written (Not a directory): what is not in it is compiled anew in every process"
    assert doctor.cache(folder) == ("cache", SLOW, found, LOCAL)


def test_cache_without_room(tmp_path):
    found = f"{tmp_path} has 30 MB left: kernels that do not fit are compiled anew in every process"
    assert doctor.cache(tmp_path, usage=free(3e7)) == (
        "cache", SLOW, found, f"handloom cache clear, or {LOCAL}",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_cache_on_a_network(tmp_path, kind):
    folder = tmp_path / "my home" / "cache"
    folder.mkdir(parents=True)
    mounts = mounted(tmp_path, folder.parent, kind)
    found = f"{folder} is on a network ({kind}): every process reads its kernels from there"
    assert doctor.cache(folder, mounts, free(5e9)) == ("cache", SLOW, found, LOCAL)


def test_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path))
    assert str(tmp_path) in doctor.cache().found


# --- GPUs


@pytest.mark.parametrize(
    "driver, found",
    [
        (None, "none: there is no NVIDIA driver (libcuda.so.1 was not found)"),
        (Driver(status=gpu.NO_DEVICE), "none: there is an NVIDIA driver, but it finds no GPU"),
    ],
)
def test_no_gpu_is_fine(driver, found, monkeypatch):
    fake_gpu.install(monkeypatch, driver)
    assert doctor.gpu() == ("gpu", OK, found, "")


def test_gpus_that_can_be_used(monkeypatch):
    fake_gpu.install(monkeypatch, Driver(gpus=2))
    assert doctor.gpu() == ("gpu", OK, "Imaginary 0, Imaginary 1 (driver for CUDA 12.4)", "")


@pytest.mark.parametrize(
    "driver, packages",
    [
        (Driver(), {}),
        (Driver(), {"cupy-cuda12x": "13.4.0"}),
        (Driver(), {"cupy-cuda13x": "14.0.0"}),
        (Driver(cuda=13000), {"cupy-cuda12x": "13.4.0", "cupy-cuda13x": "14.0.0"}),
        (Driver(), {**fake_gpu.INSTALLED, "cuda-bindings": "13.0.3"}),
        (Driver(cuda=11080), fake_gpu.INSTALLED),
        (Driver(status=803), fake_gpu.INSTALLED),
    ],
)
def test_a_gpu_that_cannot_be_used_is_wrong_in_the_words_of_the_error(driver, packages, monkeypatch):
    fake_gpu.install(monkeypatch, driver, packages)
    subject, verdict, found, fix = doctor.gpu()
    assert (subject, verdict) == ("gpu", WRONG)
    assert f"{found}: {fix}" == gpu.find().problem
    assert re.search("upgrade|pip install|nvidia-smi|must run", fix)


def test_the_simulator_is_no_gpu(monkeypatch):
    fake_gpu.install(monkeypatch)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    found = "NUMBA_ENABLE_CUDASIM is set: device 'cuda' is Numba's simulator, which only checks kernels"
    assert doctor.gpu() == ("gpu", SLOW, found, "unset NUMBA_ENABLE_CUDASIM")


# --- the processor and who else uses it


def siblings(tmp_path, *groups):
    """A processor whose cores have these CPUs."""
    for group in groups:
        for cpu in group:
            write(tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list", ",".join(map(str, group)) + "\n")
    return tmp_path


def test_threads_that_fit(tmp_path):
    two_cores = siblings(tmp_path, (0, 2), (1, 3))
    assert doctor.threads(2, {0, 1, 2, 3}, two_cores, math.inf) == ("threads", OK, "2 threads on 4 CPUs (2 cores)", "")
    assert doctor.threads(1, {0}, two_cores, 0.5) == ("threads", OK, "1 thread on 1 CPU (1 core)", "")
    assert doctor.threads(2, TWO, tmp_path / "hidden", 2.5).found == "2 threads on 2 CPUs (2 cores)"


@pytest.mark.parametrize(
    "count, cpus, quota, found, right",
    [
        (
            3,
            {0, 1},
            math.inf,
            "3 threads on 2 CPUs: they take turns, and all wait for the last one at the end of every parallel region",
            2,
        ),
        (
            4,
            {0, 1, 2, 3},
            1.5,
            "4 threads on 4 CPUs: the container may use the time of 1.5: when it is spent, all threads stand still",
            1,
        ),
        (
            2,
            {0, 1},
            0.5,
            "2 threads on 2 CPUs: the container may use the time of 0.5: when it is spent, all threads stand still",
            1,
        ),
        (
            4,
            {0, 1, 2, 3},
            4.0,
            "4 threads on 4 CPUs: these are 2 cores, whose threads share their vector units: one a core is enough",
            2,
        ),
        (
            2,
            {0, 2},
            math.inf,
            "2 threads on 2 CPUs: these are 1 core, whose threads share their vector units: one a core is enough",
            1,
        ),
    ],
)
def test_too_many_threads(tmp_path, count, cpus, quota, found, right):
    finding = doctor.threads(count, cpus, siblings(tmp_path, (0, 2), (1, 3)), quota)
    assert finding == ("threads", SLOW, found, f"NUMBA_NUM_THREADS={right}")
    assert doctor.threads(right, cpus, tmp_path, quota).verdict == OK  # the fix is one


GROUPS = {
    "version 2, inside a container": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
    "version 2, the lowest limit on the way up": (
        "0::/user/job\n",
        {"user/job/cpu.max": "max 100000\n", "user/cpu.max": "400000 100000\n", "cpu.max": "800000 100000\n"},
        4.0,
    ),
    "version 2, the host's path": ("0::/docker/1234\n", {"cpu.max": "200000 100000\n"}, 2.0),
    "version 1": (
        "4:cpu,cpuacct:/job\n3:cpuset:/other\n0::/\n",
        {"cpu/job/cpu.cfs_quota_us": "50000\n", "cpu/job/cpu.cfs_period_us": "100000\n"},
        0.5,
    ),
    "version 1, no limit": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "version 1, a limit that is another's": (
        "1:cpu:/mine\n3:cpuset:/other\n",
        {"cpu/other/cpu.cfs_quota_us": "50000\n", "cpu/other/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "none": ("", {}, math.inf),
}


@pytest.mark.parametrize("groups, files, quota", GROUPS.values(), ids=GROUPS)
def test_the_quota_of_control_groups(tmp_path, groups, files, quota):
    root = tmp_path / "fs"
    for name, text in files.items():
        write(root / name, text)
    write(tmp_path / "cpu.max", "1 100000\n")  # above the top, not a control group
    assert doctor.cpu_quota(write(tmp_path / "self", groups), root) == quota


def test_no_control_groups_are_no_limit(tmp_path):
    assert doctor.cpu_quota(tmp_path / "none", tmp_path) == math.inf


def looks(*busy, total=30):
    """/proc/stat twice: each CPU was busy for so many ticks of `total` in between, a third of them stolen."""

    def lines(moment):
        yield "cpu  1 2 3 4 5 6 7 8 9 10"
        for cpu, ticks in enumerate(busy):
            stolen, idle = moment * ticks // 3, moment * (total - ticks)
            yield f"cpu{cpu} {1000 + moment * ticks - stolen} 0 0 {500 + idle // 3} {idle - idle // 3} 0 0 {stolen} 0 0"
        yield "intr 1 2 3"

    texts = iter(["\n".join(lines(moment)) for moment in (0, 1)])
    return lambda: next(texts)


def test_others_that_leave_room():
    slept = []
    finding = doctor.others(2, TWO, looks(3, 6), slept.append)
    assert finding == ("others", OK, "just now others use 0.3 of 2 CPUs", "")
    assert slept == [doctor.LOOK]
    assert doctor.others(1, TWO, looks(30, 0), slept.append).verdict == OK
    assert doctor.others(1, {1}, looks(30, 0), slept.append).found == "just now others use 0.0 of 1 CPU"
    assert doctor.others(8, TWO, looks(0, 0), slept.append).verdict == OK  # too many threads are not others' fault


def test_others_that_do_not():
    finding = doctor.others(2, TWO, looks(30, 3), lambda seconds: None)
    assert finding == (
        "others",
        SLOW,
        "just now others use 1.1 of 2 CPUs: 2 threads and they take turns, and all wait for the last one at the end of "
        "every parallel region",
        "stop them, or NUMBA_NUM_THREADS=1",
    )


@pytest.mark.parametrize("read", [lambda: "", looks(0, 0, total=0)])
def test_others_that_cannot_be_seen(read):
    found = "cannot tell: /proc/stat does not count here"
    assert doctor.others(2, TWO, read, lambda seconds: None) == ("others", UNKNOWN, found, "")


def policies(tmp_path, governor, driver):
    for policy in ("policy0", "policy1"):
        write(tmp_path / policy / "scaling_governor", f"{governor}\n")
        write(tmp_path / policy / "scaling_driver", f"{driver}\n")
    return tmp_path


@pytest.mark.parametrize(
    "governor, driver",
    [("schedutil", "acpi-cpufreq"), ("powersave", "intel_pstate"), ("powersave", "amd-pstate-epp")],
)
def test_frequency_that_rises(tmp_path, governor, driver):
    finding = doctor.frequency(policies(tmp_path, governor, driver))
    assert finding == ("frequency", OK, f"governor {governor} of {driver}", "")


@pytest.mark.parametrize("driver", ["acpi-cpufreq", "intel_cpufreq", "amd-pstate"])
def test_frequency_that_does_not(tmp_path, driver):
    found = f"the governor powersave of {driver} holds processors at their lowest frequency"
    fix = "sudo cpupower frequency-set --governor performance"
    assert doctor.frequency(policies(tmp_path, "powersave", driver)) == ("frequency", SLOW, found, fix)


def test_frequency_that_nobody_shows(tmp_path):
    found = "cannot tell: the system shows no governor, as in most virtual machines"
    assert doctor.frequency(tmp_path) == ("frequency", UNKNOWN, found, "")


# --- what runs beside and below


@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": "2"}, {"OMP_NUM_THREADS": "2,1"}, {"PATH": "1"}])
def test_comparisons_that_are_fair(environment):
    assert doctor.comparisons(2, environment) == ("comparisons", OK, "no setting holds NumPy back", "")


def test_comparisons_that_mislead():
    kernels = "OPENBLAS_CORETYPE=Haswell: NumPy may not run its best kernels"
    numbers = "OMP_NUM_THREADS=1: that is for NumPy and torch, and handloom runs 2"
    follow = "unset OMP_NUM_THREADS, or NUMBA_NUM_THREADS=1, which handloom heeds"
    one, other = {"OPENBLAS_CORETYPE": "Haswell"}, {"OMP_NUM_THREADS": "1"}
    mislead = "comparisons with others mislead"
    for environment, found, fix in (
        (one, f"{kernels}: {mislead}", "unset OPENBLAS_CORETYPE"),
        (other, f"{numbers}: {mislead}", follow),
        (one | other, f"{kernels}; {numbers}: {mislead}", f"unset OPENBLAS_CORETYPE; {follow}"),
    ):
        assert doctor.comparisons(2, environment) == ("comparisons", SLOW, found, fix)


def layer(name, environment, count=2):
    return doctor.threading_layer(lambda: (name, count), environment)


@pytest.mark.parametrize(
    "name, environment",
    [
        ("omp", {}),
        ("omp", {"OMP_WAIT_POLICY": "active", "OMP_THREAD_LIMIT": "2"}),
        ("omp", {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300000"}),  # GNU's own setting wins
        ("omp", {"GOMP_SPINCOUNT": "INFINITE"}),
        ("omp", {"GOMP_SPINCOUNT": "1M"}),
        ("tbb", {"OMP_WAIT_POLICY": "passive", "OMP_THREAD_LIMIT": "1"}),  # not OpenMP, so it does not ask
    ],
)
def test_threading_layers_that_serve(name, environment):
    assert layer(name, environment) == ("threading layer", OK, name, "")


@pytest.mark.parametrize(
    "environment, fix",
    [
        ({}, "install GNU's OpenMP: apt install libgomp1, dnf install libgomp or conda install libgomp"),
        ({"NUMBA_THREADING_LAYER": "forksafe"}, "unset NUMBA_THREADING_LAYER"),
        ({"NUMBA_THREADING_LAYER_PRIORITY": "workqueue omp tbb"}, "unset NUMBA_THREADING_LAYER_PRIORITY"),
    ],
)
def test_the_workqueue_is_slow(environment, fix):
    found = (
        "workqueue: its parallel regions take longer, and two Python threads inside one end the process; handloom lets "
        "only one in, Numba code of others may not"
    )
    assert layer("workqueue", environment) == ("threading layer", SLOW, found, fix)


@pytest.mark.parametrize(
    "environment, setting",
    [
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "OMP_WAIT_POLICY=PASSIVE"),
        ({"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "active"}, "GOMP_SPINCOUNT=0"),
    ],
)
def test_threads_that_fall_asleep(environment, setting):
    found = f"omp: {setting}: its threads sleep between parallel regions, and waking them takes time"
    fix = f"unset {setting.split('=')[0]}"
    assert layer("omp", environment) == ("threading layer", SLOW, found, fix)


def test_threads_that_never_start():
    found = "omp: OMP_THREAD_LIMIT=1 and 2 threads: the others never start"
    assert layer("omp", {"OMP_THREAD_LIMIT": "1"}) == ("threading layer", SLOW, found, "unset OMP_THREAD_LIMIT")


def test_a_threading_layer_that_is_not_there():
    def load():
        raise ValueError("No threading layer could be loaded.\nHINT:\nIntel TBB is required")

    for environment in ({"NUMBA_THREADING_LAYER": "tbb"}, {}):  # Numba also reads a file of settings
        assert doctor.threading_layer(load, environment) == (
            "threading layer", WRONG, "No threading layer could be loaded.", "unset NUMBA_THREADING_LAYER",
        )  # fmt: skip


# --- all of them


def test_a_check_that_breaks_hides_no_other():
    def first_one():
        raise RuntimeError("out of\norder")

    def second_one():
        return Finding("second one", OK, "fine")

    assert doctor.findings([first_one, second_one]) == [
        ("first one", UNKNOWN, "cannot tell: RuntimeError: out of", ""),
        ("second one", OK, "fine", ""),
    ]


def test_the_subject_of_a_check_is_its_name():
    assert [finding.subject for finding in doctor.findings()] == [
        check.__name__.replace("_", " ") for check in doctor.CHECKS
    ]


LONG = "a text [that] goes on " + "and on " * 30 + "to its end"
FOUND = [
    Finding("one", OK, "fine"),
    Finding("two", SLOW, LONG, "[pip] install 'handloom[cuda12]'"),
    Finding("three", UNKNOWN, "cannot tell: why"),
    Finding("four", WRONG, "broken", "mend it"),
]


def test_the_table_is_plain_text_in_a_pipe_and_loses_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert doctor.report(FOUND) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 60
    assert out.split() == " ".join(
        [
            "one ok fine two slow", LONG, "fix: [pip] install 'handloom[cuda12]'",
            "three unknown cannot tell: why four wrong broken fix: mend it 2 things to fix.",
        ]
    ).split()  # fmt: skip


@pytest.mark.parametrize(
    "found, status, sentence",
    [
        (FOUND[:1], 0, "Nothing to fix."),
        (FOUND[2:3], 0, "Nothing to fix."),
        (FOUND[1:3], 1, "1 thing to fix."),
        (FOUND[3:], 1, "1 thing to fix."),
    ],
)
def test_the_exit_status_says_whether_there_is_something_to_fix(found, status, sentence, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "findings", lambda: found)
    assert cli.main(["doctor"]) == status
    assert capsys.readouterr().out.splitlines()[-1] == sentence


def test_the_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", "--help"])
    assert end.value.code == 0
    assert "Find what would make this machine slow or wrong, with the fix." in capsys.readouterr().out


def test_it_compiles_nothing_and_sees_the_environment(tmp_path):
    code = COUNTING + "from handloom import cli\nstatus = cli.main(['doctor'])\nprint(compiled(), status)"
    out, err = run(code, tmp_path, NUMBA_BOUNDSCHECK="1", COLUMNS="200")
    assert out.splitlines()[-1] == "0 1"
    assert re.search(r"^compiler +slow +NUMBA_BOUNDSCHECK: every index is checked *$", out, re.MULTILINE)
    assert re.search(r"^ +fix: unset NUMBA_BOUNDSCHECK *$", out, re.MULTILINE)
    assert re.search(r"^threading layer +\w+ +(omp|tbb|workqueue)", out, re.MULTILINE)
    assert err == "" and not (tmp_path / "cache").exists()


def test_it_names_every_core_dependency():
    wanted = [text.split(">=")[0] for text in metadata.requires("handloom") if "extra" not in text]
    assert [part.split()[0] for part in doctor.versions().found.split(", ")] == wanted
