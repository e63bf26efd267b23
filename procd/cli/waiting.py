"""What a person at a terminal sees while a command waits."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 1.0  # what is over sooner needs no word


@contextmanager
def shown(what: str) -> Iterator[None]:
    """Tell, once it takes longer than a second, what is waited for and for how long.

    On the terminal that stderr is, in one line that goes away; nowhere else.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    began, fd = time.monotonic(), sys.stderr.fileno()

    def say(_signum: int, _frame: object) -> None:
        os.write(fd, f"\r{what}: {time.monotonic() - began:.0f} s\x1b[K".encode())

    before = signal.signal(signal.SIGALRM, say)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if time.monotonic() - began >= SECONDS:
            os.write(fd, b"\r\x1b[K")
