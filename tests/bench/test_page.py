"""The charts of a run's page: what they show of losses and of what went wrong, and that the run alone decides."""

import copy
import re

import pytest

from handloom.bench import report, results, tables

matplotlib = pytest.importorskip("matplotlib")
from handloom.bench.report import charts  # noqa: E402

STORED = results.load(tables.RESULTS)
NOTHING = {"us": {}, "p20_p80": {}, "cpu_us": {}, "first_s": {}, "gflops": None, "gbs": None, "share": None}


def some(count=12):
    """A short run: a ladder among its rows."""
    return copy.deepcopy(STORED) | {"rows": copy.deepcopy(STORED["rows"][:count])}


def texts(svg):
    """What a chart says, in the order in which it is drawn."""
    return [" ".join(text.split()) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_the_same_run_gives_the_same_page_whatever_the_users_style():
    first = report.page(some())
    with matplotlib.rc_context({"axes.linewidth": 9, "font.size": 30, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert report.page(some()) == first
        assert dict(matplotlib.rcParams) == before


def test_losses_come_first_and_the_best_peer_is_named():
    rows = [row for row in STORED["rows"] if row["default"] and row["ratio"]]
    shown = [text for text in texts(charts.ratios(rows)) if text.endswith("×")]
    found = [float(text.split()[-2]) for text in shown]
    assert len(found) == len(rows) and found == sorted(found) and found[0] < 0.95 < 1.05 < found[-1]
    worst = min(rows, key=lambda row: row["ratio"])
    assert shown[0].startswith(min(set(worst["us"]) - {"handloom"}, key=worst["us"].get))


def test_a_ratio_beyond_the_edge_keeps_its_figure():
    row = some(1)["rows"][0] | {"us": {"handloom": 1.0, "torch": 700.0}, "ratio": 700.0}
    assert "torch 700.00 ×" in texts(charts.ratios([row]))


def test_a_wrong_rung_keeps_its_place_and_the_next_has_no_gain():
    rungs = [row for row in some()["rows"] if row["name"] == "matmul/256x256x256"]
    assert [row["variant"] for row in rungs] == ["naive", "blocked", "packed", "simd", "threaded"]
    assert sum(text.endswith("×") for text in texts(charts.ladder(rungs))) == 4
    rungs[2] |= NOTHING | {"wrong": "differs", "ratio": None}
    shown = texts(charts.ladder(rungs))
    assert "packed" in shown and shown.count("WRONG") == 1
    assert sum(text.endswith("×") for text in shown) == 2  # blocked's, threaded's


def test_a_ladder_without_any_time_is_left_out():
    found = some()
    for row in found["rows"]:
        row |= NOTHING | {"wrong": "differs", "ratio": None}
    assert "<svg" not in report.page(found)


@pytest.mark.parametrize("name", ["a$^b$c", "a$\\frac$c", 'an id="x" url(#y)', "#010203"])
def test_a_name_stands_in_charts_as_it_is(name):
    found = some(1)
    found["rows"][0] |= {"name": name, "ratio": 1.2}
    assert name in texts(report.page(found))


def test_every_point_of_the_roofline_has_a_title_and_names_do_not_collide():
    rows = [row for row in STORED["rows"] if row["flops"] and row["bytes"]]
    for wide in (True, False):
        svg = charts.inline(charts.roofline(rows, STORED["limits"], wide=wide), "c0", "roofline")
        titles = re.findall(r"<g><title>([^<]*)</title>", svg)
        assert len(titles) == len(rows) and all(any(row["name"] in title for title in titles) for row in rows)
        named = {text for text in texts(svg) if text.startswith(("matmul", "lstm ", "conv2d "))}
        assert bool(named) is wide


def test_boxes_overlap_where_they_share_a_place():
    box = (0, 0, 2, 2)
    assert charts._overlap(box, (1, 1, 3, 3)) and charts._overlap((1, 1, 3, 3), box)
    assert not charts._overlap(box, (2, 0, 4, 2)) and not charts._overlap(box, (0, 3, 2, 4))


def test_families_that_are_new_are_drawn_too():
    found = some()
    for row in found["rows"]:
        row["family"] = "attention"
    assert "attention" in texts(report.page(found))


def test_ceilings_are_of_all_threads_and_of_every_arithmetic():
    limits = {
        "multiply-adds, GFLOP/s": {"1": 100.0, "2": 190.0},
        "TF32 on tensor cores, GFLOP/s": {"all": 900.0},
        "copy, GB/s": {"L1": {"1": 50.0, "2": 90.0}},
        "launch, us": None,
    }
    peaks = {"multiply-adds": 190.0, "TF32 on tensor cores": 900.0}
    assert charts.ceilings(limits, {"float32"}) == (peaks, {"L1": 90.0})
    assert charts.ceilings(limits, {"float64"})[0] == peaks | {"multiply-adds in float64": 95.0}
    assert charts.ceilings({}, {"float64"}) == ({}, {})


def test_what_is_missing_is_not_shown():
    found = some() | {"limits": {}}
    found["machine"]["commit"] = None
    text = report.page(found)
    assert "None" not in text and "<dt>commit" not in text and "Roofline" in text


def test_a_browser_is_told_to_load_nothing():
    text = report.page(some())
    assert "default-src 'none'" in text and "<style type" not in text


def test_ratios_near_1_can_be_told_apart():
    found = some(1)
    found["rows"][0]["ratio"] = 1.04
    assert "<td>1.04</td>" in report.page(found)
