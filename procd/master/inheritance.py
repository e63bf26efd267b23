"""What one master leaves to the next: the arena and the floor of task ids."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from procd import logs
from procd.ipc import arenafile, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.layout import Damaged, Layout


def open_arena(path: Path, ids_file: Path, slots: int, slot_bytes: int, now_ms: int) -> ArenaFile:
    """Adopt the arena that is there, or make one; raises StartFailed.

    One that cannot be trusted is set aside. One of another geometry is kept as it is while
    tasks are in it.
    """
    floor = max(_read_floor(ids_file), now_ms)
    try:
        arena = ArenaFile.adopt(path)
    except Damaged as damaged:
        aside = set_aside(path)
        logs.error("task arena set aside", file=aside, why=damaged)
        _set_spool_aside(path.with_name(arenafile.SPOOL))
        arena = None
    wanted = Layout.of(slots, slot_bytes, floor)
    if arena is not None:
        same = arena.layout.slots == wanted.slots and arena.layout.slot_bytes == wanted.slot_bytes
        if same or arenafile.live(arena.in_use()):
            if not same:
                logs.warning(
                    "arena keeps its size: tasks are in it", slots=arena.layout.slots, file=path
                )
            return arena
        wanted = Layout.of(slots, slot_bytes, max(floor, arena.last_epoch() + 1))
        arena.close()
        os.unlink(path)
    return ArenaFile.create(path, wanted)


def _set_spool_aside(path: Path) -> None:
    """Keep its files with the arena that tells of them."""
    with suppress(OSError):
        if os.listdir(path):
            logs.error("task spool set aside", folder=set_aside(path))


def _read_floor(path: Path) -> int:
    try:
        return min(int(path.read_text(encoding="ascii")), words.MAX_EPOCH >> 1)
    except (OSError, ValueError):
        return 0


def write_floor(path: Path, floor: int) -> None:
    """Keep the least epoch that the next arena may begin with."""
    new = path.with_suffix(".new")
    try:
        new.write_text(f"{floor}\n", encoding="ascii")
        new.rename(path)
    except OSError as error:
        # The clock stands in: epochs are at least the time in milliseconds.
        logs.warning("task id floor not kept", file=path, why=error)


def set_aside(path: Path, now: float | None = None) -> Path:
    """Rename a file that cannot be trusted; return its new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    aside = path.with_name(f"{path.name}.damaged-{stamp}-{os.getpid()}")
    path.rename(aside)
    return aside
