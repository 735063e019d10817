"""Today's rows beside those of an earlier run: a difference counts only where it lies outside the spread of both.

The spread of a row is what lies between the 20th and the 80th of a hundred calls. Where those of two runs overlap,
the machine may have made the difference; where they lie apart, the kernel has changed, or the machine for good.
"""

from .measure import OURS


def compare(now: dict, before: dict) -> tuple[list[str], bool]:
    """A line for each row that is faster, slower, wrong or new, the slowest first; and whether one is slower."""
    slower, faster, others = [], [], []
    old_rows = {_key(row): row for row in before["rows"] if not row["wrong"]}
    for row in now["rows"]:
        old, name = old_rows.get(_key(row)), f"{row['name']} {row['variant']}"
        if row["wrong"] or old is None:
            others.append(f"{name}: {'WRONG' if row['wrong'] else 'new'}")
            continue
        (old_low, old_high), (low, high) = old["p20_p80"][OURS], row["p20_p80"][OURS]
        old_median, median = old["us"][OURS], row["us"][OURS]
        ratio = median / old_median
        line = f"{name}: {old_median:,.1f} -> {median:,.1f} us, {{}} {max(ratio, 1 / ratio):.2f} x"
        if low > old_high:
            slower.append((ratio, line.format("slower")))
        elif high < old_low:
            faster.append((ratio, line.format("faster")))
    lines = [line for _, line in sorted(slower, reverse=True)] + [line for _, line in sorted(faster)] + others
    return lines, bool(slower)


def _key(row):
    return row["name"], row["variant"], row["dtype"]
