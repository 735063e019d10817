"""What is said of the machine: its limits, and whether it was quiet. No test asks how fast it is."""

import json

import numpy as np
import pytest

from handloom import bench
from handloom.bench.quiet import Quiet
from handloom.kernels import limits, simd


@pytest.mark.parametrize("threads", [1, 2])
def test_every_limit_is_measured_for_every_level_and_number_of_threads(short, threads):
    found = limits.measure(threads)
    counts = [1, 2][:threads]
    assert list(found["multiply-adds, GFLOP/s"]) == counts
    for title in ("copy, GB/s", "triad, GB/s"):
        assert list(found[title]) == [*limits.cache_sizes(), "memory"]
        for by_threads in found[title].values():
            assert list(by_threads) == counts and all(np.isfinite(value) and value > 0 for value in by_threads.values())
    assert (found["parallel region, us"] is None) == (threads == 1) and found["launch, us"] > 0
    assert all(title in "\n".join(limits.lines(found)) for title, value in found.items() if value is not None)


LIMITS = {
    "multiply-adds, GFLOP/s": {1: 100.0, 2: 200.0},
    "copy, GB/s": {"L1": {1: 400.0, 2: 800.0}, "L2": {1: 100.0, 2: 200.0}, "memory": {1: 10.0, 2: 15.0}},
}


def test_a_roofline_is_the_larger_of_arithmetic_and_traffic(monkeypatch):
    monkeypatch.setattr(limits, "cache_sizes", lambda: {"L1": 1000, "L2": 100_000})
    assert limits.attainable(LIMITS, 1, 1e9, 1) == (pytest.approx(0.01), "multiply-adds")
    assert limits.attainable(LIMITS, 2, 1e9, 1, itemsize=8) == (pytest.approx(0.01), "multiply-adds")
    assert limits.attainable(LIMITS, 1, 0, 800) == (pytest.approx(2e-9), "L1")
    assert limits.attainable(LIMITS, 1, 0, 1001) == (pytest.approx(1.001e-8), "L2")
    assert limits.attainable(LIMITS, 2, 0, 1001) == (pytest.approx(1001 / 800e9), "L1")  # two cores have two
    assert limits.attainable(LIMITS, 2, 0, 10**6) == (pytest.approx(10**6 / 15e9), "memory")


def test_the_loops_do_what_they_are_timed_for():
    x, z = (np.linspace(low, 1, 4 * limits._X.size, dtype=np.float32) for low in (0, -1))
    for launch, expected in ((limits._copy, x), (limits._triad, x + 3 * z)):
        y = np.zeros_like(x)
        launch.in_turn(2, x, z, y, x.size // 2, 3)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)  # a fused sum near zero has digits of its own
    out, lanes = np.zeros(limits._X.size, np.float32), simd.VECTOR_BYTES // 4
    limits._multiply_add.in_turn(1, limits._X, out, 5)
    s = np.zeros(lanes)
    for _ in range(5):
        s = s * limits._X[:lanes] + limits._X[lanes:]
    np.testing.assert_allclose(out[:lanes], limits.SUMS * s, rtol=1e-5)


def test_cache_sizes_are_the_systems(tmp_path):
    for index, texts in enumerate((("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "3", "32M"))):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in zip(("type", "level", "size"), texts):
            (folder / name).write_text(f"{text}\n")
    assert limits.cache_sizes(tmp_path) == {"L1": 48 << 10, "L3": 32 << 20}
    assert list(limits.cache_sizes(tmp_path / "none")) == ["L1", "L2", "L3"]


def test_a_machine_is_noisy_where_the_fixed_loop_spreads():
    quiet = Quiet(1)
    quiet.seconds = [1.0] * 80 + [1.05] * 20
    assert quiet.spread == pytest.approx(0.05) and not quiet.noisy
    quiet.seconds = [1.0] * 80 + [1.2] * 20
    assert quiet.noisy


def test_limits_and_quiet_are_printed_and_stored(short, tmp_path, capsys):
    assert bench.main(["--only", "limits", "--threads", "1", "--json", str(tmp_path / "found.json")]) == 0
    text = capsys.readouterr().out
    assert "multiply-adds, GFLOP/s: " in text and "a fixed loop of multiply-adds spread by" in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["schema"] == 3 and found["rows"] == [] and found["spread of a fixed loop"] >= 0
    assert set(found["limits"]["multiply-adds, GFLOP/s"]) == {"1"}
