"""The Makefile: what `make help` lists, and what it says to somebody whose Python will not do."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = ROOT / "Makefile"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(*arguments, cwd):
    """Run make in a folder that holds the Makefile and what it depends on."""
    for file in (MAKEFILE, ROOT / "pyproject.toml"):
        shutil.copy(file, cwd)
    # These tests may themselves run under make, whose own settings are none of this one's.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(["make", *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def python(folder, answer):
    """A program that takes the place of Python: a shell script."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return f"PYTHON={program}"


@pytest.mark.parametrize("arguments", [(), ("help",)])
def test_help_lists_every_command(arguments, tmp_path):
    done = make(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE.read_text(), re.MULTILINE)[1].split()
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["make", command] for command in phony]


@pytest.mark.parametrize(
    "answer, complaint",
    [
        ('case "$2" in *version_info*) exit 1;; esac; echo Python 3.9.1', "3.11, 3.12 or 3.13, and .* is Python 3.9.1"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "its venv module is missing.*sudo apt install python3-venv"),
    ],
)
def test_an_unfit_python_is_refused_in_a_sentence(answer, complaint, tmp_path):
    done = make("test", python(tmp_path, answer), cwd=tmp_path)
    assert done.returncode != 0
    assert re.search(complaint, done.stdout)
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / ".venv").exists()


def test_a_missing_python_is_named(tmp_path):
    done = make("test", "PYTHON=no-such-python", cwd=tmp_path)
    assert done.returncode != 0
    assert "there is no no-such-python" in done.stdout
