"""What `handloom doctor` finds: whatever would make this machine slow or wrong, and the one line that mends it.

Each check is a function that looks at one thing and returns a `Finding`; what it reads are its arguments, which have
this machine's own as defaults. Nothing here compiles; the last check loads Numba's threading layer.
"""

import ctypes
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import NamedTuple

OK, SLOW, WRONG, UNKNOWN = "ok", "slow", "wrong", "unknown"

CPUS = Path("/sys/devices/system/cpu")
STAT = Path("/proc/stat")
LOOK = 0.3  # seconds over which the use of the CPUs by others is taken
CACHE_BYTES = 200 << 20  # what a few networks' kernels need, with room to spare
NETWORKS = {"afs", "beegfs", "ceph", "cifs", "fuse.sshfs", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
SPINS = 10_000  # turns that a waiting thread should spin at least: a fraction of a millisecond
GOVERNORS_OF_THEIR_OWN = {"intel_pstate", "amd-pstate-epp"}  # drivers whose `powersave` still goes up to full speed
STYLES = {OK: "green", SLOW: "yellow", WRONG: "bold red", UNKNOWN: "dim"}


class Finding(NamedTuple):
    """What one check found; `fix` is one line, empty where there is nothing to do."""

    subject: str
    verdict: str  # OK, SLOW, WRONG or UNKNOWN
    found: str
    fix: str = ""


def findings(checks: Iterable[Callable[[], Finding]] | None = None) -> list[Finding]:
    """What all checks found; one that breaks says so and hides no other."""
    found = []
    for check in CHECKS if checks is None else checks:
        try:
            found.append(check())
        except Exception as error:
            subject = check.__name__.replace("_", " ")
            found.append(Finding(subject, UNKNOWN, f"cannot tell: {type(error).__name__}: {_first_line(error)}"))
    return found


def report(found: list[Finding]) -> int:
    """Print a table and how much there is to fix; the exit status, 1 where there is anything."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        table.add_row(finding.subject, Text(finding.verdict, style=STYLES[finding.verdict]), finding.found)
        if finding.fix:
            table.add_row("", "", f"fix: {finding.fix}")
    count = sum(finding.verdict in (SLOW, WRONG) for finding in found)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"{_many(count, 'thing') if count else 'Nothing'} to fix.")
    return int(count > 0)


# --- the installation


def versions(requirements=None, version=metadata.version, load=import_module) -> Finding:
    """NumPy and Numba: new enough, and made for each other."""
    wanted = metadata.requires("handloom") if requirements is None else requirements
    old, have = [], []
    for package, least in (match.groups() for text in wanted if (match := re.fullmatch(r"([\w-]+)>=([\d.]+)", text))):
        have.append(f"{package} {version(package)}")
        if _numbers(version(package)) < _numbers(least):
            old.append(f"{package}>={least}")
    if old:
        packages = " ".join(f"'{package}'" for package in old)
        return Finding(
            "versions", WRONG, f"{', '.join(have)}: handloom needs {', '.join(old)}", f"pip install {packages}"
        )
    try:
        load("numba")
    except ImportError as error:
        return Finding("versions", WRONG, f"Numba cannot start: {_first_line(error)}", "pip install --upgrade numba")
    return Finding("versions", OK, ", ".join(have))


def compiler(config=None) -> Finding:
    """Settings of Numba's that keep it from compiling, or from compiling well."""
    if config is None:
        from numba import config
    if config.DISABLE_JIT:
        found = "NUMBA_DISABLE_JIT is set: kernels cannot be compiled, and handloom.kernels cannot be imported"
        return Finding("compiler", WRONG, found, "unset NUMBA_DISABLE_JIT")
    hindrances = {
        "NUMBA_OPT": config.OPT < 3 and f"LLVM optimises at level {int(config.OPT)} of 3",
        "NUMBA_DEBUGINFO": config.DEBUGINFO_DEFAULT and "kernels are compiled for a debugger, many times slower",
        "NUMBA_BOUNDSCHECK": config.BOUNDSCHECK and "every index is checked",
    }
    hindrances = {name: what for name, what in hindrances.items() if what}
    if hindrances:
        found = ", ".join(f"{name}: {what}" for name, what in hindrances.items())
        return Finding("compiler", SLOW, found, f"unset {' '.join(hindrances)}")
    return Finding("compiler", OK, "Numba's settings leave it at full optimisation")


def vectors(used=None, host=None, environment: Mapping[str, str] = os.environ) -> Finding:
    """The instruction sets that kernels are compiled for, against those of the processor."""
    if used is None:
        from .kernels.simd import FEATURES as used
    if host is None:
        from llvmlite import binding

        host = {name for name, there in binding.get_host_cpu_features().items() if there}
    names = [name for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX") if name in environment]
    unset = f"unset {' '.join(names)}" if names else "NUMBA_ENABLE_AVX=1"
    if strange := sorted(used - host):
        found = f"kernels are compiled for {' '.join(strange)}, which the processor does not have: they crash"
        return Finding("vectors", WRONG, found, unset)
    if unused := [name for name in ("avx512f", "avx2", "avx", "fma", "neon") if name in host - used]:
        found = f"kernels are compiled without {' '.join(unused)}, which the processor has"
        return Finding("vectors", SLOW, found, unset)
    if "sse2" in host and (missing := [name for name in ("avx2", "fma") if name not in host]):
        return Finding(
            "vectors",
            SLOW,
            f"the processor shows no {' and no '.join(missing)}: products run at a fraction of what others reach",
            "another processor; in a virtual machine, pass the host's through (QEMU: -cpu host)",
        )
    return Finding("vectors", OK, "kernels use the widest vectors of the processor")


def malloc(environment: Mapping[str, str] = os.environ, library=None) -> Finding:
    """Whether freed memory is kept for the next array (kernels/workspace.py)."""
    if names := [name for name in environment if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        found = (
            f"{' '.join(names)}: where malloc has settings of the user's own, handloom makes none, and large arrays "
            "may be mapped anew each time"
        )
        return Finding("malloc", SLOW, found, f"unset {' '.join(names)}")
    if not hasattr(ctypes.CDLL(None) if library is None else library, "mallopt"):
        found = "the C library is not glibc: large arrays may be mapped anew each time"
        return Finding("malloc", SLOW, found, "a Linux with glibc, such as Debian instead of Alpine")
    return Finding("malloc", OK, "glibc keeps freed memory for the next array")


def cache(folder: Path | None = None, mounts: Path = Path("/proc/mounts"), usage=shutil.disk_usage) -> Finding:
    """The folder of compiled kernels: it can be written, has room, and is near."""
    if folder is None:
        from .kernels.store import cache_folder

        folder = cache_folder()
    elsewhere = "set HANDLOOM_CACHE_DIR to a folder on a local disk that can be written"
    there = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror}): what is not in it is compiled anew in every process"
        return Finding("cache", SLOW, found, elsewhere)
    free = usage(there).free
    if free < CACHE_BYTES:
        found = f"{folder} has {free / 1e6:.0f} MB left: kernels that do not fit are compiled anew in every process"
        return Finding("cache", SLOW, found, f"handloom cache clear, or {elsewhere}")
    if (kind := _file_system(there.resolve(), mounts)) in NETWORKS:
        found = f"{folder} is on a network ({kind}): every process reads its kernels from there"
        return Finding("cache", SLOW, found, elsewhere)
    return Finding("cache", OK, f"{folder}, {free / 1e9:.1f} GB free")


def _file_system(folder: Path, mounts: Path) -> str:
    """The kind of file system that a folder lies on; empty where nobody says."""
    found = (0, "")
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind, *_ = line.split()
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point))  # a space is \040
        if folder.is_relative_to(point) and len(point.parts) >= found[0]:
            found = len(point.parts), kind
    return found[1]


