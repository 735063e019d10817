"""The README's tables and docs/ladders/, made from stored results: `make tables` rewrites them, and a test compares.

The README has the main cases, docs/ladders/README.md all of them. The other pages there are what the kernels' own file
says of its rungs, and what was measured of each.
"""

import argparse
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

from .. import kernels
from .cases.convolution import PLAIN
from .measure import OURS, geometric_mean, verdict
from .results import load, write_whole

BEGIN, END = "<!-- tables: begin, by `make tables` -->", "<!-- tables: end -->"

# Where the files are, in a checkout.
ROOT = Path(__file__).resolve().parents[1]
README, LADDERS = ROOT / "README.md", ROOT / "docs" / "ladders"
RESULTS = ROOT / "bench" / "results" / "amd-epyc-zen5-2-cores.json"

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
    """A page of all cases, and one for each operation with several rungs, by the name of its file."""
    rows = {}
    for row in results["rows"]:
        rows.setdefault(row["op"], {}).setdefault(row["name"], []).append(row)
    pages = {"README.md": "\n".join(_all(results)) + "\n"}
    for op, cases in rows.items():
        found = {name: rungs for name, rungs in cases.items() if len(rungs) > 1}
        if found:
            pages[f"{op}.md"] = "\n".join(_ladder(op, found, results)) + "\n"
    return pages


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
    ladders_of = dict.fromkeys(row["op"] for row in results["rows"] if not row["default"])
    return [f"[{op}]({op}.md)" for op in ladders_of]


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
    yield _measured(results)
    for name, rungs in cases.items():
        yield f"\n## {name}, {rungs[0]['dtype']}\n"
        yield "| rung | µs | × the rung above | GFLOP/s | % of the limit |"
        yield "|---|---|---|---|---|"
        above = None
        for row in rungs:
            if not row["wrong"]:
                us = row["us"][OURS]
                gain = f"{above / us:.1f}" if above else ""
                yield f"| {row['variant']} | {_us(us)} | {gain} | {row['gflops']:.1f} | {100 * row['share']:.1f} |"
                above = us
        yield f"\nPeers: {_peers(rungs[-1]) or 'none'}. Again: `{rungs[-1]['command']}`"


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
    results = load(options.results)
    pages = {options.file: rewrite(options.file.read_text(encoding="utf-8"), results)}
    pages |= {options.ladders / name: text for name, text in ladders(results).items()}
    for path, text in pages.items():
        write_whole(path, text)
        print(f"{path.name}: from {options.results.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
