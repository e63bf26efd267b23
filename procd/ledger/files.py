"""The ledger's file and what SQLite keeps beside it, as names."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

NAME = "ledger.sqlite"  # in state_dir
_ENDINGS = ("", "-wal", "-shm", "-journal")


def set_aside(path: Path) -> Path:
    """Rename a ledger that cannot be trusted; return its new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = path.with_name(f"{path.stem}.damaged-{stamp}-{os.getpid()}{path.suffix}")
    for ending in _ENDINGS:
        with suppress(FileNotFoundError):
            os.rename(f"{path}{ending}", f"{aside}{ending}")
    return aside


def tidy(path: Path) -> None:
    """Remove an empty log that SQLite was not allowed to, as another user than its maker."""
    with suppress(OSError):
        log = f"{path}-wal"
        if not os.stat(log).st_size:
            os.unlink(log)


def remove(path: Path) -> None:
    """Remove a ledger that nobody has open and in which nothing is."""
    for ending in _ENDINGS:
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")
