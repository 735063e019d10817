"""The README's tables and docs/ladders are those of the stored results, and are made from them by a command."""

import copy
import json
import re
from pathlib import Path

import pytest

from handloom import kernels
from handloom.bench import results, rungs, tables
from handloom.bench.cases import every

RESULTS = results.load(tables.RESULTS)


def test_the_readme_has_the_stored_results():
    text = tables.README.read_text(encoding="utf-8")
    assert tables.rewrite(text, RESULTS) == text, "run: make tables"


def test_the_ladders_are_those_of_the_stored_results():
    pages = tables.ladders(RESULTS)
    assert {path.name for path in tables.LADDERS.glob("*.md")} == set(pages), "run: make tables"
    for name, text in pages.items():
        assert (tables.LADDERS / name).read_text(encoding="utf-8") == text, "run: make tables"
        for link in re.findall(r"\]\(([^)]*)\)", text):
            assert (tables.LADDERS / link).is_file(), link


def titles(svg):
    """What each point says of itself; the rest of a picture differs between versions of matplotlib."""
    return re.findall("<title>([^<]*)</title>", svg)


def test_the_pictures_are_those_of_the_stored_results():
    pytest.importorskip("matplotlib")
    pictures = tables.pictures(RESULTS)
    assert {path.name for path in tables.LADDERS.glob("*.svg")} == set(pictures), "run: make tables"
    for name, svg in pictures.items():
        assert titles((tables.LADDERS / name).read_text(encoding="utf-8")) == titles(svg), "run: make tables"
        assert f"]({name})" in (tables.LADDERS / name).with_suffix(".md").read_text(encoding="utf-8")
    rungs = [row for row in RESULTS["rows"] if row["name"] == "matmul/256x256x256"]
    shown = titles(pictures["matmul.svg"])
    assert len(shown) == len(rungs) and not re.search("var\\(|#0102|#0103", pictures["matmul.svg"])
    for row in rungs:
        at = f"{row['gflops']:.3g} GFLOP/s, {row['flops'] / row['bytes']:.3g} operations a byte"
        assert f"{row['name']}, {row['variant']}: {at}" in shown


def test_every_rung_that_is_measured_has_a_source_an_idea_and_a_prediction():
    for op in {case.op for case in every() if case.ladder}:
        first, *others = kernels.VARIANTS[op]["cpu"]
        assert list(rungs.RUNGS[op]) == [first, *others], op
        for name, rung in rungs.RUNGS[op].items():
            path, function = rung.source.split(":")
            source = (Path(kernels.__file__).parent / path).read_text(encoding="utf-8")
            assert re.search(rf"^def {function}\(", source, re.MULTILINE), rung.source
            assert rung.idea and (name == first) == (rung.gain is None) == (not rung.why)
            assert rung.gain is None or rung.gain(16, 2) > 0
    assert "softmax" in rungs.RUNGS


def test_a_prediction_stands_beside_the_cases_that_it_is_meant_for():
    _, one, many, *_ = tables.ladders(RESULTS)["conv2d_max_pool2d.md"].split("\n## ")
    for text, direct, winograd in (one, "1.3", ""), (many, "", "4.0"):
        rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
        predicted = {row[1]: row[3] for row in rows}
        assert predicted["direct"] == direct and predicted["winograd"] == winograd


def test_a_rung_that_nothing_is_said_of_is_an_error(monkeypatch):
    monkeypatch.delitem(rungs.RUNGS["matmul"], "packed")
    with pytest.raises(ValueError, match="tables: nothing is said of the rung 'packed' of matmul: add it to"):
        tables.ladders(RESULTS)


