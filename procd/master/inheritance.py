"""What one master leaves to the next: the arena and the floor of task ids."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from procd import logs
from procd.ipc import arenafile, words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.arenareader import live
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
        set_arena_aside(path, str(damaged))
        arena = None
    wanted = Layout.of(slots, slot_bytes, floor)
    if arena is not None:
        _mend(arena)
    if arena is not None:
        same = arena.layout.slots == wanted.slots and arena.layout.slot_bytes == wanted.slot_bytes
        if same or live(arena.in_use()):
            if not same:
                logs.warning(
                    "arena keeps its size: tasks are in it", slots=arena.layout.slots, file=path
                )
            return arena
        wanted = Layout.of(
            slots, slot_bytes, min(words.LAST_EPOCH, max(floor, arena.last_epoch() + 1))
        )
        arena.close()
        os.unlink(path)
    return ArenaFile.create(path, wanted)


def _mend(arena: ArenaFile) -> None:
    slots, chunks = arena.mend()
    if slots or chunks:
        logs.error("task arena damaged, and mended", file=arena.path, freed=slots, reclaimed=chunks)


def set_arena_aside(path: Path, why: str) -> None:
    """Keep for a person what cannot be used, with the spool that only it tells of."""
    try:
        logs.error("task arena set aside", file=set_aside(path), why=why)
        spool = path.with_name(arenafile.SPOOL)
        if os.listdir(spool):
            logs.error("task spool set aside", folder=set_aside(spool))
    except OSError as error:
        logs.error("not set aside", file=path, why=error)


def leave(arena: ArenaFile, *, is_empty: bool) -> None:
    """Have the arena under its name, and nothing there if it is empty.

    Somebody may have removed it while we had it open, or put something else there.
    """
    path, is_ours = arena.path, False
    with suppress(OSError):
        is_ours = os.path.samestat(os.lstat(path), os.fstat(arena.fd))
    try:
        if is_empty and is_ours:
            os.unlink(path)
        elif not is_empty and not is_ours:
            if os.path.lexists(path):
                set_aside(path)
            _write_anew(arena)
            logs.warning("task arena was removed by somebody: written anew", file=path)
    except OSError as error:
        logs.error("task arena not kept", file=path, why=error)


def _write_anew(arena: ArenaFile) -> None:
    new = arena.path.with_suffix(".new")
    with suppress(FileNotFoundError):
        os.unlink(new)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        at = 0
        while at < arena.layout.size:
            at += os.sendfile(file.fileno(), arena.fd, at, arena.layout.size - at)
    new.rename(arena.path)


def _read_floor(path: Path) -> int:
    try:
        return min(int(path.read_text(encoding="ascii")), words.LAST_EPOCH)
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
    names = (f"{path.name}.damaged-{stamp}-{os.getpid()}{more}" for more in _counted())
    aside = next(
        path.with_name(name) for name in names if not os.path.lexists(path.with_name(name))
    )
    path.rename(aside)
    return aside


def _counted() -> Iterator[str]:
    """Names may meet: in a container every master has the same pid."""
    yield ""
    yield from (f"-{number}" for number in count(2))
