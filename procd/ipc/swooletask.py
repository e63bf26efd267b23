"""The client of a Swoole server's task queue: tasks for its task workers, from any program.

    queue = Queue.open(822133180)                     # the server's message_queue_key
    tasks = SwooleTask(queue, header_bytes=40)        # Swoole 4.8 and later; 12: up to 4.3.1
    tasks.dispatch({"n": 7}, dst_worker_id=1)         # worker_num 1: its first task worker

The server must run with task_ipc_mode 2 or 3. A str or bytes arrives as that text, everything
else as PHP's serialize() of it, as SwooleTask in Swoole's manual has it.

Rules:
- The header must be that of the server's version. A server of the other kind drops the task,
  sees an empty one, or its task worker dies of it; nothing on the queue tells which one reads.
- No result comes back: Swoole has no way to a program outside.
- What does not fit into a message goes into a file that the server reads and deletes: of mode
  0600, in a folder that the caller names, so the server must run as the same user or as root.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from contextlib import suppress
from typing import Literal

from procd.errors import MessageTooBig
from procd.ipc.foreign import php
from procd.ipc.foreign.swoole import (
    NEW_BYTES,
    OLD_BYTES,
    Flag,
    TaskMessage,
    TmpFile,
    build,
    inline_max,
    path_max,
)
from procd.ipc.queue import Queue

_LARGEST_FILE = 2**31 - 1  # the 12-byte layout's own limit, and more than any server reads
_LARGEST_TASK_ID = 2**31 - 1


class SwooleTask:
    """Dispatches tasks into *queue*; one object for one header size and one folder."""

    def __init__(
        self,
        queue: Queue,
        *,
        header_bytes: Literal[12, 40] = 40,
        tmpdir: str | os.PathLike[str] | None = None,
        src_worker_id: int = 0,
    ) -> None:
        """Without *tmpdir* (an absolute path) large tasks are refused."""
        if header_bytes not in (OLD_BYTES, NEW_BYTES):
            raise ValueError(f"no header of Swoole has {header_bytes} bytes: 12 or 40")
        if tmpdir is not None and not os.path.isabs(tmpdir):
            raise ValueError(f"{tmpdir} is no absolute path, and the server is elsewhere")
        self._queue = queue
        self._header_bytes = header_bytes
        self._tmpdir = None if tmpdir is None else os.fspath(tmpdir)
        self._src_worker_id = src_worker_id
        self._ids = itertools.cycle(range(1, _LARGEST_TASK_ID + 1))

    def dispatch(self, data: object, dst_worker_id: int, timeout: float | None = None) -> int:
        """Send a task to the worker of that id (the first task worker's is worker_num).

        Returns the id that $task->id has. Waits for room as Queue.send(). Raises TypeError for
        what PHP cannot have, MessageTooBig without a tmpdir, OSError of the file, and what
        send() raises; nothing of the task is left then.
        """
        if dst_worker_id < 0:
            raise ValueError(f"{dst_worker_id} is no worker id: worker_num and up")
        task_id = next(self._ids)
        payload, flags = _payload(data)
        if self._header_bytes == NEW_BYTES:
            flags |= Flag.NOREPLY
        if len(payload) <= inline_max(self._header_bytes):
            message = self._message(task_id, payload, flags)
            self._queue.send(message, dst_worker_id + 1, timeout)
            return task_id
        path = self._write(payload)
        try:
            file = TmpFile(os.fsencode(path), len(payload))
            message = self._message(task_id, file, flags | Flag.TMPFILE)
            self._queue.send(message, dst_worker_id + 1, timeout)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise
        return task_id

    def _message(self, task_id: int, body: bytes | TmpFile, flags: Flag) -> bytes:
        message = TaskMessage(task_id, body, flags, self._src_worker_id, time=time.time())
        return build(message, self._header_bytes)

    def _write(self, payload: bytes) -> str:
        """Write the file that the server is going to delete; returns its path."""
        if self._tmpdir is None:
            raise MessageTooBig(
                f"{len(payload)} bytes are too many for one message"
                f" ({inline_max(self._header_bytes)}): name a tmpdir, whose files the server reads"
                " and deletes"
            )
        if len(payload) > _LARGEST_FILE:
            raise MessageTooBig(f"{len(payload)} bytes are more than Swoole reads")
        path = os.path.join(self._tmpdir, f"swoole.task.{secrets.token_hex(8)}")
        if len(os.fsencode(path)) > path_max(self._header_bytes):
            raise ValueError(
                f"{self._tmpdir} is too long a path for Swoole: a file's name may have"
                f" {path_max(self._header_bytes)} bytes"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(path, flags, 0o600), "wb") as file:
            try:
                file.write(payload)
                file.flush()
            except BaseException:
                os.unlink(path)
                raise
        return path


def _payload(data: object) -> tuple[bytes, Flag]:
    match data:
        case bytes():
            return data, Flag.NONBLOCK
        case str():
            return data.encode(), Flag.NONBLOCK
        case _:
            return php.dump(data), Flag.NONBLOCK | Flag.SERIALIZE
