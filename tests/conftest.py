"""What all tests share: the rule that comparisons with an oracle may not be skipped in silence."""

import os

import pytest

# Under HANDLOOM_ORACLES=1 (`make test-oracles`) the other framework is there, and a test that skips is a failure.
ORACLES_REQUIRED = os.environ.get("HANDLOOM_ORACLES") == "1"


def _skipped_is_failed(report, what):
    if ORACLES_REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        path, line, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: {what} was skipped under HANDLOOM_ORACLES=1: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    if item.get_closest_marker("oracle"):
        _skipped_is_failed(report, item.nodeid)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """A whole file that skips itself for want of an oracle; other files may skip for want of hardware."""
    report = yield
    if report.skipped and "torch" in str(report.longrepr):
        _skipped_is_failed(report, collector.nodeid)
    return report


@pytest.fixture(scope="session")
def torch():
    """The oracle, on two threads; the test that asks for it must be marked `oracle`."""
    return pytest.importorskip("torch", reason="torch is not installed: make test-oracles installs it")
