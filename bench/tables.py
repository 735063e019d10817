"""The README's tables and docs/ladders/, made from stored results: `make tables` rewrites them, and a test compares.

The README has the main cases, docs/ladders/README.md all of them. The other pages there are what the kernels' own file
says of its rungs, what each should gain (rungs.py) and does, and a picture of where it stands below the roofline.
"""

import argparse
import sys
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .. import kernels
from . import cases as suite
from .cases.convolution import PLAIN
from .measure import OURS, geometric_mean, verdict
from .results import load, write_whole
from .rungs import RUNGS

BEGIN, END = "<!-- tables: begin, by `make tables` -->", "<!-- tables: end -->"

# Where the files are, in a checkout.
ROOT = Path(__file__).resolve().parents[1]
README, LADDERS = ROOT / "README.md", ROOT / "docs" / "ladders"
RESULTS = ROOT / "bench" / "results" / "amd-epyc-zen1-2-cores.json"

PROGRAMS = {"dense": "dense 100-64-10", "cnn": "CNN 28×28", "lstm": "LSTM 50×100 → 64"}
PRODUCTS = [f"matmul/{size}x{size}x{size}" for size in (256, 512, 1024, 2048)]
PASSES = ("forward", "data-gradient", "weight-gradient")


def tables(results: dict) -> str:
    """Markdown: whole steps, products, convolutions, and how all cases went."""
    parts = (_programs, _products, _convolutions, _sums)
    return "\n\n".join("\n".join(part(_defaults(results))) for part in parts)


