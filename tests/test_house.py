"""Rules of the house that a program can check: which way imports point, who may call BLAS, how a family is laid out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "nn", "bench", "examples", "handloom")
# What each room may not know of.
FORBIDDEN = {"kernels": {"nn", "bench", "examples", "cli"}, "nn": {"bench", "examples", "cli"}, "examples": {"cli"}}
BLAS_CALLS = {"dot", "vdot", "inner", "matmul", "einsum", "tensordot", "multi_dot"}
# Functions of CUDA kernels in which the lanes of a warp wait for each other.
TOGETHER = re.compile(
    r"(group|block)_(sum|highest|lowest)|add_up|(highest|lowest)_of|argmax|shfl_|sync(threads|warp)|mma_|ldmatrix"
)
ARRAY_PACKAGES = {"np", "numpy", "linalg"}

BUILDING_BLOCKS = {"simd", "ptx"}  # folders below kernels/ that hold no operation
FAMILIES = sorted(f.parent for f in (ROOT / "kernels").glob("*/__init__.py") if f.parent.name not in BUILDING_BLOCKS)
KERNEL_FILES = sorted((ROOT / "kernels").rglob("*.py"))
SHARED_BY_CUDA = {"reductions", "teams"}
CUDA_FILES = [f for f in KERNEL_FILES if "cuda" in str(f.relative_to(ROOT)) or f.stem in SHARED_BY_CUDA]
SOURCES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def module_of(path):
    """The full import name of a file: ("handloom", "kernels", "gemm", "cpu")."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return (*([] if parts[0] == "handloom" else ["handloom"]), *(part for part in parts if part != "__init__"))


def imports(path):
    """Full names of everything a file imports, wherever in it; relative ones resolved."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield ".".join([*base, *filter(None, [node.module]), alias.name])


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows_point_one_way(room):
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in (ROOT / room).rglob("*.py")
        for name in imports(path)
        if any(f"{name}.".startswith(f"handloom.{other}.") for other in FORBIDDEN[room])
    ]
    assert not wrong


def test_the_root_imports_no_room_until_it_is_named():
    tree = ast.parse((ROOT / "handloom" / "__init__.py").read_text())
    at_the_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in at_the_top] == ["importlib"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.name)
def test_a_family_has_its_files(family):
    assert (family / "reference.py").is_file()
    assert (family / "cpu.py").is_file() or (family / "cpu" / "__init__.py").is_file()
    assert (ROOT / "tests" / "kernels" / "cases" / f"{family.name}.py").is_file()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda path: path.name)
def test_a_reference_shares_no_helper_with_the_kernels(family):
    assert not [name for name in imports(family / "reference.py") if name.startswith(("handloom.", "numba"))]


@pytest.mark.parametrize("path", [p for p in KERNEL_FILES if p.name != "reference.py"], ids=name_of)
def test_kernels_do_not_use_references(path):
    assert not [name for name in imports(path) if "reference" in name.split(".")]


def blas_calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.MatMult):
            yield f"line {node.lineno}: @"
        elif isinstance(node, ast.Attribute) and node.attr in BLAS_CALLS:
            owner = node.value
            owner = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", None)
            # x.dot(y) on an array as much as np.dot(x, y); a function of this package under such a name is fine.
            if owner in ARRAY_PACKAGES or node.attr == "dot":
                yield f"line {node.lineno}: {owner}.{node.attr}"


@pytest.mark.parametrize("path", [p for p in KERNEL_FILES if p.name != "reference.py"], ids=name_of)
def test_kernels_call_no_blas(path):
    assert not list(blas_calls(path))
    assert not [name for name in imports(path) if name.split(".")[0] == "scipy" or name.startswith("numpy.linalg")]
    assert not [name for name in imports(path) if name.startswith("numpy.") and name.split(".")[1] in BLAS_CALLS]


@pytest.mark.parametrize("path", [f / "__init__.py" for f in FAMILIES], ids=name_of)
def test_contracts_compile_nothing(path):
    assert not [name for name in imports(path) if name.split(".")[0] in ("numba", "llvmlite")]


@pytest.mark.parametrize("path", CUDA_FILES, ids=name_of)
def test_no_condition_stands_in_a_call_that_lanes_make_together(path):
    """Python may copy such a call behind each branch (kernels/reductions.py)."""
    wrong = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and TOGETHER.search(ast.unparse(node.func))
        if any(isinstance(part, ast.IfExp | ast.BoolOp) for arg in node.args for part in ast.walk(arg))
    ]
    assert not wrong


def is_layer_test(node):
    """A comparison with the name of a device."""
    values = [node.left, *node.comparators]
    return any(isinstance(value, ast.Constant) and value.value in ("cpu", "cuda") for value in values)


def test_layers_do_not_ask_for_the_device():
    wrong = [
        f"{name_of(path)}:{node.lineno}"
        for path in (ROOT / "nn").rglob("*.py")
        if path.name != "devices.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and is_layer_test(node)
    ]
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_imports_everything_of_another(path):
    assert not [name for name in imports(path) if name.endswith(".*")]


def test_every_public_kernel_has_an_example_or_belongs_to_one_that_has():
    """The docstring of each operation shows how it is called; its `_forward` and `_backward` need not."""
    from handloom import kernels

    missing = [
        name
        for name in kernels.__all__
        if callable(getattr(kernels, name))
        and not name.endswith(("_forward", "_backward"))
        and ">>>" not in (getattr(kernels, name).__doc__ or "")
    ]
    assert not missing
