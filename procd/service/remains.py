"""What services that do not run any more have left behind, and taking it away.

Only what is provably procd's: named by a lease or a note in a state_dir whose lock nobody holds, or
a record of a process that is dead. Nothing with a task or a message in it is taken away, and
nothing that was set aside for a person to look at: that is named, with what to do.
"""

from __future__ import annotations

import os
import stat
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from procd.errors import AlreadyRunning, ProcdError
from procd.ipc import arenafile, words
from procd.ipc.layout import PAGE, WORD, Damaged, Layout
from procd.ipc.words import SlotState
from procd.linux import process, sysvtable
from procd.linux.sysv import MessageQueue, QueueError, label
from procd.linux.sysvtable import QueueStat
from procd.master import publicqueue
from procd.master.lease import borrowed, noted_queue
from procd.service import record


@dataclass(frozen=True, slots=True)
class Remain:
    """One thing that was left. *kept* says why it stays and what to do, "" = it goes."""

    kind: str  # queue, public queue, arena, set aside, record
    where: str
    config_path: str
    kept: str = ""


def states_in(path: Path) -> Counter[SlotState] | None:
    """Return how many slots of an arena are in each state; None where there is none to be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        layout = Layout.read(os.pread(fd, PAGE, 0), found.st_size)
        table = os.pread(fd, layout.slots * WORD.size, layout.words_at)
        return Counter(SlotState(word & words.STATE_MASK) for (word,) in WORD.iter_unpack(table))
    except (OSError, ValueError, struct.error, Damaged):
        return None
    finally:
        os.close(fd)


def token_queue(state_dir: Path) -> QueueStat | None:
    """Return the queue that a lease names and nobody alive holds; raises QueueError."""
    try:
        noted = noted_queue(state_dir / "lease")
        pid, start, *_ = (state_dir / "lease").read_text(encoding="ascii").split()
        is_held = process.is_alive(int(pid), int(start))
    except (OSError, ValueError):
        return None
    return None if is_held else _queue_of(state_dir / "lease", noted)


def _queue_of(note: Path, noted: tuple[int, int]) -> QueueStat | None:
    """Return the queue that is noted in a file, if who wrote that has made the queue too."""
    for row in sysvtable.rows() if noted[0] else ():
        if (row.key, row.id) == noted and note.stat().st_uid == row.creator_uid:
            return row
    return None


def clean(config: tuple[Path, Path] | None, *, is_dry: bool) -> Iterator[Remain]:
    """Take away what was left, one after the other; *is_dry*: only tell.

    *config* is the path of one and its state_dir, looked into as well.
    """
    dead = record.dead()
    states = {one.state_dir: one.config_path for _, one in dead if one.state_dir is not None}
    if config is not None:
        states[config[1]] = config[0]
    for state_dir, config_path in sorted(states.items()):
        if state_dir.is_dir():
            yield from _of_state(state_dir, str(config_path), is_dry=is_dry)
    for path, one in dead:
        if not is_dry:
            record.remove_dead(path, one)
        yield Remain("record", str(path), str(one.config_path))


def _of_state(state_dir: Path, config_path: str, *, is_dry: bool) -> Iterator[Remain]:
    try:
        with borrowed(state_dir / "lease"):
            yield from _queues(state_dir, config_path, is_dry=is_dry)
            yield from _arena(state_dir, config_path, is_dry=is_dry)
            if not is_dry and not os.path.lexists(state_dir / "arena"):
                (state_dir / "lease").unlink()  # whoever waits for it finds that it is another's
    except AlreadyRunning:
        return
    except (ProcdError, OSError) as error:
        yield Remain("state_dir", str(state_dir), config_path, f"not looked into: {error}")


def _queues(state_dir: Path, config_path: str, *, is_dry: bool) -> Iterator[Remain]:
    found = token_queue(state_dir)
    if found is not None:
        if not is_dry:
            _remove(found)
        yield Remain("queue", label(found.key), config_path)
    note = publicqueue.note_in(state_dir)
    row = _queue_of(note, publicqueue.noted(state_dir))
    if row is not None:
        kept = f"{row.messages} messages are in it: procd start takes them" if row.messages else ""
        if not kept and not is_dry:
            _remove(row)
            note.unlink()
        yield Remain("public queue", label(row.key), config_path, kept)


def _remove(row: QueueStat) -> None:
    with suppress(QueueError):
        queue = MessageQueue.open(row.key, 0)
        if queue.id == row.id:
            queue.remove()


def _arena(state_dir: Path, config_path: str, *, is_dry: bool) -> Iterator[Remain]:
    path = state_dir / "arena"
    states = states_in(path)
    if states is not None:
        tasks = sum(states[state] for state in (*words.LIVE, SlotState.DEAD))
        kept = f"{tasks} tasks are in it: procd -c {config_path} start runs them" if tasks else ""
        if not tasks and not is_dry:
            path.unlink()
            with suppress(OSError):
                os.rmdir(state_dir / arenafile.SPOOL)
        yield Remain("arena", str(path), config_path, kept)
    elif os.path.lexists(path):
        kept = "it cannot be trusted: procd start sets it aside"
        yield Remain("arena", str(path), config_path, kept)
    for aside in set_aside_in(state_dir):
        kept = "it was set aside for you to look at: rm it when you have"
        yield Remain("set aside", str(aside), config_path, kept)


def set_aside_in(state_dir: Path) -> Iterable[Path]:
    """Return arenas and spools that could not be trusted."""
    return sorted((*state_dir.glob("arena.damaged-*"), *state_dir.glob("spool.damaged-*")))
