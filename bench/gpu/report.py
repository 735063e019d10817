"""The results: one JSON and the same as tables. There are none without the machine that they belong to."""

import json
import time
from collections import Counter, defaultdict
from pathlib import Path

STATUSES = ("ok", "refused", "wrong", "fault", "not run")
BAD = ("wrong", "fault")
WIDTH = 180  # of the tables, where no terminal says how wide it is
SAVED_EVERY = 10  # seconds


class Report:
    """Rows by part, and what they were got on."""

    def __init__(self, folder, quick):
        self.folder, self.quick = Path(folder), quick
        self.machine, self.rows, self.left_out = {}, [], []
        self._saved = time.monotonic()

    def add(self, part, rows):
        """Also saves every now and then: a machine that is lent may be taken away."""
        self.rows += [{"part": part, **row} for row in rows]
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def leave_out(self, part, why):
        """This part was not run, or not to its end."""
        self.left_out.append({"part": part, "text": why})

    def bad(self):
        return [row for row in self.rows if row["status"] in BAD]

    def save(self):
        """Both files, whole or as they were before."""
        from rich.console import Console

        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "schema": 1,
            "machine": self.machine,
            "quick": self.quick,
            "not_run": self.left_out,
            "rows": self.rows,
        }
        self._write("gpu-check.json", lambda stream: stream.write(json.dumps(content, indent=1) + "\n"))
        self._write(
            "gpu-check.txt", lambda stream: self.print(Console(file=stream, width=WIDTH, markup=False, highlight=False))
        )
        self._saved = time.monotonic()

    def _write(self, name, write):
        temporary = self.folder / f"{name}.tmp"
        with temporary.open("w") as stream:
            write(stream)
        temporary.replace(self.folder / name)

    def print(self, console):
        """All tables."""
        for name, value in self.machine.items():
            text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            console.print(f"{name}: {text}", soft_wrap=True)
        for table in (self._contract(), self._programs(), self._timings(), self._troubles()):
            if table.row_count:
                console.print()
                console.print(table)
        for entry in self.left_out:
            console.print(f"not run: {entry['part']}: {entry['text']}", soft_wrap=True)

    def _contract(self):
        table = _table("contract: cases x variants x dtypes", "family", *STATUSES, "largest error", left=1)
        for part in dict.fromkeys(row["part"] for row in self.rows if row["part"] not in ("programs", "timings")):
            rows = [row for row in self.rows if row["part"] == part]
            count = Counter(row["status"] for row in rows)
            error = max(row.get("error", 0.0) for row in rows)
            table.add_row(part, *(str(count[status] or "") for status in STATUSES), f"{error:.1e}")
        return table

    def _programs(self):
        heads = "program", "steps", "loss", "on the CPU", "accuracy", "on the CPU", "played back", "status"
        table = _table("programs: after the last epoch", *heads, left=1)
        for row in self.rows:
            if row["part"] == "programs" and "loss" in row:
                numbers = [
                    f"{row[name][-1]:.4f}" for name in ("loss", "loss on the CPU", "accuracy", "accuracy on the CPU")
                ]
                played = "yes" if row["played back"] else "no"
                table.add_row(row["name"], str(row["steps"]), *numbers, played, row["status"])
        return table

    def _timings(self):
        heads = "case", "variant", "mode", "us", "GFLOP/s", "GB/s", "x copy", "x peer (its us)"
        table = _table("timings: medians; a share above 1 is faster than the peer", *heads, left=3)
        for row in self.rows:
            if "us" in row:
                times = row.get("peers_us", {})
                beside = ", ".join(f"{us / row['us']:.2f} {peer} ({us:,.1f})" for peer, us in times.items())
                numbers = [f"{row['us']:,.1f}", _figure(row, "gflops", 0), _figure(row, "gbs", 0)]
                share = _figure(row, "share_of_copy", 2)
                table.add_row(row["name"], row["variant"], row["mode"], *numbers, share, beside or "no peer")
        return table

    def _troubles(self):
        table = _table("not as it should be", "part", "case", "status", "why", left=4)
        not_run = defaultdict(list)  # often many, for one reason
        for row in self.rows:
            if row["status"] in BAD:
                table.add_row(row["part"], row["name"], row["status"], first_lines(row["text"]))
            elif row["status"] == "not run":
                not_run[row["part"], row["text"]].append(row["name"])
        for (part, text), names in not_run.items():
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            table.add_row(part, names[0] + more, "not run", first_lines(text))
        return table


def first_lines(text, count=4) -> str:
    """The beginning of an error that may go on for pages."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(line[:160] for line in lines[:count])


def _figure(row, name, digits):
    return f"{row[name]:,.{digits}f}" if name in row else ""


def _table(title, *heads, left):
    """A table whose first `left` columns hold text."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left or number == len(heads) - 1 else "right")
    return table
