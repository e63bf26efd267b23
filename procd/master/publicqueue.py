"""The public queue: made by the master, or taken if it is ours, and made anew when it is gone.

Whoever may send into it hands in tasks, so its owner and its permissions are exactly those of the
config. A queue that somebody else made, or that lets in more, is refused by name: at the start,
and while the service runs, where it is tried again until it is gone.

It outlives its processes. At a stop it is removed if procd made it and nothing is in it; else it
stays, with its messages, for the next start. Which one procd made stands in a file in state_dir:
that one is taken whatever an earlier config said of it, and is as this config says from then on.
"""

from __future__ import annotations

import grp
import os
from contextlib import suppress
from math import inf
from pathlib import Path

from procd import logs
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.linux import sysvtable
from procd.linux.sysv import (
    MessageQueue,
    QueueDenied,
    QueueError,
    QueueExists,
    QueueGone,
    label,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries to have it
_PHP = "PHP's msg_get_queue() makes queues of mode 0666: start procd first, and PHP opens its queue"


class PublicQueue:
    """*owner* is uid and gid of the processes, None = the master's own; *note* is the file."""

    def __init__(self, key: int, config: Config, owner: tuple[int, int] | None, note: Path) -> None:
        """Have the queue of that key; raises StartFailed."""
        self.key = key - 2**32 if key >= 2**31 else key  # as the kernel has it
        self.id = -1  # of the queue as it is now, -1 = there is none
        self.error: str | None = None
        self.group = _group_of(config)
        self._mode = config.message_queue_mode | 0o600  # the ingress reads and writes
        self._owner = owner or (os.geteuid(), os.getegid())
        self._note = note
        self._pause = FIRST_PAUSE
        self._was_there = False
        self.next_try = inf
        forget(note, self.key)
        try:
            self._have()
        except QueueError as error:
            raise StartFailed(f"message_queue_key: {error}") from None

    def look(self, now: float) -> None:
        """Somebody missed it, or it is time to try again: have it, or say why not."""
        try:
            self._have()
        except QueueError as error:
            self.id = -1
            if str(error) != self.error:
                logs.error("public queue not taken", why=error)
            self.error = str(error)
            self.next_try = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            return
        self.error, self.next_try, self._pause = None, inf, FIRST_PAUSE

    def _have(self) -> None:
        while True:
            try:
                queue = MessageQueue.create_key(self.key)
            except QueueExists:
                try:
                    self._take(MessageQueue.open(self.key, 0))
                except QueueGone:
                    continue  # removed between the two calls
                return
            self._write_note(queue.id)
            if self._was_there:
                logs.warning("public queue was removed by somebody: made anew", key=label(self.key))
            self._grant(queue)
            return

    def _take(self, queue: MessageQueue) -> None:
        found = sysvtable.row(queue.id)
        if _read_note(self._note) != (self.key, queue.id):
            self._check(queue, found)
        self._grant(queue)

    def _check(self, queue: MessageQueue, found: sysvtable.QueueStat) -> None:
        ours = {os.geteuid(), self._owner[0]}
        for uid in (found.creator_uid, found.owner_uid):
            if uid not in ours:
                raise QueueDenied(f"{queue!r} belongs to uid {uid}: {self._cure}")
        group_bits = found.mode & 0o070
        if found.mode & ~self._mode or (group_bits and found.owner_gid != self._gid):
            raise QueueDenied(
                f"{queue!r} has mode {found.mode:04o} and group {found.owner_gid}, and"
                f" message_queue_mode and _group allow {self._mode:04o} and {self._gid}:"
                f" {self._cure}"
            )

    @property
    def _cure(self) -> str:
        return f"remove it (procd queue rm {label(self.key)}), or use another key. {_PHP}"

    @property
    def _gid(self) -> int:
        return self._owner[1] if self.group is None else self.group

    def _grant(self, queue: MessageQueue) -> None:
        # The group before the mode that lets it in.
        queue.change(gid=self._gid, uid=self._owner[0], mode=self._mode)
        self.id, self._was_there = queue.id, True

    def close(self, *, keep: bool) -> int:
        """Remove it if procd made it, nothing is in it and it is not to be kept.

        Returns how many messages stay in it.
        """
        try:
            queue = MessageQueue.open(self.key, 0)
            if queue.id != self.id:
                return 0
            left = queue.messages
            if keep or left or _read_note(self._note) != (self.key, self.id):
                return left
            # Closed before the last look, so that nothing is lost that somebody just sends.
            queue.change(mode=0)
            if left := queue.messages:
                queue.change(mode=self._mode)
                return left
            queue.remove()
        except QueueError:
            return 0
        with suppress(OSError):
            self._note.unlink()
        return 0

    def _write_note(self, number: int) -> None:
        try:
            self._note.write_text(f"{self.key} {number} {_where()}\n", encoding="ascii")
        except OSError as error:
            logs.warning("public queue not noted", file=self._note, why=error.strerror)


def forget(note: Path, key: int | None) -> None:
    """Remove the queue that procd made under another key than *key*, if nothing is in it."""
    old, number = _read_note(note)
    if not old or old == key:
        return
    with suppress(QueueError, OSError):
        queue = MessageQueue.open(old, 0)
        if queue.id == number and queue.messages:
            logs.warning("messages are left in an earlier public queue", key=label(old))
            return
        if queue.id == number:
            queue.remove()
    with suppress(OSError):
        note.unlink()


def note_in(state_dir: Path) -> Path:
    """Return the file that says which public queue procd made."""
    return state_dir / "queue"


def noted(state_dir: Path) -> tuple[int, int]:
    """Return key and id of the public queue that procd made; (0, -1) = none, or not to be known."""
    return _read_note(note_in(state_dir))


def _read_note(note: Path) -> tuple[int, int]:
    try:
        key, number, where = note.read_text(encoding="ascii").split()
        if where == _where():
            return int(key), int(number)
    except (OSError, ValueError):
        pass
    return 0, -1


def _where() -> str:
    """Name this boot and IPC namespace: ids begin anew in another one."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as boot:
        return f"{boot.read().strip()}/{os.stat('/proc/self/ns/ipc').st_ino}"


def _group_of(config: Config) -> int | None:
    group = config.message_queue_group
    if group is None:
        return None
    return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
