"""The `handloom` command: each subcommand, its output and its errors."""

import re

import pytest
from processes import run

from handloom import cli, info
from handloom.kernels import jit


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDLOOM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_command_it_says_what_there_is(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("demo", "bench", "gpu-check", "info", "warmup", "cache"))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"handloom \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["demo", "bench", "gpu-check", "info", "warmup", "cache"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"handloom {command}" in capsys.readouterr().out


def test_unknown_commands_and_options_are_errors(capsys):
    for argv, complaint in (
        (["wave"], "invalid choice: 'wave'"),
        (["info", "--all"], "unrecognized arguments: --all"),
        (["demo", "--all"], "unrecognized arguments: --all"),
        (["demo", "--seeds", "0"], "--seeds must be at least 1, got 0"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(argv)
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err


def test_info_describes_the_machine(capsys, cache):
    assert cli.main(["info"]) == 0
    out = capsys.readouterr().out
    for title in ("processor", "features", "vectors", "cores", "threads", "cache", "gpu", "python", "versions"):
        assert re.search(rf"^{title} ", out, re.MULTILINE), title
    assert re.search(r"vectors +\d+ bits: \d+ float32 or \d+ float64", out)
    assert "threading layer" in out and re.search(r"^gpu +(none: there is|cuda:0) ", out, re.MULTILINE)
    assert info.facts()["cache"] == f"{cache} (empty)"


def test_cache_shows_its_folder_and_empties_it(capsys, cache):
    folder = cache / f"{jit.source_hash(__file__)}-{jit.machine_hash()}"
    folder.mkdir(parents=True)
    (folder / "kernel.bin").write_bytes(bytes(1_500_000))
    (folder / "kernel.cubin").write_bytes(bytes(500_000))
    (folder / "kernel.lock").touch()
    (cache / "datasets").mkdir()
    assert info.facts()["cache"] == f"{cache} (2 compiled kernels, 2.0 MB)"
    assert cli.main(["cache"]) == 0
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"{cache}\nremoved 2 compiled kernels from {cache}\n"
    assert [path.name for path in cache.iterdir()] == ["datasets"]  # not its own, so it stays


def test_an_interrupt_ends_a_command_with_a_line(monkeypatch, capsys):
    def interrupt(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_info", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "handloom: interrupted\n"


def test_bench_gets_its_own_options(monkeypatch):
    seen = []
    monkeypatch.setattr("handloom.bench.main", lambda argv: seen.append(argv) or 3)
    assert cli.main(["bench", "--only", "matmul", "--quick"]) == 3
    assert seen == [["--only", "matmul", "--quick"]]


def test_gpu_check_gets_its_own_options(monkeypatch):
    seen = []
    monkeypatch.setattr("handloom.bench.gpu.main", lambda argv: seen.append(argv) or 2)
    assert cli.main(["gpu-check", "--quick", "--cubins", "folder"]) == 2
    assert seen == [["--quick", "--cubins", "folder"]]


def test_warmup_for_a_gpu_has_options_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr("handloom.bench.gpu.cubins.warmup", lambda *given: seen.append(given) or 1)
    assert cli.main(["warmup", "--device", "cuda", "--arch", "sm_80", "--arch", "sm_90a", "--out", "there"]) == 1
    assert cli.main(["warmup", "--device", "cuda"]) == 1
    assert seen == [(["sm_80", "sm_90a"], "there"), (["sm_90a"], "cubins")]
    with pytest.raises(SystemExit, match="--arch and --out belong to --device cuda"):
        cli.main(["warmup", "--arch", "sm_80"])


def test_warmup_leaves_nothing_to_compile(tmp_path):
    """Through the command, into the cache that the other tests use."""
    warmup = "import sys\nfrom handloom.cli import main\nsys.exit(main(['warmup']))"
    out, _ = run(warmup, tmp_path, HANDLOOM_CACHE_DIR=None)
    assert [line.rsplit(maxsplit=2)[0] for line in out.splitlines()] == [
        "dense",
        "cnn",
        "lstm",
        "demo CNN",
        "demo LSTM",
    ]
    again = """
from handloom.bench.cases import programs
from handloom.cli import main
from handloom.examples import demo

demo.main(["--smoke"])
main(["warmup"])
programs.build("cnn").fit(*programs.data("cnn", steps=6), batch_size=32, verbose=0)
"""
    assert run(again, tmp_path, HANDLOOM_CACHE_DIR=None)[1] == ""
