"""The examples in docstrings run, and print what they say."""

import doctest
import pkgutil
from importlib import import_module

import pytest

from handloom import kernels, nn

# Private to an operation, or importing Numba-CUDA.
WITHOUT = {"reference", "cpu", "cuda", "ptx", "launch", "quotients", "reductions", "teams", "wide"}


def documented():
    """Names of all modules below kernels and nn whose docstrings hold examples."""
    for room in (kernels, nn):
        yield room.__name__
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not WITHOUT & set(module.name.split(".")):
                yield module.name


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in documented():
        module = import_module(name)
        yield from (test for test in finder.find(module, name) if test.examples)


@pytest.mark.parametrize("test", list(examples()), ids=lambda test: test.name.removeprefix("handloom."))
def test_example(test):
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
