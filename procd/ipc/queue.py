"""A SysV message queue that programs in any language can share; useful without the rest of procd.

    from procd.ipc import Queue, ftok

    queue = Queue.open(ftok("/srv/app/queue.key", "a"))      # what PHP's ftok() and C's make of it
    queue.send(b"hello", mtype=3, timeout=1.0)
    data, mtype = queue.receive(-3)                          # lowest type up to 3 first

Rules:
- Data is bytes. What they mean (text, JSON, PHP's serialize) is decided elsewhere.
- Nothing waits inside the kernel. A signal that is handled just before msgrcv(2) begins to
  wait leaves it waiting, so a stop flag and one SIGTERM would be a race; and msgrcv knows no
  timeout. A waiting call tries again after 50 us, 100 us, ... up to every 10 ms instead: that
  is the latency after a long silence, and 100 wake-ups a second while it lasts.
- A message is gone once received: a reader that dies with it in hand has lost it.
- A queue outlives everybody who used it, until remove() or a reboot; systemd's RemoveIPC=
  removes those of a user who logs out. Another IPC namespace (a container) does not see it.
- By default a queue takes 16 KiB in all (kernel.msgmnb) and 8 KiB a message (kernel.msgmax):
  send what is large another way and its name through here.

msgget(2), msgop(2), sysvipc(7).
"""

from __future__ import annotations

import math
import os
import time
from typing import Literal

from procd.linux.sysv import (
    MessageQueue,
    QueueDenied,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    label,
)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.000_05, 0.01
_ACCESS = {"r": 0o400, "w": 0o200, "rw": 0o600}


class Queue:
    """One queue, by its key. Make it with create(), find it with open()."""

    def __init__(self, handle: MessageQueue) -> None:
        self._handle = handle
        self.key = handle.key
        self.id = handle.id

    @classmethod
    def create(cls, key: int | None = None, mode: int = 0o600, *, exist_ok: bool = False) -> Queue:
        """Make the queue *key*, or one under a key that nobody can guess (None).

        Raises QueueExists if there is one. With *exist_ok* that one is opened, unless another
        user owns it or its mode lets in more than *mode* does: QueueDenied then, for its
        messages could be anybody's. (PHP's msg_get_queue makes queues of mode 0666.)
        """
        if key is None:
            return cls(MessageQueue.create(mode))
        while True:
            try:
                return cls(MessageQueue.create_key(key, mode))
            except QueueExists:
                if not exist_ok:
                    raise
            try:
                return cls(_trusted(MessageQueue.open(key), mode))
            except QueueGone:
                continue  # removed between the two calls

    @classmethod
    def open(cls, key: int, access: Literal["r", "w", "rw"] = "rw") -> Queue:
        """Open the queue *key* to read from it, to write to it, or both.

        Raises QueueGone if there is none, QueueDenied if its mode does not allow *access*.
        """
        return cls(MessageQueue.open(key, _ACCESS[access]))

    def send(self, data: bytes, mtype: int = 1, timeout: float | None = None) -> None:
        """Append a message of type *mtype* (1 .. 2**31-1), waiting for room up to *timeout*.

        *timeout* in seconds; None waits for ever, 0 not at all. Raises QueueFull, QueueGone,
        QueueDenied, MessageTooBig if it can never fit, TypeError for what is not bytes.
        """
        patience = _Patience(timeout)
        while True:
            try:
                return self._handle.send(data, mtype)
            except QueueFull:
                if not patience.lasts():
                    raise

    def receive(self, mtype: int = 0, timeout: float | None = None) -> tuple[bytes, int]:
        """Take a message off: (data, type), waiting for one up to *timeout* seconds, as send().

        *mtype* 0 is the oldest message, N the oldest of type N, -N the oldest of the lowest
        type up to N (priorities). Raises QueueEmpty, QueueGone, QueueDenied.
        """
        patience = _Patience(timeout)
        while True:
            try:
                return self._handle.receive(mtype)
            except QueueEmpty:
                if not patience.lasts():
                    raise

    def remove(self) -> None:
        """Remove the queue and what is in it; nothing happens if it is gone already."""
        self._handle.remove()

    @property
    def messages(self) -> int:
        """How many messages wait in it."""
        return self._handle.messages

    @property
    def bytes_max(self) -> int:
        """How many bytes it may hold in all."""
        return self._handle.bytes_max

    @property
    def mode(self) -> int:
        """Its permissions, as of a file."""
        return self._handle.mode

    @property
    def owner_uid(self) -> int:
        return self._handle.owner_uid

    def __repr__(self) -> str:
        return f"<Queue {label(self.key)} id={self.id}>"


def ftok(path: str | os.PathLike[str], proj: int | str) -> int:
    """Make the key that libc makes of a file and a project letter (or number).

    As ftok(3). Both sides must name the same file, and that is the trouble with it:
    - The key is made of inode and device, not of the name. Editors, git and deployments
      replace files: same path, new inode, another key, and the two sides no longer meet. Use a
      file that nobody ever touches, or better a fixed number as the key.
    - 16 bits of the inode and 8 of the device are in it: two files can give the same key.
    - It may be negative, as key_t is signed; `ipcs` shows the same 32 bits unsigned.
    - PHP's returns -1 where it fails, and -1 is a valid key: everybody who fails meets there.
      This one raises OSError for a missing file, and ValueError for a *proj* whose low 8 bits
      are 0 (POSIX leaves that undefined).
    """
    low = (ord(proj) if isinstance(proj, str) else proj) & 0xFF
    if not low:
        raise ValueError(f"{proj!r} is no project id: its low 8 bits are 0")
    stat = os.stat(path)
    key = low << 24 | (stat.st_dev & 0xFF) << 16 | stat.st_ino & 0xFFFF
    return key - 2**32 if key >= 2**31 else key


class _Patience:
    """The pauses of one waiting call."""

    __slots__ = ("_deadline", "_pause")

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:  # also what is not a number at all
            raise ValueError(f"timeout is {timeout}: seconds, or None for no limit")
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._pause = _FIRST_PAUSE

    def lasts(self) -> bool:
        """Pause, then True: try again; the last time just when the time is up. False: give up."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True


def _trusted(handle: MessageQueue, mode: int) -> MessageQueue:
    # The creator keeps an owner's rights, and can give the queue to anybody: both must be us.
    for uid in (handle.creator_uid, handle.owner_uid):
        if uid != os.geteuid():
            raise QueueDenied(
                f"{handle!r} belongs to uid {uid}, not to {os.geteuid()}: remove it (ipcrm), or"
                " use another key"
            )
    if handle.mode & ~mode:
        raise QueueDenied(
            f"{handle!r} has mode {handle.mode:04o}, wider than {mode:04o}: have it made here"
            " first, or allow that mode"
        )
    return handle