def rewrite(text: str, results: dict) -> str:
    """`text` with what stands between the two marks made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        missing = END if begin else BEGIN
        raise ValueError(f"tables: the text has no {missing}: put both where the tables shall stand")
    return f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}"


def ladders(results: dict) -> dict[str, str]:
    """A page of all cases, and one for each operation whose rungs the suite measures, by the name of its file."""
    pages = {"README.md": "\n".join(_all(results)) + "\n"}
    return pages | {f"{op}.md": "\n".join(_ladder(op, found, results)) + "\n" for op, found in _cases(results).items()}


def pictures(results: dict) -> dict[str, str]:
    """The rooflines of those pages, as SVG, where anything was measured."""
    from .report import charts

    found = {}
    for op, cases in _cases(results).items():
        columns = {name: [row for row in rungs.values() if row] for name, rungs in cases.items()}
        if columns := {name: rows for name, rows in columns.items() if rows}:
            found[f"{op}.svg"] = charts.standalone(charts.climb(columns, results["limits"]))
    return found


def _cases(results) -> dict[str, dict]:
    """{operation: {case: {rung: its row, or None where it has no time}}} for the ladders of the suite.

    A case that has one row alone was measured before it had a ladder.
    """
    rows = {}
    for row in results["rows"]:
        rows.setdefault(row["op"], {}).setdefault(row["name"], {})[row["variant"]] = row
    found = {}
    for case in suite.every():
        if case.ladder:
            found.setdefault(case.op, {})[case.name] = {}
    for op, cases in found.items():
        cases |= {name: rungs for name, rungs in rows.get(op, {}).items() if len(rungs) > 1}
        for name, rungs in cases.items():
            measured = {rung: row for rung, row in rungs.items() if not row["wrong"]}
            cases[name] = {rung: measured.get(rung) for rung in kernels.VARIANTS[op]["cpu"]}
    return found


def _defaults(results):
    return [row for row in results["rows"] if row["default"] and not row["wrong"]]


def _programs(rows):
    yield "| whole program | handloom, µs | peers, µs | × best peer |"
    yield "|---|---|---|---|"
    for row in rows:
        if row["family"] == "programs":
            what = {"fit": "training step, batch 32", "predict": "prediction of one row"}[row["op"]]
            yield f"| {PROGRAMS[row['case']]}: {what} | {_us(row['us'][OURS])} | {_peers(row)} | {_ratio(row)} |"


def _products(rows):
    yield "| matrix product (M × N × K) | handloom, µs | GFLOP/s | % of the limit | peers, µs | × best peer |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if row["name"] in PRODUCTS:
            figures = f"{row['gflops']:.0f} | {100 * row['share']:.0f}"
            yield f"| {_case(row)} | {_us(row['us'][OURS])} | {figures} | {_peers(row)} | {_ratio(row)} |"


def _convolutions(rows):
    yield f"| convolution, × the best peer | {' | '.join(way.replace('-', ' ') for way in PASSES)} |"
    yield "|---|---|---|---|"
    plain = {f"{n}x{size}x{size}x{c}-{window}x{window}-{f}" for n, size, c, f, window in PLAIN}
    ratios = {}
    for row in rows:
        if row["op"] == "conv2d" and row["case"] in plain:
            ratios.setdefault(_case(row), {})[row["pass"]] = _ratio(row)
    for case, found in ratios.items():
        yield f"| {case} | {' | '.join(found.get(way, '') for way in PASSES)} |"


def _sums(rows):
    yield "| all cases, × the best peer | cases | ahead by more than 5 % | behind by more than 5 % | geometric mean |"
    yield "|---|---|---|---|---|"
    families = {}
    for row in rows:
        if row["ratio"]:
            families.setdefault(row["family"], []).append(row["ratio"])
    for family, ratios in (families | {"together": [ratio for found in families.values() for ratio in found]}).items():
        count = Counter(map(verdict, ratios))
        yield f"| {family} | {len(ratios)} | {count['ahead']} | {count['behind']} | {geometric_mean(ratios):.2f} |"


def _all(results):
    yield "# All cases, on a CPU\n"
    yield "<!-- written by `make tables` -->\n"
    yield (
        f"{_measured(results)} handloom's default rung of each; the ladders: {', '.join(_links(results))}. Any row "
        "again: `handloom bench --only NAME`."
    )
    yield "\n| name | µs | GFLOP/s | GB/s | % of the limit | peers, µs | × best peer |"
    yield "|---|---|---|---|---|---|---|"
    for row in _defaults(results):
        flops = f"{row['gflops']:.0f}" if row["gflops"] else ""
        figures = f"{_us(row['us'][OURS])} | {flops} | {row['gbs']:.0f} | {100 * row['share']:.0f} ({row['limit']})"
        yield f"| {row['name']} | {figures} | {_peers(row)} | {_ratio(row)} |"


def _links(results):
    return [f"[{op}]({op}.md)" for op in _cases(results)]


def _measured(results) -> str:
    machine = results["machine"]
    return (
        f"Measured on {machine['date']} on {machine['threads']} cores ({machine['processor']}), candidates in turn, "
        "medians. The limit is what the roofline model allows for the operations and bytes of the case: the measured "
        "multiply-adds of all cores, or the measured bandwidth of copying where the arrays lie."
    )


def _ladder(op, cases, results):
    family = getattr(kernels, op).__module__.split(".")[2]
    module = import_module(f"..kernels.{family}.cpu", __package__)
    file = Path(module.__file__).resolve().relative_to(ROOT)
    yield f"# The ladder of {op}, on a CPU\n"
    yield "<!-- written by `make tables` -->\n"
    yield f"From [{file}](../../{file}):\n"
    yield f"```text\n{module.__doc__.strip()}\n```\n"
    rungs = kernels.VARIANTS[op]["cpu"]
    lanes, threads = results["machine"]["vector bytes"] // 4, results["machine"]["threads"]
    yield "| rung | source | its one idea | predicted gain over the rung above |"
    yield "|---|---|---|---|"
    for rung in rungs:
        one = _rung(op, rung)
        path, function = one.source.split(":")
        source = f"[{path}](../../kernels/{path}), `{function}`"
        why = one.why.format(lanes=lanes, threads=threads)
        gain = f"{_gain(one.gain(lanes, threads))} ×: {why}" if one.gain else ""
        yield f"| {rung} | {source} | {one.idea} | {gain} |"
    yield (
        "\nThe last column is arithmetic, for float32 and the machine below ([bench/rungs.py](../../bench/rungs.py)): "
        "what the idea brings if nothing else stands in the way.\n"
    )
    yield _measured(results)
    if any(row for found in cases.values() for row in found.values()):
        yield f"\n![The rungs of {op} below the roofline of this machine]({op}.svg)"
    for name, found in cases.items():
        yield from _climb(op, name, found, results)


def _climb(op, name, found, results):
    """The rungs of one case."""
    last = next((row for row in reversed(found.values()) if row), None)
    dtype = last["dtype"] if last else "float32"
    lanes, threads = results["machine"]["vector bytes"] // np.dtype(dtype).itemsize, results["machine"]["threads"]
    yield f"\n## {name}, {dtype}\n"
    yield "| rung | µs | predicted gain | measured gain | GFLOP/s | % of the limit |"
    yield "|---|---|---|---|---|---|"
    above = None
    for rung, row in found.items():
        one = _rung(op, rung)
        predicted = _gain(one.gain(lanes, threads)) if one.gain and one.holds(name) else ""
        us = row["us"][OURS] if row else None
        measured = f"{above / us:.1f}" if above and us else ""
        figures = f"{row['gflops']:.1f} | {100 * row['share']:.1f}" if row else " | "
        yield f"| {rung} | {_us(us) if us else 'not measured yet'} | {predicted} | {measured} | {figures} |"
        above = us
    again = last["command"] if last else f"handloom bench --only {name}"
    yield f"\nPeers: {_peers(last) or 'none'}. Again: `{again}`" if last else f"\nTo measure: `{again}`"


def _rung(op, rung):
    """What rungs.py says of it."""
    if rung not in RUNGS.get(op, ()):
        raise ValueError(f"tables: nothing is said of the rung {rung!r} of {op}: add it to bench/rungs.py")
    return RUNGS[op][rung]


def _gain(times) -> str:
    return f"{times:.0f}" if times >= 10 else f"{times:.1f}"


def _us(us) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.1f}"


def _peers(row) -> str:
    return ", ".join(f"{name} {_us(us)}" for name, us in row["us"].items() if name != OURS)


def _ratio(row) -> str:
    return f"{row['ratio']:.2f}" if row["ratio"] else ""


def _case(row) -> str:
    return row["case"].replace("x", "×")


def main(argv: list[str] | None = None) -> int:
    """Rewrite a file's tables and the ladders from stored results."""
    command = argparse.ArgumentParser(prog="python -m handloom.bench.tables", description=__doc__)
    command.add_argument("--results", type=Path, default=RESULTS, help="what `handloom bench --json` wrote")
    command.add_argument("--file", type=Path, default=README, help="where the tables stand")
    command.add_argument("--ladders", type=Path, default=LADDERS, help="the folder of the ladders")
    options = command.parse_args(argv)
    if find_spec("matplotlib") is None:
        sys.exit("tables: the pictures need matplotlib: pip install 'handloom[plot]'")
    results = load(options.results)
    pages = {options.file: rewrite(options.file.read_text(encoding="utf-8"), results)}
    pages |= {options.ladders / name: text for name, text in (ladders(results) | pictures(results)).items()}
    for path, text in pages.items():
        write_whole(path, text)
        print(f"{path.name}: from {options.results.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
