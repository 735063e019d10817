"""The README's tables and docs/ladders are those of the stored results, and are made from them by a command."""

import json
import re

import pytest

from handloom.bench import results, tables

RESULTS = results.load(tables.RESULTS)


def test_the_readme_has_the_stored_results():
    text = tables.README.read_text(encoding="utf-8")
    assert tables.rewrite(text, RESULTS) == text, "run: make tables"


def test_the_ladders_are_those_of_the_stored_results():
    pages = tables.ladders(RESULTS)
    assert {path.name for path in tables.LADDERS.glob("*.md")} == set(pages), "run: make tables"
    for name, text in pages.items():
        assert (tables.LADDERS / name).read_text(encoding="utf-8") == text, "run: make tables"


def test_every_stored_row_is_somewhere():
    text = tables.tables(RESULTS) + "".join(tables.ladders(RESULTS).values())
    for row in RESULTS["rows"]:
        assert row["wrong"] is None and row["us"]["handloom"] > 0
        assert row["name"] in text
        assert not row["default"] or row["ratio"] is None or f"{row['ratio']:.2f}" in text
    rungs = [row for row in RESULTS["rows"] if not row["default"]]
    assert rungs and all(f"| {row['variant']} | " in text for row in rungs)
    assert RESULTS["complete"] and RESULTS["machine"]["commit"] and RESULTS["machine"]["date"] in text


def test_a_ladder_says_what_each_rung_gains():
    def row(variant, us, **more):
        figures = {"us": {"handloom": us, "numpy": 10.0}, "gflops": 4.0 / us, "gbs": 1.0, "share": 0.5, "wrong": None}
        figures |= {"limit": "L1", "ratio": 0.5, "default": variant == "threaded"}
        names = {"name": "matmul/8x8x8", "op": "matmul", "case": "8x8x8", "dtype": "float32", "command": "again"}
        return names | figures | {"variant": variant, **more}

    rows = [row("naive", 1200.0), row("packed", 40.0, wrong="differs"), row("simd", 80.0), row("threaded", 40.0)]
    found = {"rows": [*rows, row("simd", 1.0, name="dense/8", op="dense")], "machine": RESULTS["machine"]}
    pages = tables.ladders(found)
    assert list(pages) == ["README.md", "matmul.md"], "one rung is no ladder"
    lines = pages["matmul.md"].splitlines()
    assert "| naive | 1,200 |  | 0.0 | 50.0 |" in lines and "| simd | 80.0 | 15.0 | 0.1 | 50.0 |" in lines
    assert "| threaded | 40.0 | 2.0 | 0.1 | 50.0 |" in lines and not any("packed |" in line for line in lines)
    assert "Peers: numpy 10.0. Again: `again`" in lines and "kernels/gemm/cpu/__init__.py" in pages["matmul.md"]


def test_the_command_rewrites_what_lies_between_the_marks_alone(tmp_path):
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
    assert {path.name for path in (tmp_path / "ladders").iterdir()} == set(tables.ladders(RESULTS))


@pytest.mark.parametrize("text, missing", [("", tables.BEGIN), (tables.BEGIN, tables.END)])
def test_a_page_without_marks_is_refused(text, missing):
    with pytest.raises(ValueError, match=re.escape(f"tables: the text has no {missing}: put both")):
        tables.rewrite(text, RESULTS)
