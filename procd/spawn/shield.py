"""What an import must not do to its process, undone: another cwd, other signal handlers.

An app may call libraries at import that install handlers or change directory; the processes forked
afterwards would not hear procd's signals, or resolve relative paths elsewhere. The app is not
refused for it: the change is put right and named.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

_log = logging.getLogger("procd.loader")
_SETTABLE = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@contextmanager
def shielded() -> Iterator[list[str]]:
    """Put cwd, signal handlers, signal mask and wakeup fd back after the block, however it ends.

    Yields a list that then names what had changed, one phrase each; they are logged as one line.
    Handlers made by C code stand beside Python's and are not seen. Main thread only.
    """
    changes: list[str] = []
    folder = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    handlers = {number: signal.getsignal(number) for number in _SETTABLE}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    path = list(sys.path)
    try:
        yield changes
    finally:
        changes += _restore_folder(folder)
        changes += _restore_handlers(handlers)
        if signal.pthread_sigmask(signal.SIG_SETMASK, mask) != mask:
            changes.append("signal mask")
        changes += _restore_wakeup(wakeup)
        # What it adds to sys.path is its own business; what it took away, lazy imports may miss.
        changes += [f"sys.path without {entry!r}" for entry in path if entry not in sys.path]
        os.close(folder)
        if changes:
            _log.warning(
                "import changed the process, undone where it matters: %s", ", ".join(changes)
            )


def _restore_folder(folder: int) -> list[str]:
    before, now = os.fstat(folder), None
    with suppress(OSError):
        now = os.stat(".")
    if now is not None and (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino):
        return []
    where = "a folder that is gone"
    with suppress(OSError):
        where = os.getcwd()
    os.fchdir(folder)
    return [f"cwd to {where}"]


def _restore_handlers(handlers: Mapping[signal.Signals, object]) -> list[str]:
    changes = []
    for number, handler in handlers.items():
        if signal.getsignal(number) is handler:
            continue
        changes.append(f"handler of {_name(number)}")
        if callable(handler) or isinstance(handler, signal.Handlers):
            signal.signal(number, handler)
        # else C code had installed it, and Python cannot say what it was
    return changes


def _restore_wakeup(wakeup: int) -> list[str]:
    now = signal.set_wakeup_fd(-1)
    if wakeup != -1:
        with suppress(OSError, ValueError):  # the app closed it
            signal.set_wakeup_fd(wakeup)
    return [] if now == wakeup else ["wakeup fd"]


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time one