def gpu(find=None) -> Finding:
    """A GPU that is there and cannot be used; none at all is fine."""
    if find is None:
        from .nn.gpu import find
    names, cuda, problem = find()
    if problem is None:
        if not cuda:
            found = f"NUMBA_ENABLE_CUDASIM is set: device 'cuda' is {names[0]}, which only checks kernels"
            return Finding("gpu", SLOW, found, "unset NUMBA_ENABLE_CUDASIM")
        return Finding("gpu", OK, f"{', '.join(names)} (driver for CUDA {cuda})")
    found, _, fix = problem.rpartition(": ")
    if cuda or "driver does not start" in problem:
        return Finding("gpu", WRONG, found, fix)
    return Finding("gpu", OK, f"none: {found}")


# --- the processor and who else uses it


def threads(count: int | None = None, cpus: set[int] | None = None, topology: Path = CPUS, quota=None) -> Finding:
    """As many threads as cores, and no more than a container may use."""
    count = _thread_count() if count is None else count
    cpus = os.sched_getaffinity(0) if cpus is None else cpus
    quota = cpu_quota() if quota is None else quota
    cores = len({_siblings(topology, cpu) for cpu in cpus})
    found = f"{_many(count, 'thread')} on {_many(len(cpus), 'CPU')}"
    if count > len(cpus):
        why = "they take turns, and all wait for the last one at the end of every parallel region"
    elif count > max(quota, 1):
        why = f"the container may use the time of {quota:g}: when it is spent, all threads stand still"
    elif count > cores:
        why = f"these are {_many(cores, 'core')}, whose threads share their vector units: one a core is enough"
    else:
        return Finding("threads", OK, f"{found} ({_many(cores, 'core')})")
    return Finding("threads", SLOW, f"{found}: {why}", f"NUMBA_NUM_THREADS={max(1, math.floor(min(cores, quota)))}")


