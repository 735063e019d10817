"""The command line of the benchmarks."""

import argparse
import contextlib
import os
import sys
from collections import Counter
from pathlib import Path

# From so many cases on the summary goes by family, and names so many that are furthest behind.
MANY, LAST = 100, 10


def parser() -> argparse.ArgumentParser:
    from .peers import NAMES

    command = argparse.ArgumentParser(
        prog="handloom bench",
        description="Measure this machine's limits, the kernels and whole training steps, beside NumPy, torch, JAX ...",
        epilog="Exit status: 0; 1 where a result is wrong, or slower than --compare; 2 for options that make no sense; "
        "130 after Ctrl-C, which keeps the results so far.",
    )
    command.add_argument(
        "--only", metavar="NAME", action="append", default=[],
        help='a family ("gemm"), an operation ("conv2d"), the beginning of a row\'s name, or "limits"; may be repeated',
    )  # fmt: skip
    length = command.add_mutually_exclusive_group()
    for extent, text in (
        ("quick", "the main cases, under two minutes (the default)"),
        ("full", "more cases, and more samples of each"),
        ("survey", "all cases, with few samples: sizes in grids, every convolution of two networks; over an hour"),
    ):
        length.add_argument(
            f"--{extent}", dest="extent", action="store_const", const=extent, default="quick", help=text
        )
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure")
    command.add_argument(
        "--peers", metavar="NAMES", help=f'"none", or some of {",".join(NAMES)} (default: what is installed)'
    )
    command.add_argument("--threads", type=int, help="threads, and cores, for everyone (default: all cores)")
    command.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of the single operations")
    command.add_argument("--json", metavar="FILE", help="also write what was found")
    command.add_argument("--report", metavar="DIR", help="also write a page: DIR/index.html")
    command.add_argument("--compare", metavar="FILE", help="what --json wrote before: say what is faster or slower now")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print what was found; the exit status."""
    command = parser()
    options = command.parse_args(argv)
    from . import machine, peers, report, results

    cores = len(os.sched_getaffinity(0))
    threads = cores if options.threads is None else options.threads
    if not 1 <= threads <= cores:
        command.error(f"--threads is {threads}: must be from 1 to {cores}, the cores that this process may use")
    asked = _asked(command, options.peers, peers)
    try:
        before = results.load(Path(options.compare)) if options.compare else None
        if options.report:
            report.check_libraries()
        if options.device == "cuda":
            given = [f"--{name}" for name in ("peers", "threads") if getattr(options, name) is not None]
            if given := given + ["--dtype"] * (options.dtype != "float32"):
                raise ValueError(f"bench: {' and '.join(given)}: on a GPU there is no choice of these: leave them out")
            from .gpu import rows as gpu_rows

            found, complete = gpu_rows.run(options)
        else:
            description = machine.describe(threads)
            with _cores(threads):
                found, complete = _run(options, description, asked)
    except (ValueError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return _finish(options, found, before, complete)


def _asked(command, text, peers) -> list[str]:
    """The peers that were asked for."""
    if text is None:
        return list(peers.NAMES)
    names = [name for name in text.split(",") if name and name != "none"]
    for name in names:
        if name not in peers.NAMES:
            command.error(f"--peers: {name!r} is no peer: the peers are {', '.join(peers.NAMES)}")
    return names


def _run(options, description, asked) -> tuple[dict, bool]:
    """(What was found, whether to the end.)"""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..kernels import limits
    from ..nn import gpu
    from . import cases, results
    from .measure import Suite
    from .quiet import Quiet
    from .timing import FULL, QUICK

    only = [name for name in options.only if name != "limits"]
    chosen = [] if options.only and not only else cases.select(only, options.extent, options.dtype)
    console = Console(highlight=False, soft_wrap=True)
    threads = description["threads"]
    console.print(_head(description))
    if kernel := os.environ.get("OPENBLAS_CORETYPE"):
        print(f"OPENBLAS_CORETYPE={kernel} is set: NumPy may not run its best kernels", file=sys.stderr)
    quiet, measured = Quiet(threads), limits.measure(threads)
    console.print("\n".join(limits.lines(measured)))
    suite = Suite(measured, threads, FULL if options.extent == "full" else QUICK, options.dtype, asked)
    suite.not_measured.append(f"GPU: {gpu.find().problem or 'there is one: handloom bench --device cuda'}")
    quiet.look()
    rows, complete = [], True
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            bar = progress.add_task("", total=len(chosen))
            for case in chosen:
                progress.update(bar, description=case.name)
                new = suite.rows(case)
                rows += new
                quiet.look()
                progress.advance(bar)
                if options.extent == "survey":
                    new_family = len(rows) == len(new) or rows[-len(new) - 1].family != case.family
                    lines = [f"[bold]{case.family}[/bold]"] * new_family + list(map(_line, new))
                else:
                    lines = _lines(new)
                progress.console.print("\n".join(lines))
    except KeyboardInterrupt:
        complete = False
        console.print("interrupted: what follows is of the cases so far")
    console.print(_quiet(quiet))
    return results.gather(suite, rows, description, quiet.spread, complete), complete


def _finish(options, found, before, complete) -> int:
    """The summary, the files, the comparison."""
    from . import compare, results

    print("\n".join(_summary(found)))
    if options.json:
        results.save(found, Path(options.json))
        print(f"written to {options.json}")
    if options.report:
        from . import report

        print(f"written to {report.write(found, Path(options.report))}")
    slower = False
    if before is not None:
        lines, slower = compare.compare(found, before)
        print("\n".join([f"against {options.compare}:", *(lines or ["no difference outside the spread of both"])]))
    if not complete:
        return 130
    return 1 if slower or any(row["wrong"] for row in found["rows"]) else 0


def _head(description) -> str:
    caches = ", ".join(f"{name} {size // 1024:,} KB" for name, size in description["caches"].items())
    return (
        f"{description['processor']}, {description['threads']} of {description['cores']} cores, vectors of "
        f"{description['vector bytes']} bytes, {caches}, {description['date']}"
    )


def _lines(rows):
    """A case: the command that runs it again, a line for each variant of ours, a line for the peers."""
    yield f"[dim]{rows[0].command}[/dim]"
    for row in rows:
        if row.wrong:
            yield f"  {row.variant:<10} [red]WRONG[/red]: {row.wrong}"
            continue
        ours, (low, high), cpu, first = (of["handloom"] for of in (row.us, row.p20_p80, row.cpu_us, row.first_s))
        speed = f"{row.gflops:,.0f} GFLOP/s  " if row.gflops and row.gflops >= 1 else ""
        yield (
            f"  {row.variant:<10} {ours:>10,.1f} us ({low:,.1f} to {high:,.1f})  cpu {cpu:,.1f} us  first call "
            f"{first:.2f} s  {speed}{row.gbs:,.0f} GB/s  {100 * row.share:.0f} % of {row.limit}"
        )
    row = rows[-1]
    if row.ratio is not None:
        theirs = ", ".join(f"{name} {us:,.1f}" for name, us in row.us.items() if name != "handloom")
        yield f"  [bold]{row.ratio:.2f}[/bold] x the best peer: {theirs}"


def _line(row) -> str:
    """A row of very many."""
    name = f"  {row.name}" + ("" if row.default else f" {row.variant}")
    if row.wrong:
        return f"{name:<60} [red]WRONG[/red]: {row.wrong}"
    theirs = {us: name for name, us in row.us.items() if name != "handloom"}
    ratio = f"{row.ratio:>6.2f} x {theirs[min(theirs)]}" if row.default and theirs else ""
    share = f"{100 * row.share:.0f} % of {row.limit}"
    return f"{name:<60} {row.us['handloom']:>11,.1f} us  {share:<22} {ratio}".rstrip()


def _quiet(quiet) -> str:
    spread = f"{100 * quiet.spread:.1f} %"
    if quiet.noisy:
        return f"[yellow]noisy[/yellow]: a fixed loop of multiply-adds spread by {spread}: run again on a quiet machine"
    return f"quiet: a fixed loop of multiply-adds spread by {spread}"


def _summary(found):
    """How many ahead, level and behind, of very many by family and with the last of all; and what is missing."""
    judged = [row for row in found["rows"] if row["default"] and row["ratio"]]
    if len(judged) > MANY:
        families = dict.fromkeys(row["family"] for row in judged)
        for family in families if len(families) > 1 else ():
            yield f"{family}, {_how_many([row['ratio'] for row in judged if row['family'] == family])}"
        yield "furthest behind:"
        for row in sorted(judged, key=lambda row: row["ratio"])[:LAST]:
            yield f"  {row['ratio']:.2f} x the best peer: {row['command']}"
    if judged:
        yield f"against the best peer of each, {_how_many([row['ratio'] for row in judged])}"
    for text in found["not measured"]:
        yield f"not measured: {text}"


def _how_many(ratios) -> str:
    from .measure import geometric_mean, verdict

    count = Counter(map(verdict, ratios))
    return (
        f"{len(ratios)} cases: {count['ahead']} ahead by more than 5 %, {count['level']} level, "
        f"{count['behind']} behind by more than 5 %; geometric mean {geometric_mean(ratios):.2f}"
    )


@contextlib.contextmanager
def _cores(count: int):
    """The same number of cores and threads for everyone; libraries that start later see only these cores."""
    import numba

    with contextlib.ExitStack() as stack:
        cores = os.sched_getaffinity(0)
        if count < len(cores):
            os.sched_setaffinity(0, sorted(cores)[:count])
            stack.callback(os.sched_setaffinity, 0, cores)
        before = numba.get_num_threads()
        numba.set_num_threads(min(count, before))
        stack.callback(numba.set_num_threads, before)
        try:
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(count, user_api="blas"))
        except ImportError:
            print("threadpoolctl is not installed: NumPy keeps its own number of threads", file=sys.stderr)
        try:
            import torch

            torch.set_num_threads(count)
        except ImportError:
            pass
        yield
