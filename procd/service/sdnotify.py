"""Telling systemd how the service stands: sd_notify(3), by hand for it is few lines.

Silent where no systemd listens ($NOTIFY_SOCKET unset).
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def notify(*lines: str) -> None:
    """Send all lines in one datagram; never waits, never raises."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto("\n".join(lines).encode(), address)


def ready(status: str) -> None:
    notify("READY=1", f"STATUS={status}")


def reloading() -> None:
    """Say so with the time, in one datagram: systemd pairs it with the READY=1 that follows."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notify("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")


def stopping() -> None:
    notify("STOPPING=1", "STATUS=stopping")
