"""The page of a run: everything is in it, nothing is loaded, whatever came in is escaped."""

import copy
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from handloom import bench
from handloom.bench import report, results, tables
from handloom.bench.quiet import NOISY

pytest.importorskip("matplotlib")
STORED = results.load(tables.RESULTS)
EMPTY = {"base", "br", "hr", "img", "link", "meta", "path", "use", "rect", "circle"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers ids, what would be loaded, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.loads, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in EMPTY:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "srcset"):
                self.loads.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def some(**changes):
    """A short run: each case of the stored one that has a ladder, and its neighbours."""
    found = copy.deepcopy(STORED)
    found["rows"] = found["rows"][:12] + found["rows"][-6:]
    return found | changes


def test_everything_is_on_the_page_and_nothing_is_loaded():
    text = report.page(STORED)
    page = Page(text)
    shown = " ".join(" ".join(page.text).split())
    assert all(row["name"] in shown and row["command"] in shown and row["variant"] in shown for row in STORED["rows"])
    assert len(set(page.ids)) == len(page.ids) > 100
    assert all(load.startswith("#") and load[1:] in page.ids for load in page.loads)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", text)) and "@import" not in text
    assert "<script" not in text and text.count("<svg") > 20 and not re.search("#0[01]0[123]", text)
    ratios = [row["ratio"] for row in STORED["rows"] if row["default"] and row["ratio"]]
    assert f"{sum(ratio < 0.95 for ratio in ratios)} behind the best peer" in shown
    assert f"{sum(ratio > 1.05 for ratio in ratios)} ahead of the best peer" in shown
    assert STORED["machine"]["processor"] in shown and "copy, GB/s: L2" in shown
    assert all(name in shown and words in shown for name, words in STORED["method"])
    noisy = STORED["spread of a fixed loop"] > NOISY
    assert ("The machine was quiet" in shown) != noisy and ("run again on a quiet one" in shown) == noisy
    assert "WRONG" not in shown and "interrupted" not in shown


def test_what_went_wrong_is_loud():
    found = some(complete=False, **{"spread of a fixed loop": 0.4, "not measured": ["jax: not installed"]})
    found["rows"][3] |= {"wrong": "differs by 1", "us": {}, "p20_p80": {}, "cpu_us": {}, "first_s": {}}
    text = " ".join(Page(report.page(found)).text)
    assert "WRONG: 1" in text and "differs by 1" in text and "was interrupted" in text
    assert "The machine was noisy" in text and "jax: not installed" in text


def test_what_comes_in_is_escaped():
    found = some()
    found["machine"]["processor"] = found["rows"][0]["name"] = found["rows"][1]["command"] = "<b>&'\"</b>"
    found["rows"][5]["name"] = "a<i>"  # in a chart
    text = report.page(found)
    Page(text)
    assert "<b>&'" not in text and "a<i>" not in text and "&lt;b&gt;&amp;" in text


def bare(found):
    for row in found["rows"]:
        row |= {"us": {"handloom": row["us"]["handloom"]}, "ratio": None, "gflops": None, "share": None, "limit": None}
        row |= {"flops": 0, "cpu_us": {}, "first_s": {}}


def one_row(found):
    del found["rows"][1:]


def no_limits(found):
    found["limits"] = {"multiply-adds, GFLOP/s": {}, "copy, GB/s": {}, "launch, us": None}
    found["spread of a fixed loop"] = None


@pytest.mark.parametrize("change", [lambda found: found["rows"].clear(), bare, one_row, no_limits])
def test_odd_runs_have_pages_too(change):
    found = some()
    change(found)
    text = report.page(found)
    Page(text)
    assert all(row["command"] in text for row in found["rows"])


def test_a_run_on_a_gpu_has_a_page():
    from handloom.bench.gpu import rows
    from handloom.bench.gpu.worker import row

    figures = {"mode": "float32", "p20_p80": [90.0, 110.0], "peers_us": {"cuBLAS": 80.0}}
    told = [
        row("copy of 268 MB", "ok", us=1.0, gbs=2000.0),
        row("peak of float32", "ok", us=1.0, gflops=50_000.0),
        row("launch of an empty kernel", "ok", us=4.0),
        *(
            row("matmul 1024^3", "ok", variant=name, us=us, gflops=2e6 / us, gbs=1e4 / us, **figures)
            for name, us in (("naive", 900.0), ("vectors", 100.0))
        ),
        row("softmax", "ok", variant="online", us=100.0, gbs=1000.0, **figures),
        row("relu", "fault", "the process ended with status 9"),
    ]
    found = rows.gather({"device": "a GPU <1>", "date": "2026-11-24", "versions": {}}, told, True)
    text = " ".join(Page(report.page(found)).text)
    assert "handloom on a GPU <1>" in text and "2 behind the best peer" in text and "WRONG: 1" in text
    assert "multiply-adds 50,000 GFLOP/s" in text and "memory 2,000 GB/s" in text and "naive" in text


def test_the_same_run_gives_the_same_page():
    first, second = (re.sub(r"\bc\d+-", "", report.page(some())) for _ in range(2))
    assert first == second


def test_the_commands_write_it(toy, tmp_path, capsys):
    stored, out = tmp_path / "found.json", tmp_path / "out"
    options = ["--only", "matmul", "--peers", "none", "--threads", "1", "--json", str(stored), "--report", str(out)]
    assert bench.main(options) == 0
    assert f"written to {out / 'index.html'}" in capsys.readouterr().out
    assert [file.name for file in out.iterdir()] == ["index.html"]
    again = tmp_path / "again"
    command = [sys.executable, "-m", "handloom.bench.report", str(stored), str(again)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"written to {again / 'index.html'}\n", done.stderr
    assert "matmul/17x19x23" in (again / "index.html").read_text()
    done = subprocess.run([*command[:3], str(out / "index.html"), "x"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "holds no results" in done.stderr


def test_without_the_libraries_nothing_is_run(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "jinja2" else object())
    monkeypatch.setattr(bench.command, "_run", lambda *args: pytest.fail("it ran"))
    assert bench.main(["--report", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "bench: --report needs jinja2: pip install 'handloom[plot]'\n"
    assert list(tmp_path.iterdir()) == []
