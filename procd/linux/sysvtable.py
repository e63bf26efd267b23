"""All message queues of this IPC namespace, as /proc/sysvipc/msg has them: proc(5), sysvipc(7).

Everybody may read that table, and its text is the same on every architecture, which the
structure of msgctl(2) is not. It shows queues that the reader may not open as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from procd.linux.sysv import QueueError, QueueGone

PATH = "/proc/sysvipc/msg"


@dataclass(frozen=True, slots=True)
class QueueStat:
    """One queue at one moment. Times are seconds since 1970, 0 = never; pids 0 = nobody yet."""

    key: int  # signed, as key_t is; 0 = IPC_PRIVATE, a queue that is known by its id only
    id: int
    mode: int  # the lowest nine bits, as of a file
    bytes: int  # of all messages together
    messages: int
    last_send_pid: int
    last_receive_pid: int
    owner_uid: int
    owner_gid: int
    creator_uid: int
    creator_gid: int
    last_send: int
    last_receive: int
    last_change: int  # of owner, mode or size
    bytes_max: int | None = None  # not in the table: asked for by who may read the queue


def rows() -> list[QueueStat]:
    """Every queue, in the kernel's order; raises QueueError where /proc is not there."""
    try:
        with open(PATH, encoding="ascii") as table:
            lines = table.read().splitlines()[1:]
    except OSError as error:
        raise QueueError(
            f"cannot list queues: {PATH}: {error.strerror} (is /proc mounted?)"
        ) from None
    return [_parsed(line) for line in lines]


def row(id: int) -> QueueStat:
    """The queue of that id; raises QueueGone, QueueError."""
    for found in rows():
        if found.id == id:
            return found
    raise QueueGone(f"there is no queue of id {id} any more: somebody removed it")


def _parsed(line: str) -> QueueStat:
    key, number, mode, *numbers = line.split()
    return QueueStat(int(key), int(number), int(mode, 8) & 0o777, *map(int, numbers[:11]))
