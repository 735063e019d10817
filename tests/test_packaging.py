"""What people install: the wheel and the sdist hold everything, and run where there is no checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
MOUNTS = PROJECT["tool"]["setuptools"]["package-dir"]


def run(*command, cwd):
    """Run a command away from the checkout, with nothing of it on the path; its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments, cwd):
    """Neither network nor a fresh build environment: what is needed is installed for the tests."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-index")
    return run(sys.executable, "-m", "pip", *arguments, *quiet, cwd=cwd)


def folder_of(package):
    """Where a package lies in the checkout: the nearest mount above it, and the rest of its name."""
    mount = max((name for name in MOUNTS if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(MOUNTS[mount], *package.removeprefix(mount).split(".")[1:])


def package_data():
    for package, names in PROJECT["tool"]["setuptools"]["package-data"].items():
        yield from (folder_of(package) / name for name in names)


def installed_name(path):
    """The path inside a wheel of a file of the checkout."""
    package = max((name for name in PACKAGES if path.is_relative_to(folder_of(name))), key=len)
    return "/".join([*package.split("."), path.relative_to(folder_of(package)).as_posix()])


def sources():
    return [file for mount in MOUNTS.values() for file in (ROOT / mount).rglob("*.py")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist made from a copy of the checkout, and the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("built")
    junk = shutil.ignore_patterns(".git", ".venv*", "*.egg-info", "build", "dist", "__pycache__", ".*_cache", "results")
    shutil.copytree(ROOT, folder / "copy", ignore=junk)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    run(sys.executable, "-c", build, cwd=folder / "copy")
    (sdist,) = folder.glob("*.tar.gz")
    pip("wheel", sdist, "--no-build-isolation", "--wheel-dir", folder, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The programs of an environment that holds the wheel, and the test environment's packages behind it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", built[1], cwd=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # As a plain path: an editable install of the checkout takes effect only where its own .pth file is read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_list_of_packages_is_the_tree():
    found = set()
    for name, mount in MOUNTS.items():
        for file in (ROOT / mount).rglob("__init__.py"):
            found.add(".".join([name, *file.parent.relative_to(ROOT / mount).parts]))
    assert sorted(found) == sorted(PACKAGES)


def test_every_source_belongs_to_a_package():
    assert not [file for file in sources() if not (file.parent / "__init__.py").exists()]


def test_core_dependencies():
    names = [requirement.split(">")[0] for requirement in PROJECT["project"]["dependencies"]]
    assert names == ["numpy", "numba", "rich", "safetensors"]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert {"cuda12", "cuda13", "plot", "data", "peers", "test"} <= set(PROJECT["project"]["optional-dependencies"])


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        meta = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
        licence = wheel.read(next(name for name in names if name.endswith("LICENSE"))).decode()
        entry_points = wheel.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    content = {name for name in names if ".dist-info/" not in name}
    assert content == {installed_name(file) for file in [*sources(), *package_data()]}
    assert "handloom = handloom.cli:main" in entry_points
    assert "License-Expression: Apache-2.0" in meta
    assert "Apache License" in licence and "Version 2.0" in licence


def test_the_sdist_holds_what_the_wheel_is_made_from(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = [*sources(), *package_data(), *(ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE"))]
    assert {file.relative_to(ROOT).as_posix() for file in needed} <= names


PROGRAM = """
import sys
import numpy as np
import handloom
from handloom import kernels, nn
from handloom.nn.datasets import digits

assert handloom.__file__.startswith(sys.prefix), handloom.__file__
(x, y), _ = digits.load_data()
model = nn.Sequential([nn.Dense(10, activation="softmax", input_dim=64)])
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
losses = model.fit(x[:320].reshape(320, 64) / 16, y[:320], epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0]
assert (kernels.matmul(np.eye(3), np.ones((3, 2))) == 1).all()
print(handloom.__version__)
"""


def test_the_wheel_runs_in_an_empty_folder(installed, tmp_path):
    assert run(installed / "python", "-c", PROGRAM, cwd=tmp_path).strip() == PROJECT["project"]["version"]


def test_the_command_runs_in_an_empty_folder(installed, tmp_path):
    version = PROJECT["project"]["version"]
    assert run(installed / "handloom", "--version", cwd=tmp_path) == f"handloom {version}\n"
    assert run(installed / "python", "-m", "handloom", "--version", cwd=tmp_path) == f"handloom {version}\n"
    assert "vectors" in run(installed / "handloom", "info", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_typed_marker_and_data_are_readable(installed, tmp_path):
    code = (
        "from importlib.resources import files; root = files('handloom'); "
        "print(root.joinpath('py.typed').is_file(), root.joinpath('nn/datasets/digits.txt').is_file())"
    )
    assert run(installed / "python", "-c", code, cwd=tmp_path) == "True True\n"
