"""Ending what the app's processes left behind: it became ours (child subreaper)."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Collection

from procd.linux import process

SECONDS = 2.0


def end(reap: Callable[[], object], but: Collection[int]) -> None:
    """SIGKILL every child that is left, *but* these, and *reap*.

    Each round may hand us the children of those that it ended.
    """
    until = time.monotonic() + SECONDS
    while (left := {*process.children(os.getpid())} - {*but}) and time.monotonic() < until:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.002)  # dying takes them a moment
        reap()
