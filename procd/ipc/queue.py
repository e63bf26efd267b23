"""A SysV message queue that programs in any language can share; useful without the rest of procd.

    from procd.ipc import Queue, ftok

    queue = Queue.open(ftok("/srv/app/queue.key", "a"))      # what PHP's ftok() and C's make of it
    queue.send(b"hello", mtype=3, timeout=1.0)
    data, mtype = queue.receive(-3)                          # lowest type up to 3 first
    data, mtype = await queue.receive_async(timeout=1.0)     # the same, and the loop turns on

Rules:
- Data is bytes. What they mean (text, JSON, PHP's serialize) is decided elsewhere.
- Nothing waits inside the kernel. A signal that is handled just before msgrcv(2) begins to
  wait leaves it waiting, so a stop flag and one SIGTERM would be a race; and msgrcv knows no
  timeout. A waiting call tries again after 50 us, 100 us, ... up to every 10 ms instead: that
  is the latency after a long silence, and 100 wake-ups a second while it lasts.
- A message is gone once received: a reader that dies with it in hand has lost it.
- No message stays at the head because it is too large for its reader, unless he says so.
- A queue outlives everybody who used it, until remove() or a reboot; systemd's RemoveIPC=
  removes those of a user who logs out. Another IPC namespace (a container) does not see it.
- By default a queue takes 16 KiB in all (kernel.msgmnb) and 8 KiB a message (kernel.msgmax):
  send what is large another way and its name through here.

msgget(2), msgop(2), sysvipc(7).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias

from procd.errors import MessageTooBig
from procd.ipc.patience import wait, wait_async
from procd.linux import sysvraw, sysvtable
from procd.linux.sysv import (
    LARGEST_TYPE,
    MessageQueue,
    QueueDenied,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    label,
)

Message: TypeAlias = tuple[bytes, int]  # data, type
Oversize: TypeAlias = Literal["drop", "cut", "keep"]

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
        """Append a message of type *mtype* (1 .. 2**63-1), waiting for room up to *timeout*.

        *timeout* in seconds; None waits for ever, 0 not at all. Raises QueueFull, QueueGone,
        QueueDenied, MessageTooBig if it can never fit, TypeError for what is not bytes.
        """
        wait(self._sender(data, mtype), QueueFull, timeout)

    async def send_async(self, data: bytes, mtype: int = 1, timeout: float | None = None) -> None:
        """As send(), while the event loop turns on."""
        await wait_async(self._sender(data, mtype), QueueFull, timeout)

    def receive(
        self,
        mtype: int = 0,
        timeout: float | None = None,
        *,
        excluding: int | None = None,
        max_bytes: int | None = None,
        oversize: Oversize = "drop",
    ) -> Message:
        """Take a message off: (data, type), waiting for one up to *timeout* seconds, as send().

        *mtype* 0 is the oldest message, N the oldest of type N, -N the oldest of the lowest
        type up to N (priorities). *excluding* N is the oldest of any type but N.

        Any size is taken, or up to *max_bytes*. What is larger than that raises MessageTooBig
        and is taken off and dropped; "cut" gives its first *max_bytes* instead (MSG_NOERROR);
        "keep" raises and leaves it at the head, as msgrcv(2) does: whoever loops over that
        meets the same message for ever.

        Raises QueueEmpty, QueueGone, QueueDenied.
        """
        take = self._taker(mtype, excluding, max_bytes, oversize)
        return wait(take, QueueEmpty, timeout)

    async def receive_async(
        self,
        mtype: int = 0,
        timeout: float | None = None,
        *,
        excluding: int | None = None,
        max_bytes: int | None = None,
        oversize: Oversize = "drop",
    ) -> Message:
        """As receive(), while the event loop turns on. A cancelled call has taken no message."""
        take = self._taker(mtype, excluding, max_bytes, oversize)
        return await wait_async(take, QueueEmpty, timeout)

    def peek(self, index: int = 0) -> Message:
        """Look at a message and leave it there: the oldest, or the one at *index* behind it.

        Raises QueueEmpty if there are not that many. Others receive meanwhile: the next call
        may see another message at the same place.
        """
        return sysvraw.copy(self._handle, index)

    def peek_all(self) -> Iterator[Message]:
        """Look at all messages, oldest first. What others receive meanwhile may hide one."""
        index = 0
        while True:
            try:
                message = self.peek(index)
            except QueueEmpty:
                return
            yield message
            index += 1

    def stat(self) -> sysvtable.QueueStat:
        """Everything that the kernel tells about it; raises QueueGone."""
        found = sysvtable.row(self.id)
        try:
            return replace(found, bytes_max=self.bytes_max)
        except QueueDenied:  # a user who may only write cannot ask
            return found

    def set(
        self,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        bytes_max: int | None = None,
    ) -> None:
        """Change mode, owner or the bytes that it may hold in all; for its owner and root.

        The creator keeps an owner's rights. More bytes than kernel.msgmnb need CAP_SYS_RESOURCE,
        which root in a container often lacks. Raises QueueDenied, QueueGone, ValueError.
        """
        # Size first, for it may be refused; the owner last, for he may no longer be us.
        for field, value, largest in (
            ("max_size", bytes_max, 2**31 - 1),
            ("mode", mode, 0o777),
            ("gid", gid, 2**32 - 2),
            ("uid", uid, 2**32 - 2),
        ):
            if value is None:
                continue
            if not 0 <= value <= largest:
                raise ValueError(f"{field} {value} is not in 0 .. {largest}")
            self._handle.change(**{field: value})

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

    def _sender(self, data: bytes, mtype: int) -> Callable[[], None]:
        if mtype <= LARGEST_TYPE:
            return partial(self._handle.send, data, mtype)
        return partial(sysvraw.send, self._handle, data, mtype)

    def _taker(
        self, mtype: int, excluding: int | None, max_bytes: int | None, oversize: Oversize
    ) -> Callable[[], Message]:
        """Return the call that takes such a message off, without waiting."""
        if excluding is not None:
            if mtype:
                raise ValueError(f"either type {mtype} or all but {excluding}, not both")
            if excluding < 1:
                raise ValueError(f"{excluding} is no message type that could be excluded: 1 ..")
            mtype = excluding
        all_but = excluding is not None
        if max_bytes is None:
            if not all_but and abs(mtype) <= LARGEST_TYPE:
                return partial(self._handle.receive, mtype)
            return partial(sysvraw.receive, self._handle, mtype, all_but=all_but)
        if not 0 <= max_bytes < 2**31:
            raise ValueError(f"max_bytes is {max_bytes}: 0 .. {2**31 - 1}")
        if oversize not in _TAKING:
            raise ValueError(f"oversize is {oversize!r}: one of {', '.join(_TAKING)}")
        return partial(_TAKING[oversize], self._handle, mtype, max_bytes, all_but=all_but)


def queues() -> list[sysvtable.QueueStat]:
    """Every queue of this IPC namespace, also those that this user may not open."""
    return sysvtable.rows()


def _receive_or_drop(handle: MessageQueue, mtype: int, max_bytes: int, *, all_but: bool) -> Message:
    data, found = sysvraw.receive(handle, mtype, all_but=all_but)
    if len(data) > max_bytes:
        raise MessageTooBig(
            f"a message of type {found} with {len(data)} bytes came from {handle!r}, where"
            f" {max_bytes} are allowed: it was taken off and dropped"
        )
    return data, found


# How a message is taken off that may have up to so many bytes.
_TAKING: dict[Oversize, Callable[..., Message]] = {
    "drop": _receive_or_drop,
    "cut": sysvraw.receive_cut,
    "keep": sysvraw.receive_small,
}


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
