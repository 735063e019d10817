"""The tables of the README, made from stored results: `make tables` rewrites them, and a test holds them together."""

import argparse
import json
import sys
from pathlib import Path

BEGIN, END = "<!-- tables: begin, by `make tables` -->", "<!-- tables: end -->"

# Where the files are, in a checkout.
ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ROOT / "README.md", ROOT / "bench" / "results" / "amd-epyc-zen5-2-cores.json"

PROGRAMS = {
    "dense, batch 32": "dense 100-64-10",
    "cnn, batch 32": "CNN 28×28",
    "lstm, batch 32": "LSTM 50×100 → 64",
}
PASSES = ("forward", "data gradient", "weight gradient")


def tables(results: dict) -> str:
    """Markdown: a table of whole steps, one of products, one of convolutions."""
    parts = (_programs, _products, _convolutions)
    return "\n\n".join("\n".join(part(results["rows"])) for part in parts)


def rewrite(text: str, results: dict) -> str:
    """`text` with what stands between the two marks made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        missing = END if begin else BEGIN
        raise ValueError(f"tables: the text has no {missing}: put both where the tables shall stand")
    return f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}"


def _programs(rows):
    yield "| whole training step, batch 32 | handloom, µs | peers, µs | × best peer |"
    yield "|---|---|---|---|"
    for row in rows:
        if row["group"] == "programs":
            (_, ours), *peers = row["microseconds"].items()
            others = ", ".join(f"{name} {us:,.0f}" for name, us in peers)
            yield f"| {PROGRAMS[row['case']]} | {ours:,.0f} | {others} | {row['ratio']:.2f} |"


def _products(rows):
    yield "| matrix product | handloom, µs | NumPy, µs | GFLOP/s | × NumPy |"
    yield "|---|---|---|---|---|"
    for row in rows:
        if row["group"] == "matmul":
            ours, numpy = row["microseconds"]["handloom"], row["microseconds"]["numpy"]
            case = row["case"].replace("^3", "³")
            yield f"| {case} | {ours:,.0f} | {numpy:,.0f} | {row['gflops']:.0f} | {row['ratio']:.2f} |"


def _convolutions(rows):
    yield f"| convolution, × the better of torch's two layouts | {' | '.join(PASSES)} |"
    yield "|---|---|---|---|"
    ratios = {}
    for row in rows:
        group, _, direction = row["group"].partition(", ")
        if group == "convolution":
            ratios.setdefault(row["case"], {})[direction] = f"{row['ratio']:.2f}"
    for case, found in ratios.items():
        text = case.replace("->", "→").replace("x", "×")
        yield f"| {text} | {' | '.join(found[direction] for direction in PASSES)} |"


def main(argv: list[str] | None = None) -> int:
    """Rewrite a file's tables from stored results."""
    command = argparse.ArgumentParser(prog="python -m handloom.bench.tables", description=__doc__)
    command.add_argument("--results", type=Path, default=RESULTS, help="what `handloom bench --json` wrote")
    command.add_argument("--file", type=Path, default=README, help="where the tables stand")
    options = command.parse_args(argv)
    text = rewrite(options.file.read_text(encoding="utf-8"), json.loads(options.results.read_text(encoding="utf-8")))
    temporary = options.file.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(options.file)
    print(f"{options.file.name}: tables from {options.results.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