def test_what_was_not_measured_says_so():
    found = copy.deepcopy(RESULTS)
    found["rows"] = [row for row in found["rows"] if row["op"] != "softmax" and row["variant"] != "packed"]
    pages = tables.ladders(found)
    assert "| threaded | not measured yet | 2.0 |  |  |  |" in pages["softmax.md"].splitlines()
    assert "To measure: `handloom bench --only softmax/forward/1024x1000`" in pages["softmax.md"]
    assert "softmax.svg" not in pages["softmax.md"]
    assert "| packed | not measured yet | 2.4 |  |  |  |" in pages["matmul.md"].splitlines()
    alone = next(row for row in RESULTS["rows"] if row["name"] == "softmax/forward/1024x1000")
    found["rows"].append(alone | {"variant": "simd", "default": True})  # from before there was a ladder
    assert "| simd | not measured yet |" in tables.ladders(found)["softmax.md"]


def test_every_stored_row_is_somewhere():
    text = tables.tables(RESULTS) + "".join(tables.ladders(RESULTS).values())
    for row in RESULTS["rows"]:
        assert row["wrong"] is None and row["us"]["handloom"] > 0
        assert row["name"] in text
        assert not row["default"] or row["ratio"] is None or f"{row['ratio']:.2f}" in text
    others = [row for row in RESULTS["rows"] if not row["default"]]
    assert others and all(f"| {row['variant']} | {tables._us(row['us']['handloom'])} | " in text for row in others)
    assert RESULTS["complete"] and RESULTS["machine"]["commit"] and RESULTS["machine"]["date"] in text


def test_a_ladder_says_what_each_rung_gains():
    def row(variant, us, **more):
        figures = {"us": {"handloom": us, "numpy": 10.0}, "gflops": 4.0 / us, "gbs": 1.0, "share": 0.5, "wrong": None}
        figures |= {"limit": "L1", "ratio": 0.5, "default": variant == "threaded"}
        names = {"name": "matmul/8x8x8", "op": "matmul", "case": "8x8x8", "dtype": "float32", "command": "again"}
        return names | figures | {"variant": variant, **more}

    rows = [row("naive", 1200.0), row("blocked", 600.0), row("packed", 40.0, wrong="differs")]
    rows += [row("simd", 80.0), row("threaded", 40.0)]
    found = {"rows": [*rows, row("simd", 1.0, name="dense/8", op="dense")], "machine": RESULTS["machine"]}
    pages = tables.ladders(found)
    assert "matmul.md" in pages and "dense.md" not in pages, "one rung is no ladder"
    lines = pages["matmul.md"].split("## matmul/8x8x8, float32")[1].splitlines()
    assert "| naive | 1,200 |  |  | 0.0 | 50.0 |" in lines and "| blocked | 600 | 4.0 | 2.0 | 0.0 | 50.0 |" in lines
    assert "| packed | not measured yet | 2.4 |  |  |  |" in lines, "a wrong one has no time"
    lanes = RESULTS["machine"]["vector bytes"] // 4
    assert f"| simd | 80.0 | {lanes if lanes >= 10 else float(lanes)} |  | 0.1 | 50.0 |" in lines, (
        "nothing to compare with"
    )
    assert "| threaded | 40.0 | 2.0 | 2.0 | 0.1 | 50.0 |" in lines
    assert "Peers: numpy 10.0. Again: `again`" in lines and "kernels/gemm/cpu/__init__.py" in pages["matmul.md"]


def test_the_command_without_what_draws_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="tables: the pictures need matplotlib: pip install"):
        tables.main(["--ladders", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_command_rewrites_what_lies_between_the_marks_alone(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n", encoding="utf-8")
    options = ["--results", str(tmp_path / "results.json"), "--file", str(page), "--ladders", str(tmp_path / "ladders")]
    for _ in range(2):
        assert tables.main(options) == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert tables.tables(RESULTS) in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ladders", "page.md", "results.json"]
    written = set(tables.ladders(RESULTS)) | set(tables.pictures(RESULTS))
    assert {path.name for path in (tmp_path / "ladders").iterdir()} == written


@pytest.mark.parametrize("text, missing", [("", tables.BEGIN), (tables.BEGIN, tables.END)])
def test_a_page_without_marks_is_refused(text, missing):
    with pytest.raises(ValueError, match=re.escape(f"tables: the text has no {missing}: put both")):
        tables.rewrite(text, RESULTS)
