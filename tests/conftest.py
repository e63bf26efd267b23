"""What holds for the whole suite: its environment, its markers, and that CI skips nothing.

Fixtures live beside the tests that use them, but for one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

TESTS = Path(__file__).parent
# Short by their place; tests/service marks its own.
SHORT_ROOMS = (TESTS / "pure", TESTS / "kernel")
# Set by a service manager or left by hand, any of them would reach each daemon that a test starts.
FOREIGN = ("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC")
# Ours, for the tests alone: the heavy ones at their full counts.
KEPT = ("PROCD_TORTURE",)
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def pytest_configure() -> None:
    """Give daemons the environment of a user who has set nothing."""
    for name in list(os.environ):
        if name in FOREIGN or (name.startswith("PROCD_") and name not in KEPT):
            del os.environ[name]
    # Where no bytecode is written, nobody notices that a stale one would have been read.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # A slow machine is no counterexample.
    hypothesis.settings.register_profile("procd", deadline=None, print_blob=True)
    hypothesis.settings.load_profile("procd")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Give a folder with a short name: a socket's whole path has 107 bytes.

    It stands right in the folder for temporary files, which other users may enter.
    """
    with tempfile.TemporaryDirectory(prefix="procd-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the pure and the kernel tests into the short round."""
    for item in items:
        is_heavy = item.get_closest_marker("heavy") is not None
        if not is_heavy and any(room in item.path.parents for room in SHORT_ROOMS):
            item.add_marker("short")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, turn a skipped test into a failed one."""
    report = yield
    may_skip = item.get_closest_marker("systemd") is not None or hasattr(report, "wasxfail")
    if IN_CI and report.skipped and not may_skip:
        fail(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI, turn a module that skips itself as a whole into a failed one."""
    report = yield
    if IN_CI and report.skipped:
        fail(report)
    return report


def fail(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make *report* a failure that says what was skipped and why."""
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: skipped, and CI skips nothing: {why}"
