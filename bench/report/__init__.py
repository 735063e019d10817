"""The page of a run: one HTML file that needs no network, for the screen of a phone as well, light or dark.

    handloom bench --report out                      the page of this run
    python -m handloom.bench.report FILE OUT         of one that was stored with --json

charts.py draws, page.html says the rest.
"""

import itertools
from importlib.util import find_spec
from pathlib import Path

from ..measure import OURS, geometric_mean, verdict
from ..quiet import NOISY
from ..results import write_whole


def write(results: dict, folder: Path) -> Path:
    """The page's path, `folder`/index.html: there as a whole, or as it was before."""
    path = folder / "index.html"
    write_whole(path, page(results))
    return path


def check_libraries() -> None:
    """ModuleNotFoundError where what draws and fills the page is missing."""
    if missing := [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]:
        raise ModuleNotFoundError(f"bench: --report needs {' and '.join(missing)}: pip install 'handloom[plot]'")


def page(results: dict) -> str:
    """The page's text."""
    check_libraries()
    import jinja2
    from markupsafe import Markup, escape

    from . import charts

    numbers = itertools.count()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "figure": _figure,
        "ratio": lambda ratio: "" if ratio is None else f"{ratio:.2f}",
        "share": lambda share: "" if share is None else f"{100 * share:.0f} %",
        "inline": lambda chart, label: Markup(charts.inline(chart, f"c{next(numbers)}", escape(label))),
    }
    return environment.get_template("page.html").render(**_contents(results))


def _contents(results):
    """What the template has to know."""
    from . import charts

    rows = results["rows"]
    good = [row for row in rows if not row["wrong"]]
    judged = [row for row in good if row["default"] and row["ratio"]]
    points = [row for row in good if row["flops"] and row["bytes"]]
    spread = results["spread of a fixed loop"]
    return {
        "results": results,
        "machine": results["machine"],
        "title": results["machine"].get("processor") or results["machine"].get("device", "this machine"),
        "rows": rows,
        "cases": len({(row["name"], row["dtype"]) for row in rows}),
        "wrong": [row for row in rows if row["wrong"]],
        "count": {name: sum(verdict(row["ratio"]) == name for row in judged) for name in ("ahead", "level", "behind")},
        "mean": geometric_mean([row["ratio"] for row in judged]) if judged else None,
        "peers": sorted({name.split()[0] for row in judged for name in row["us"] if name != OURS}),
        "spread": spread,
        "noisy": spread is not None and spread > NOISY,
        "programs": [(row, charts.candidates(row)) for row in good if row["family"] == "programs" and row["default"]],
        "rooflines": [charts.roofline(points, results["limits"], wide) for wide in (True, False)] if points else [],
        "ladders": [(rungs, charts.ladder(rungs)) for rungs in _ladders(rows)],
        "against": [(family, charts.ratios(found)) for family, found in _families(judged)],
        "limits": _limits(results["limits"]),
    }


def _ladders(rows):
    """Rows of the same name, where there are several, and one of them at least has a time."""
    found = {}
    for row in rows:
        found.setdefault((row["name"], row["dtype"]), []).append(row)
    return [rungs for rungs in found.values() if len(rungs) > 1 and any(row["us"] for row in rungs)]


def _families(rows):
    found = {}
    for row in rows:
        found.setdefault(row["family"], []).append(row)
    return found.items()


def _limits(limits):
    """(what, {number of threads: figure}) for each limit, a level a line."""
    for title, value in limits.items():
        if isinstance(value, dict) and value and isinstance(next(iter(value.values())), dict):
            yield from ((f"{title}: {level}", by_threads) for level, by_threads in value.items())
        elif isinstance(value, dict):
            yield title, value
        elif value is not None:
            yield title, {"": value}


def _figure(value) -> str:
    """Three digits or more, none where there is nothing."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
