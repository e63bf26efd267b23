"""Telling where this process stands: its Python stacks, on a signal, into a file of its own.

faulthandler writes them from the signal's own handler in C: also when the process is stuck in C
code or holds the GIL. The signal is a real-time one, which no program uses by itself. A process
that was just forked answers for its parent until it calls answer().
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress
from pathlib import Path

SIGNAL = signal.SIGRTMAX - 3

_file: tuple[int, tuple[int, int]] | None = None  # our descriptor, and what it was opened as


def answer(folder: Path) -> None:
    """From now on write the stacks of all threads to path_of(folder, our pid) on SIGNAL."""
    global _file
    path = path_of(folder, os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):  # no room, no descriptor: one can live without
        try:
            fd = os.open(path, flags, 0o600)
        except FileExistsError:  # of a process that had our pid
            os.unlink(path)
            fd = os.open(path, flags, 0o600)
        faulthandler.register(SIGNAL, fd, all_threads=True)
        inherited, _file = _file, (fd, _identity(fd))
        # Closed by whoever forked us, its number is somebody else's by now.
        if inherited is not None and _identity(inherited[0]) == inherited[1]:
            os.close(inherited[0])


def path_of(folder: Path, pid: int) -> Path:
    return folder / f"{pid}.stack"


def forget(folder: Path, pid: int) -> None:
    """Remove the file of a process that is gone."""
    with suppress(OSError):
        os.unlink(path_of(folder, pid))


def _identity(fd: int) -> tuple[int, int]:
    try:
        found = os.fstat(fd)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