def _siblings(topology: Path, cpu: int) -> str:
    """The CPUs that are threads of one core, as the kernel writes them; where it does not, a CPU is a core."""
    try:
        return (topology / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """How many CPUs' time this process's control groups, version 1 or 2, allow it; infinite where they set no limit."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            top = root / "cpu" if controllers else root
            folder = top / path.lstrip("/")
            # Limits further up hold as well. Inside a container the path may be the host's, and only `top` is here.
            quotas += [_quota_of(place) for place in (folder, *folder.parents) if place.is_relative_to(top)]
    return min(quotas)


def _quota_of(folder: Path) -> float:
    """The limit of one control group: microseconds of use in so many microseconds."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
        except OSError:
            continue
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    return math.inf


def others(count: int | None = None, cpus: set[int] | None = None, read=STAT.read_text, pause=time.sleep) -> Finding:
    """Whether other processes, or other virtual machines, leave room for the threads."""
    count = _thread_count() if count is None else count
    cpus = os.sched_getaffinity(0) if cpus is None else cpus
    before = _cpu_times(read())
    pause(LOOK)
    after = _cpu_times(read())
    shares = []
    for cpu in cpus:
        busy, total = (now - then for now, then in zip(after.get(cpu, (0, 0)), before.get(cpu, (0, 0))))
        if total <= 0:
            return Finding("others", UNKNOWN, f"cannot tell: {STAT} does not count here")
        shares.append(busy / total)
    used = sum(shares)
    found = f"just now others use {used:.1f} of {_many(len(cpus), 'CPU')}"
    if min(count, len(cpus)) + used <= len(cpus) + 0.5:
        return Finding("others", OK, found)
    return Finding(
        "others",
        SLOW,
        f"{found}: {_many(count, 'thread')} and they take turns, and all wait for the last one at the end of every "
        "parallel region",
        f"stop them, or NUMBA_NUM_THREADS={max(1, round(len(cpus) - used))}",
    )


def _cpu_times(stat: str) -> dict[int, tuple[int, int]]:
    """Of each CPU, how long it was busy and how long it was there; what a hypervisor stole counts as busy."""
    times = {}
    for line in stat.splitlines():
        if match := re.match(r"cpu(\d+) (.*)", line):
            # user nice system idle iowait irq softirq steal; guests count as user
            ticks = [int(number) for number in match[2].split()[:8]]
            times[int(match[1])] = sum(ticks) - sum(ticks[3:5]), sum(ticks)
    return times


def frequency(folder: Path = CPUS / "cpufreq") -> Finding:
    """A governor that holds the processor at its lowest frequency."""
    policies = {}
    for policy in folder.glob("policy*"):
        driver, governor = (policy / f"scaling_{name}" for name in ("driver", "governor"))
        policies[governor.read_text().strip()] = driver.read_text().strip()
    if not policies:
        found = "cannot tell: the system shows no governor, as in most virtual machines"
        return Finding("frequency", UNKNOWN, found)
    if policies.get("powersave", "intel_pstate") not in GOVERNORS_OF_THEIR_OWN:
        found = f"the governor powersave of {policies['powersave']} holds processors at their lowest frequency"
        return Finding("frequency", SLOW, found, "sudo cpupower frequency-set --governor performance")
    return Finding("frequency", OK, ", ".join(f"governor {name} of {driver}" for name, driver in policies.items()))


# --- what runs beside and below


def comparisons(count: int | None = None, environment: Mapping[str, str] = os.environ) -> Finding:
    """Settings that hold NumPy and other frameworks back, so that they lose where they need not."""
    count = _thread_count() if count is None else count
    found, fixes = [], []
    if kernel := environment.get("OPENBLAS_CORETYPE"):
        found.append(f"OPENBLAS_CORETYPE={kernel}: NumPy may not run its best kernels")
        fixes.append("unset OPENBLAS_CORETYPE")
    theirs = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if theirs.isdecimal() and int(theirs) != count:
        found.append(f"OMP_NUM_THREADS={theirs}: that is for NumPy and torch, and handloom runs {count}")
        fixes.append(f"unset OMP_NUM_THREADS, or NUMBA_NUM_THREADS={theirs}, which handloom heeds")
    if found:
        return Finding("comparisons", SLOW, f"{'; '.join(found)}: comparisons with others mislead", "; ".join(fixes))
    return Finding("comparisons", OK, "no setting holds NumPy back")


def _load_threading_layer() -> tuple[str, int]:
    import numba

    count = numba.get_num_threads()  # asking is what loads a threading layer
    return numba.threading_layer(), count


def threading_layer(load=_load_threading_layer, environment: Mapping[str, str] = os.environ) -> Finding:
    """What starts and joins the threads of a parallel region."""
    subject = "threading layer"
    named = [name for name in ("NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY") if name in environment]
    try:
        layer, count = load()
    except ValueError as error:
        return Finding(subject, WRONG, _first_line(error), f"unset {' '.join(named) or 'NUMBA_THREADING_LAYER'}")
    if layer == "workqueue":
        install = "install GNU's OpenMP: apt install libgomp1, dnf install libgomp or conda install libgomp"
        found = (
            "workqueue: its parallel regions take longer, and two Python threads inside one end the process; "
            "handloom lets only one in, Numba code of others may not"
        )
        return Finding(subject, SLOW, found, f"unset {' '.join(named)}" if named else install)
    if layer == "omp":
        limit = environment.get("OMP_THREAD_LIMIT", "")
        if limit.isdecimal() and int(limit) < count:
            found = f"omp: OMP_THREAD_LIMIT={limit} and {_many(count, 'thread')}: the others never start"
            return Finding(subject, SLOW, found, "unset OMP_THREAD_LIMIT")
        if sleepy := _falls_asleep(environment):
            found = f"omp: {sleepy}: its threads sleep between parallel regions, and waking them takes time"
            return Finding(subject, SLOW, found, f"unset {sleepy.partition('=')[0]}")
    return Finding(subject, OK, layer)


def _falls_asleep(environment: Mapping[str, str]) -> str:
    """The setting that sends waiting threads to sleep at once; GNU's own wins over OpenMP's."""
    if spins := environment.get("GOMP_SPINCOUNT", ""):
        return f"GOMP_SPINCOUNT={spins}" if spins.isdecimal() and int(spins) < SPINS else ""
    policy = environment.get("OMP_WAIT_POLICY", "")
    return f"OMP_WAIT_POLICY={policy}" if policy.lower() == "passive" else ""


def _thread_count() -> int:
    """How many threads Numba starts, without starting them."""
    from numba import config

    return config.NUMBA_NUM_THREADS


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, comparable."""
    return tuple(int(number) for number in re.match(r"[\d.]*\d", version)[0].split("."))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


# The threading layer is last: OpenMP may bind this thread to one CPU (OMP_PROC_BIND), and then it sees no other.
CHECKS = (
    versions, compiler, vectors, malloc, cache, threads, others, frequency, gpu, comparisons, threading_layer,
)  # fmt: skip
