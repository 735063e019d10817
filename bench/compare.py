"""Today's rows beside those of an earlier run: a difference counts only where it lies outside the spread of both.

The spread of a row is what lies between the 20th and the 80th of a hundred calls. Where those of two runs overlap,
the machine may have made the difference; where they lie apart, the kernel has changed, or the machine for good.
"""

import json
from pathlib import Path

OURS = "handloom"


def load(path: Path) -> dict:
    """{(group, case): (p20, p80, median) of handloom, in microseconds} of what `--json` wrote."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            (row["group"], row["case"]): (*row["p20_p80"][OURS], row["microseconds"][OURS])
            for row in content["rows"]
            if not row["wrong"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"bench: {path} holds no results ({error}): pass what --json wrote") from error


def compare(rows: list, before: dict) -> tuple[list[str], bool]:
    """A line for each row that is faster, slower or new, the slowest first; and whether one is slower."""
    slower, faster, others = [], [], []
    for row in rows:
        name = f"{row.group:<28} {row.case:<28}"
        old = before.get((row.group, row.case))
        if row.wrong or old is None:
            others.append(f"{name} {'WRONG' if row.wrong else 'new'}")
            continue
        old_low, old_high, old_median = old
        (low, high), median = row.spread[OURS], row.microseconds[OURS]
        ratio = median / old_median
        line = f"{name} {old_median:,.0f} -> {median:,.0f} us: {{}} {max(ratio, 1 / ratio):.2f} x"
        if low > old_high:
            slower.append((ratio, line.format("slower")))
        elif high < old_low:
            faster.append((ratio, line.format("faster")))
    lines = [line for _, line in sorted(slower, reverse=True)] + [line for _, line in sorted(faster)] + others
    return lines, bool(slower)
