"""Telling systemd how the service stands: sd_notify(3), by hand for it is few lines.

Silent where no systemd listens ($NOTIFY_SOCKET unset).
"""

from __future__ import annotations

import os
import socket
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf

MARGIN_SECONDS = 5.0  # beyond our own deadline
PINGS = 3  # in one WatchdogSec=: one may be late


def notify(*lines: str, fds: Sequence[int] = ()) -> None:
    """Send all lines, and descriptors, in one datagram; never waits, never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        sock.sendmsg(["\n".join(lines).encode()], rights, 0, address)


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def starting(seconds: float) -> None:
    """The first generation boots, which may take so long."""
    notify(_extended(seconds), "STATUS=starting")


def reloading() -> None:
    """Say so with the time, in one datagram: systemd pairs it with the READY=1 that follows."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")


def stopping(seconds: float) -> None:
    """What runs is given so long to end, whatever TimeoutStopSec= says."""
    notify("STOPPING=1", _extended(seconds), "STATUS=stopping: what runs may end")


def store(fd: int, name: str) -> None:
    """Have systemd keep a descriptor for the next master; one that it has already is no other."""
    notify("FDSTORE=1", f"FDNAME={name}", fds=(fd,))


def forget(name: str) -> None:
    notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def _extended(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int((seconds + MARGIN_SECONDS) * 1_000_000)}"


class Watchdog:
    """The pings that WatchdogSec= asks for, while their sender is well: sd_watchdog_enabled(3)."""

    def __init__(self, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._pause = inf
        text = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", "") in ("", str(pid or os.getpid()))
        if mine and text.isdecimal() and int(text) > 0:
            self._pause = int(text) / 1_000_000 / PINGS
        self.due = -inf if self._pause < inf else inf

    def tick(self, now: float, is_well: Callable[[], bool]) -> None:
        """Ping if that is due. Who is not well is asked again soon, and ended if that lasts."""
        if now < self.due:
            return
        if is_well():
            notify("WATCHDOG=1")
            self.due = now + self._pause
        else:
            self.due = now + self._pause / PINGS
