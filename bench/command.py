"""The command line of the benchmarks."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="handloom bench", description="Time the kernels against NumPy, torch, JAX and Keras."
    )
    command.add_argument("--only", choices=("limits", "matmul", "convolution", "programs"), help="one group")
    command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads for everyone")
    command.add_argument("--quick", action="store_true", help="one small case a group")
    command.add_argument("--json", metavar="FILE", help="also write the rows, the machine and the versions")
    command.add_argument("--compare", metavar="FILE", help="what --json wrote before: say what is faster or slower now")
    command.add_argument("--markdown", action="store_true", help="end with the rows as a Markdown table")
    return command


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print a table; 1 if a result was wrong, or slower than one to compare with."""
    options = parser().parse_args(argv)
    from rich.console import Console

    from . import compare, limits, machine, operations, programs

    try:
        before = compare.load(Path(options.compare)) if options.compare else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2

    groups = {
        "matmul": operations.matmul_rows,
        "convolution": operations.convolution_rows,
        "programs": programs.program_rows,
    }
    console = Console()
    description = machine.describe(options.threads)
    console.print(
        f"{description['processor']}, {options.threads} threads, vectors of {description['vector bytes']} bytes, "
        f"{description['date']}"
    )
    if kernel := os.environ.get("OPENBLAS_CORETYPE"):
        print(f"OPENBLAS_CORETYPE={kernel} is set: NumPy may not run its best kernels", file=sys.stderr)
    rows = []
    with _threads(options.threads):
        quiet, found = limits.Quiet(), limits.measure(options.threads)
        console.print("\n".join(limits.lines(found)), highlight=False, soft_wrap=True)
        peak = found["multiply-adds, GFLOP/s"][options.threads]
        quiet.look()
        for name, group in groups.items():
            if options.only in (None, name):
                for row in group(options.quick):
                    rows.append(row)
                    quiet.look()
                    console.print(_line(row, peak), highlight=False, soft_wrap=True)
    console.print(_quiet(quiet), highlight=False, soft_wrap=True)
    if options.markdown:
        print("\n".join(_markdown(rows)))
    if options.json:
        _write_json(Path(options.json), description, found, quiet.spread, rows)
        console.print(f"written to {options.json}")
    slower = False
    if before is not None:
        lines, slower = compare.compare(rows, before)
        print("\n".join([f"against {options.compare}:", *(lines or ["no difference outside the spread of both"])]))
    return 1 if slower or any(row.wrong for row in rows) else 0


def _quiet(quiet) -> str:
    spread = f"{100 * quiet.spread:.1f} %"
    if quiet.noisy:
        return f"[yellow]noisy[/yellow]: a fixed loop of multiply-adds spread by {spread}: run again on a quiet machine"
    return f"quiet: a fixed loop of multiply-adds spread by {spread}"


def _line(row, peak) -> str:
    head = f"{row.group:<28} {row.case:<28}"
    if row.wrong:
        return f"{head} [red]WRONG[/red]: {row.wrong}"
    figures = "  ".join(f"{name} {us:,.0f}" for name, us in row.microseconds.items())
    speed = f"  {row.gflops:.0f} GFLOP/s, {100 * row.gflops / peak:.0f} % of the limit" if row.gflops else ""
    ratio = f"  [bold]{row.ratio:.2f}[/bold] x best peer" if row.ratio else "  no peer installed"
    return f"{head} us: {figures}{speed}{ratio}"


def _markdown(rows):
    yield "| | case | µs | GFLOP/s | peers, µs | × best peer |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        (_, ours), *peers = row.microseconds.items()
        others = ", ".join(f"{name} {us:,.0f}" for name, us in peers)
        speed, ratio = (f"{value:.{digits}f}" if value else "" for value, digits in ((row.gflops, 0), (row.ratio, 2)))
        yield f"| {row.group} | {row.case} | {ours:,.0f} | {speed} | {others} | {ratio} |"


@contextlib.contextmanager
def _threads(count: int):
    """The same number of threads for everyone who is installed."""
    import numba

    with contextlib.ExitStack() as stack:
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


def _write_json(path: Path, description: dict, limits: dict, spread: float, rows: list) -> None:
    content = {
        "schema": 2,
        "machine": description,
        "limits": limits,
        "spread of a fixed loop": spread,
        "rows": [
            {
                "group": row.group,
                "case": row.case,
                "microseconds": row.microseconds,
                "p20_p80": row.spread,
                "gflops": row.gflops,
                "ratio": row.ratio,
                "wrong": row.wrong,
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
