"""When systemd's watchdog is fed."""

from __future__ import annotations

import socket
from math import inf
from pathlib import Path

import pytest

from procd.service.sdnotify import Watchdog

EVERY = {"WATCHDOG_USEC": "3000000"}


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    listening.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return listening


def pings(heard: socket.socket) -> int:
    count = 0
    while True:
        try:
            assert heard.recv(100) == b"WATCHDOG=1"
        except BlockingIOError:
            return count
        count += 1


def test_three_pings_fit_into_its_time(heard: socket.socket) -> None:
    watchdog = Watchdog(EVERY)
    for tenth in range(30):
        watchdog.tick(100 + tenth / 10, lambda: True)
    assert pings(heard) == 3
    assert watchdog.due == 103
    heard.close()


def test_who_is_not_well_is_silent_and_asked_again_soon(heard: socket.socket) -> None:
    watchdog = Watchdog(EVERY)
    watchdog.tick(100, lambda: False)
    assert pings(heard) == 0
    assert 100 < watchdog.due < 101
    watchdog.tick(watchdog.due, lambda: True)
    assert pings(heard) == 1
    heard.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        EVERY | {"WATCHDOG_PID": "2"},
    ],
)
def test_it_wakes_nobody_where_none_was_asked_for(environ: dict[str, str]) -> None:
    watchdog = Watchdog(environ, pid=1)
    watchdog.tick(100, lambda: pytest.fail("was asked"))
    assert watchdog.due == inf
