"""The command line of gpu-check."""

import argparse
import math
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from . import worker


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="handloom gpu-check",
        description="Verify every CUDA kernel on this machine's GPU, train the three programs there, and time both.",
        epilog="In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) the small cases alone run, and nothing is timed.",
    )
    command.add_argument("--out", metavar="DIR", default="gpu-check-results", help="folder for the results")
    command.add_argument("--cubins", metavar="DIR", help="machine code made by `handloom warmup --device cuda`")
    command.add_argument("--quick", action="store_true", help="small cases, few steps, few timings")
    command.add_argument(
        "--only", metavar="PART", action="append", help="a family of operations, programs or timings; may be repeated"
    )
    command.add_argument(
        "--limit", metavar="SECONDS", type=float, default=math.inf, help="stop after these; the rest is `not run`"
    )
    command.add_argument("--work", metavar="PART", help=argparse.SUPPRESS)  # what the processes are started with
    command.add_argument("--match", metavar="TEXT", action="append", help=argparse.SUPPRESS)  # of a task's name
    command.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    return command


def main(argv: list[str] | None = None) -> int:
    """Run all parts; 1 if a result was wrong or a kernel failed, 2 if there is no GPU or no machine code for it of
    these sources, 130 after Ctrl-C."""
    began = time.monotonic()
    command = parser()
    options = command.parse_args(argv)
    if options.cubins:
        if not Path(options.cubins).is_dir():
            command.error(f"--cubins: there is no folder {options.cubins}")
        os.environ["HANDLOOM_CUBINS"] = str(Path(options.cubins).absolute())
    from . import parts

    if options.work:
        with suppress(KeyboardInterrupt):  # the parent tells it
            return worker.work(parts.tasks(options.work, options.quick, options.match), options.first)
        return 130
    names = parts.names()
    for name in options.only or ():
        if name not in names:
            command.error(f"--only: {name!r} is no part: the parts are {', '.join(names)}")
    return _check([name for name in names if name in (options.only or names)], options, began + options.limit)


def _check(names, options, deadline) -> int:
    from rich.console import Console

    from . import contract
    from .parts import CONTRACT, MACHINE
    from .report import WIDTH, Report

    console = Console(markup=False, highlight=False)  # errors have brackets
    if not console.is_terminal:
        console.width = WIDTH
    report = Report(options.out, options.quick)
    arguments = ["--quick"] if options.quick else []
    found = []
    worker.run(MACHINE, arguments, lambda message: found.extend(message.get("rows", ())))
    if not found or found[0]["status"] != "ok":
        console.print(
            found[0]["text"].partition(": ")[2] if found else "gpu-check: the machine says nothing", soft_wrap=True
        )
        return 2
    report.machine = {key: value for key, value in found[0].items() if key not in ("name", "status", "text")}
    if options.cubins and (why := _other_cubins(options.cubins, report.machine["capability"])):
        console.print(why, soft_wrap=True)
        return 2
    if why := contract.missing():
        report.leave_out(CONTRACT, why)
    left, interrupted = list(names), False
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # who ends it gets as much as after Ctrl-C
    try:
        while left and time.monotonic() < deadline:
            _run_part(left[0], arguments, report, console, deadline)
            left.pop(0)
            report.save()
        for name in left:
            report.leave_out(name, worker.LATE)
    except KeyboardInterrupt:
        interrupted = True
        for number, name in enumerate(left):
            report.leave_out(name, "interrupted before" if number else "interrupted")
    finally:
        signal.signal(signal.SIGTERM, before)
    report.save()
    report.print(console)
    console.print(f"written to {report.folder / 'gpu-check.json'} and gpu-check.txt", soft_wrap=True)
    return 130 if interrupted else 1 if report.bad() else 0


def _other_cubins(folder, capability) -> str | None:
    """What to say where carried machine code is not for these sources or this GPU, which kernels would find out one by
    one."""
    from ...nn import gpu

    if gpu.simulated():
        return None
    from ...kernels.launch import architecture
    from .cubins import stale

    arch = architecture(capability)
    if (why := stale(folder, arch)) is None:
        return None
    return (
        f"gpu-check: --cubins: {folder} does not hold the machine code of these sources for {arch} ({why}): make it "
        f"from them, which needs no GPU: handloom warmup --device cuda --arch {arch} --out {folder}"
    )


def _run_part(name, arguments, report, console, deadline):
    """One part, with a bar for its tasks; what is wrong is printed at once."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from .parts import silence
    from .report import BAD, first_lines

    columns = TextColumn("{task.fields[part]:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, TextColumn("{task.fields[now]}", markup=False), console=console) as progress:
        bar = progress.add_task("", total=None, part=name, now="")

        def told(message):
            if "tasks" in message:
                progress.update(bar, total=len(message["tasks"]))
            if "begin" in message:
                progress.update(bar, completed=message["number"], now=message["begin"])
            for row in message.get("rows", ()):
                report.add(name, [row])
                if row["status"] in BAD:
                    text = f"{row['status'].upper()}: {row['name']}\n{first_lines(row['text'])}"
                    console.print(text)

        worker.run(name, arguments, told, silence(name), deadline)
        progress.update(bar, completed=progress.tasks[0].total, now="")
