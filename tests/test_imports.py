"""Importing costs little and compiles nothing; what is heavy waits until somebody needs it."""

import pytest
from processes import COUNTING, run

HEAVY = ("matplotlib", "pooch", "requests", "sklearn", "torch", "jax", "cupy", "rich", "safetensors")
REPORT = f"import sys\nprint(sorted(set(sys.modules) & {set(HEAVY)}))\n"


@pytest.mark.parametrize(
    "module", ["handloom", "handloom.kernels", "handloom.nn", "handloom.nn.layers", "handloom.cli"]
)
def test_importing_loads_nothing_heavy(tmp_path, module):
    assert run(f"import {module}\n" + REPORT, tmp_path) == ("[]\n", "")


def test_the_root_and_the_command_do_without_numba(tmp_path):
    code = "import sys, handloom, handloom.cli\nhandloom.cli.parser().format_help()\nprint('numba' in sys.modules)"
    assert run(code, tmp_path) == ("False\n", "")


def test_importing_everything_compiles_nothing_and_reads_no_kernel(tmp_path):
    code = (
        COUNTING
        + """
import sys
from handloom import kernels, nn
for name in nn.__all__:
    getattr(nn, name)
print(compiled(), [name for name in sys.modules if name.startswith("handloom.kernels.") and ".cpu" in name])
"""
    )
    assert run(code, tmp_path) == ("0 []\n", "")
    assert not (tmp_path / "cache").exists()


def test_importing_layers_takes_less_than_a_second_of_computing(tmp_path):
    """Processor time, the best of three: other programs on the machine do not count."""
    code = "import time\nimport handloom.nn.models, handloom.nn.layers\nprint(time.process_time())"
    assert min(float(run(code, tmp_path)[0]) for _ in range(3)) < 1


def test_rooms_are_found_when_they_are_named(tmp_path):
    code = "import handloom as hl\nprint(hl.nn.Dense.__name__, hl.kernels.matmul.__name__, 'nn' in dir(hl))"
    assert run(code, tmp_path) == ("Dense matmul True\n", "")


def test_an_unknown_name_is_an_attribute_error():
    import handloom

    with pytest.raises(AttributeError, match="module 'handloom' has no attribute 'layers'"):
        handloom.layers  # noqa: B018
