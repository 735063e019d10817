"""Two runs side by side: a planted slowdown is found, and noise is passed over."""

import json

import numpy as np
import pytest

from handloom import bench
from handloom.bench import cases, results
from handloom.bench.compare import compare


def row(case, median, spread=0.04, wrong=None, variant="threaded"):
    low, high = median * (1 - spread), median * (1 + spread)
    figures = {} if wrong else {"us": {"handloom": median}, "p20_p80": {"handloom": [low, high]}}
    return {"name": case, "variant": variant, "dtype": "float32", "us": {}, "p20_p80": {}, "wrong": wrong} | figures


def run(*rows):
    return {"schema": results.SCHEMA, "rows": list(rows)}


def test_noise_is_passed_over():
    rng = np.random.default_rng(0)
    names = [f"matmul/{size}" for size in range(50)]
    noisy = [row(name, 100 * (1 + rng.uniform(-0.07, 0.07))) for name in names]
    assert compare(run(*noisy), run(*(row(name, 100.0) for name in names))) == ([], False)


def test_a_planted_slowdown_is_found_and_a_gain_is_said():
    before = run(row("a", 100.0), row("b", 50.0), row("c", 10.0), row("d", 9.0), row("f", 1.0, wrong="differs"))
    now = run(
        row("a", 101.0), row("b", 100.0), row("c", 5.0), row("d", 27.0), row("e", 1.0), row("f", 1.0),
        row("a", 300.0, variant="naive"), row("c", 1.0, wrong="differs"),
    )  # fmt: skip
    lines, slower = compare(now, before)
    assert slower and lines == [
        "d threaded: 9.0 -> 27.0 us, slower 3.00 x",
        "b threaded: 50.0 -> 100.0 us, slower 2.00 x",
        "c threaded: 10.0 -> 5.0 us, faster 2.00 x",
        "e threaded: new",
        "f threaded: new",
        "a naive: new",
        "c threaded: WRONG",
    ]


@pytest.mark.parametrize("factor, status", [(1.0, 0), (0.001, 1)])
def test_the_command_compares_and_its_status_says_what_came_of_it(factor, status, toy, tmp_path, capsys):
    path = tmp_path / "old.json"
    options = ["--only", "matmul", "--threads", "1", "--peers", "none"]
    assert bench.main([*options, "--json", str(path)]) == 0
    old = json.loads(path.read_text())
    for found in old["rows"]:
        low, high = found["p20_p80"]["handloom"]
        found["p20_p80"]["handloom"] = [low * factor / 100, high * factor * 100]  # as noisy as tests are
    path.write_text(json.dumps(old))
    capsys.readouterr()
    assert bench.main([*options, "--compare", str(path)]) == status
    assert ("slower" if status else "no difference outside the spread of both") in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"rows": [{}]}', '{"schema": 2, "rows": []}', '{"schema": 3, "rows": [{}]}']
)
def test_a_file_without_results_is_refused_before_anything_runs(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cases, "select", lambda *args: pytest.fail("it ran"))
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert bench.main(["--only", "matmul", "--compare", str(path)]) == 2
    assert f"bench: {path} holds no results" in capsys.readouterr().err
