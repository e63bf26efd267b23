"""A task that a program outside of the service has sent, and what it holds of it."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator

from procd.client.promise import Promise
from procd.errors import ConnectionLost, TaskFailed, TaskTimeout
from procd.ipc.frames import Kind
from procd.tasks import failure

_log = logging.getLogger("procd.task")


class Sent:
    """One task on its way, as the line knows it."""

    def __init__(self, kind: Kind, payload: bytes) -> None:
        self.kind = kind
        self.payload = payload  # empty once all of it has been handed to the kernel
        self.size = len(payload)
        self.is_out = False  # all of it was handed to the kernel
        self.tries = 0
        self._pid = os.getpid()
        self.accepted: Promise[int] = Promise()
        self.packed: Promise[tuple[bytes, bool]] = Promise()  # result, and whether it failed
        self.is_seen = False
        self._outcome: tuple[object, TaskFailed | None] | None = None

    def fail(self, error: Exception) -> None:
        """Neither acceptance nor result will come, as far as they have not."""
        self.accepted.fail(error)
        self.packed.fail(error)

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
            _log.error("task failed id=%d, nobody asks for it: %s", self.accepted.get(), told)


class SentTask:
    """What Client.send returns: the task is accepted."""

    def __init__(self, sent: Sent, client: object) -> None:
        self._sent = sent
        self._client = client  # whose line brings the result
        self.id = sent.accepted.get()

    def __repr__(self) -> str:
        return f"<SentTask {self.id} {'done' if self.is_done else 'pending'}>"

    @property
    def is_done(self) -> bool:
        """Tell whether result() returns, or raises, at once."""
        return self._sent.packed.is_set

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

    def __init__(self, sent: Sent, client: object) -> None:
        self._sent = sent
        self._client = client

    def __repr__(self) -> str:
        return f"<AwaitedTask {'done' if self.is_done else 'pending'}>"

    @property
    def is_done(self) -> bool:
        return self._sent.packed.is_set

    async def accepted(self) -> int:
        """Wait until the task is accepted, or raise why not; return its id."""
        self._sent.check()
        return await self._sent.accepted.come()

    def __await__(self) -> Generator[object, None, object]:
        return self._wait().__await__()

    async def _wait(self) -> object:
        self._sent.is_seen = True
        self._sent.check()
        await self._sent.packed.come()
        return self._sent.result()
