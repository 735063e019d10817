"""The README's tables are those of the stored results, and are made from them by a command."""

import json
import re

import pytest

from handloom.bench import tables

RESULTS = json.loads(tables.RESULTS.read_text(encoding="utf-8"))


def test_the_readme_has_the_stored_results():
    text = tables.README.read_text(encoding="utf-8")
    assert tables.rewrite(text, RESULTS) == text, "run: make tables"


def test_every_stored_row_is_in_a_table():
    text = tables.tables(RESULTS)
    for row in RESULTS["rows"]:
        assert f"{row['ratio']:.2f}" in text and row["wrong"] is None
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 6 + 3 + 3 + 7  # heads, and as many rows as there are programs, products and convolutions


def test_the_command_rewrites_what_lies_between_the_marks_alone(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n", encoding="utf-8")
    for _ in range(2):
        assert tables.main(["--results", str(tmp_path / "results.json"), "--file", str(page)]) == 0
        text = page.read_text(encoding="utf-8")
        assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
        assert tables.tables(RESULTS) in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md", "results.json"]


@pytest.mark.parametrize("text, missing", [("", tables.BEGIN), (tables.BEGIN, tables.END)])
def test_a_page_without_marks_is_refused(text, missing):
    with pytest.raises(ValueError, match=re.escape(f"tables: the text has no {missing}: put both")):
        tables.rewrite(text, RESULTS)
