"""A task that a program outside of the service has sent, and what it holds of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from typing import Protocol

from procd.client.promise import Promise
from procd.errors import ConnectionLost, TaskFailed, TaskTimeout
from procd.ipc.frames import ID, Kind
from procd.tasks import failure

_log = logging.getLogger("procd.task")


class Sent:
    """One task on its way, as the line knows it."""

    def __init__(self, kind: Kind, payload: bytes, options: bytes = b"") -> None:
        self.kind = kind
        self.options = options  # in MessagePack, if it has any
        self.payload = payload  # empty once all of it has been handed to the kernel
        self.size = len(payload)
        self.is_out = False  # all of it was handed to the kernel
        self.tries = 0
        self._pid = os.getpid()
        self.written: Promise[int] = Promise()  # its id; a durable one is not accepted yet
        self.accepted: Promise[int] = Promise()
        self.packed: Promise[tuple[bytes, bool]] = Promise()  # result, and whether it failed
        self.is_seen = False
        self._outcome: tuple[object, TaskFailed | None] | None = None

    def fail(self, error: Exception) -> None:
        """Neither acceptance nor result will come, as far as they have not."""
        self.written.fail(error)
        self.accepted.fail(error)
        self.packed.fail(error)

    def accept(self, task_id: int) -> None:
        """It will run."""
        self.written.set(task_id)
        self.accepted.set(task_id)

    def check(self) -> None:
        """Raises ConnectionLost in a child of the process that sent it."""
        if self._pid != os.getpid() and not self.packed.is_set:
            raise ConnectionLost("sent before a fork: its result comes to the parent")

    def result(self) -> object:
        """Return the result, which has come, or raise why there is none."""
        self.is_seen = True
        if self._outcome is None:
            packed, failed = self.packed.get()
            self._outcome = failure.outcome(packed, failed=failed)
            self.packed.drop((b"", failed))
        value, error = self._outcome
        if error is not None:
            raise type(error)(str(error), error.traceback)
        return value

    def __del__(self) -> None:
        if self.is_seen or not self.packed.is_come:
            return
        packed, failed = self.packed.get()
        _, error = failure.outcome(packed, failed=True) if failed else (None, None)
        if error is not None:
            told = error.traceback or str(error)
            _log.error("task failed id=%d, nobody asks for it: %s", self.written.get(), told)


class Way(Protocol):
    """By which a task was sent; it brings the result."""

    def submit(self, sent: Sent) -> None: ...


def _cancelling(task_id: int) -> Sent:
    return Sent(Kind.CANCEL, ID.pack(task_id))


class SentTask:
    """What Client.send returns: the task is accepted; a durable one when accepted() returns."""

    def __init__(self, sent: Sent, client: object, way: Way) -> None:
        self._sent = sent
        self._client = client  # whose end is the way's
        self._way = way
        self.id = sent.written.get()

    def __repr__(self) -> str:
        return f"<SentTask {self.id} {'done' if self.is_done else 'pending'}>"

    @property
    def is_done(self) -> bool:
        """Tell whether result() returns, or raises, at once."""
        return self._sent.packed.is_set

    def accepted(self, timeout: float | None = None) -> None:
        """Wait until the task is accepted: of a durable one, until it is on the disk.

        Raises TaskRejected if there is no room for it, ConnectionLost if that cannot be told,
        TaskTimeout after *timeout* seconds.
        """
        self._sent.check()
        if not self._sent.accepted.wait(timeout):
            raise TaskTimeout(f"not accepted within {timeout:g} s")
        self._sent.accepted.get()

    def cancel(self) -> bool:
        """Ask that the task be not run, or not run on, as TaskRef.cancel(); False if it is over."""
        self._sent.is_seen = True  # who cancels it knows why it failed
        sent = _cancelling(self.id)
        self._way.submit(sent)
        sent.packed.wait(None)
        return bool(sent.result())

    def result(self, timeout: float | None = None) -> object:
        """Wait for the result and return it, as often as one likes.

        Raises TaskFailed, NoSuchTask, ConnectionLost; TaskTimeout after *timeout* seconds, and
        then the task still runs, and its result can still be waited for.
        """
        self._sent.check()
        if not self._sent.packed.wait(timeout):
            raise TaskTimeout(f"no result within {timeout:g} s")
        return self._sent.result()


class AwaitedTask:
    """What AsyncClient.send returns, at once: `await` it for the result.

    Raises what SentTask.result and Client.send do. Any number of coroutines may await it.
    """

    def __init__(self, sent: Sent, client: object, way: Way) -> None:
        self._sent = sent
        self._client = client
        self._way = way

    def __repr__(self) -> str:
        return f"<AwaitedTask {'done' if self.is_done else 'pending'}>"

    @property
    def is_done(self) -> bool:
        return self._sent.packed.is_set

    async def accepted(self) -> int:
        """Wait until the task is accepted, or raise why not; return its id."""
        self._sent.check()
        return await self._sent.accepted.come()

    async def cancel(self) -> bool:
        """As SentTask.cancel()."""
        self._sent.is_seen = True
        sent = _cancelling(await self._sent.written.come())
        self._way.submit(sent)
        await sent.packed.come()
        return bool(sent.result())

    def __await__(self) -> Generator[object, None, object]:
        return self._wait().__await__()

    async def _wait(self) -> object:
        self._sent.is_seen = True
        self._sent.check()
        await self._sent.packed.come()
        return self._sent.result()
