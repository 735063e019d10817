"""Two runs side by side: a planted slowdown is found, and noise is passed over."""

import json
from pathlib import Path

import numpy as np
import pytest

from handloom import bench
from handloom.bench import compare, operations
from handloom.bench.operations import Row


def row(case, median, spread=0.04, wrong=None):
    return Row(
        "matmul", case, {"handloom": median}, {"handloom": (median * (1 - spread), median * (1 + spread))}, 1.0, wrong
    )


def stored(path: Path, rows) -> Path:
    found = [
        {"group": r.group, "case": r.case, "microseconds": r.microseconds, "p20_p80": r.spread, "wrong": r.wrong}
        for r in rows
    ]
    path.write_text(json.dumps({"schema": 2, "rows": found}))
    return path


def test_noise_is_passed_over(tmp_path):
    rng = np.random.default_rng(0)
    cases = [f"{size}^3" for size in range(50)]
    before = compare.load(stored(tmp_path / "old.json", [row(case, 100.0) for case in cases]))
    noisy = [row(case, 100 * (1 + rng.uniform(-0.07, 0.07))) for case in cases]
    assert compare.compare(noisy, before) == ([], False)


def test_a_planted_slowdown_is_found_and_a_gain_is_said(tmp_path):
    before = compare.load(
        stored(tmp_path / "old.json", [row("a", 100.0), row("b", 50.0), row("c", 10.0), row("d", 9.0)])
    )
    now = [
        row("a", 101.0),
        row("b", 100.0),
        row("c", 5.0),
        row("d", 27.0),
        row("e", 1.0),
        row("c", 1.0, wrong="differ"),
    ]
    lines, slower = compare.compare(now, before)
    assert slower and [line.split(maxsplit=2)[1] for line in lines] == ["d", "b", "c", "e", "c"]
    assert "9 -> 27 us: slower 3.00 x" in lines[0] and "50 -> 100 us: slower 2.00 x" in lines[1]
    assert "10 -> 5 us: faster 2.00 x" in lines[2] and lines[3].endswith("new") and lines[4].endswith("WRONG")


@pytest.mark.parametrize("old, status", [(100.0, 0), (50.0, 1)])
def test_the_command_compares_and_its_status_says_what_came_of_it(old, status, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(operations, "matmul_rows", lambda quick: [row("512^3", 100.0)])
    path = stored(tmp_path / "old.json", [row("512^3", old)])
    assert bench.main(["--only", "matmul", "--threads", "1", "--compare", str(path)]) == status
    expected = "slower 2.00 x" if status else "no difference outside the spread of both"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "", "[]", '{"rows": [{}]}'])
def test_a_file_without_results_is_refused_before_anything_runs(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(operations, "matmul_rows", lambda quick: pytest.fail("it ran"))
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert bench.main(["--only", "matmul", "--compare", str(path)]) == 2
    assert f"bench: {path} holds no results" in capsys.readouterr().err
