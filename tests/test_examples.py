"""Every example runs, learns something, and the demo leaves behind what it promises."""

import re
import sys
from importlib import import_module
from pathlib import Path

import fake_gpu
import numpy as np
import pytest
from processes import run

from handloom import cli, examples
from handloom.nn.models import load_model

FOLDER = Path(examples.__file__).parent
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "demo"))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name, capsys):
    losses = import_module(f"handloom.examples.{name}").main(["--smoke", "--device", "cpu"])
    assert len(losses) >= 2
    quarter = max(1, len(losses) // 4)
    assert np.mean(losses[-quarter:]) < 0.9 * np.mean(losses[:quarter])
    complaints = [line for line in capsys.readouterr().err.splitlines() if "compiling kernels" not in line]
    assert not complaints


@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_is_refused_with_a_reason(name, monkeypatch):
    fake_gpu.install(monkeypatch)
    with pytest.raises(ValueError, match="device 'cuda': there is no NVIDIA driver"):
        import_module(f"handloom.examples.{name}").main(["--smoke", "--device", "cuda"])


def test_the_demo_refuses_in_a_sentence(tmp_path, capsys, monkeypatch):
    fake_gpu.install(monkeypatch)
    (tmp_path / "file").touch()
    for options, complaint in (
        (["--device", "cuda", "--out", str(tmp_path / "new")], "there is no NVIDIA driver"),
        (["--device", "gpu", "--out", str(tmp_path / "new")], "device"),
        (["--out", str(tmp_path / "file")], "File exists"),
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(["demo", "--smoke", *options])
        assert end.value.code == 2
        assert complaint in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_an_example_runs_as_a_file(tmp_path):
    code = "import runpy, sys\nsys.argv = ['x', '--smoke', '--out', 'model.safetensors']\n"
    code += f"runpy.run_path({str(FOLDER / 'dense_quickstart.py')!r}, run_name='__main__')"
    out, _ = run(code, tmp_path, HANDLOOM_CACHE_DIR=None)
    assert "test accuracy" in out
    assert load_model(tmp_path / "model.safetensors").predict(np.zeros((1, 64)), verbose=0).shape == (1, 10)


def test_the_demo_leaves_models_and_curves(tmp_path, capsys):
    assert cli.main(["demo", "--smoke", "--out", str(tmp_path / "results")]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("Test accuracy", "mean", "seconds", "us a step", "CNN", "LSTM"))
    assert f"Everything lies in {tmp_path / 'results'}\n" in out
    files = {path.name: path for path in (tmp_path / "results").iterdir()}
    assert sorted(files) == ["cnn-curves.png", "cnn.safetensors", "lstm-curves.png", "lstm.safetensors"]
    assert files["cnn-curves.png"].read_bytes().startswith(b"\x89PNG")
    assert load_model(files["cnn.safetensors"]).predict(np.zeros((2, 28, 28, 1)), verbose=0).shape == (2, 10)
    assert load_model(files["lstm.safetensors"]).predict(np.zeros((2, 5, 8)), verbose=0).shape == (2, 10)


def test_the_demo_reaches_its_accuracies(tmp_path):
    """In full: three seeds of both networks take seconds."""
    from handloom.examples import demo

    runs = demo.main(["--out", str(tmp_path)])
    means = {name: np.mean([run.accuracy for run in of_task]) for name, of_task in runs.items()}
    assert means["CNN"] >= 0.96 and means["LSTM"] >= 0.94, means


def test_the_demo_does_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    from handloom.examples import demo

    runs = demo.main(["--smoke", "--out", str(tmp_path)])
    assert "no curves: History.plot: drawing needs matplotlib" in " ".join(capsys.readouterr().out.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cnn.safetensors", "lstm.safetensors"]
    assert all(
        run.history.history["loss"][-1] < run.history.history["loss"][0] for task in runs.values() for run in task
    )


ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/reading-order.md")


@pytest.mark.parametrize("page", PAGES)
def test_programs_in_the_pages_run(page, tmp_path):
    for program in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        run(program.replace("epochs=5", "epochs=1"), tmp_path, HANDLOOM_CACHE_DIR=None)


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))])
def test_links_between_files_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text())
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not ((ROOT / page).parent / link).exists()]
