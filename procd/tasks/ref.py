"""TaskRef: what a dispatcher holds of a task that somebody else runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Generator
from typing import Protocol

from procd.errors import TaskFailed
from procd.tasks.acceptance import Acceptance, Waiting, has_loop
from procd.tasks.progress import Listening

_log = logging.getLogger("procd.task")


class Way(Protocol):
    """By which a task was sent."""

    def cancel(self, token: int) -> bool: ...


class TaskRef:
    """A task on its way. `await ref` gives its result, or raises TaskFailed.

    It can be awaited by several, any number of times, also after the result has come, and by
    asyncio.gather(). Who is cancelled while he awaits it leaves the task alone: it runs on. A
    failure that nobody ever asked for is logged once. Await it in the process that
    dispatched the task: it means nothing elsewhere. (Who sends with the key of a task that
    another process has sent gets a TaskRef of his own, see tasks.following.)
    """

    __slots__ = (
        *("_error", "_listening", "_result", "_seen", "_waiters", "_way"),
        *("acceptance", "id", "is_done"),
    )

    def __init__(self, task_id: int, way: Way, acceptance: Acceptance | None = None) -> None:
        self.id = task_id
        self._way = way
        self._listening: Listening | None = None
        self.is_done = False
        self.acceptance = acceptance  # of a durable one
        self._result: object = None
        self._error: TaskFailed | None = None
        self._seen = False
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<TaskRef {self.id} {'done' if self.is_done else 'pending'}>"

    def __await__(self) -> Generator[object, None, object]:
        return self._wait().__await__()

    def accepted(self, timeout: float | None = None) -> Waiting:
        """Wait until the task is accepted: `await ref.accepted()`.

        A durable task is, once the ledger has it on the disk: from then on it outlives a power
        cut. Any other was already when it was sent. In plain code without an event loop (a `def`
        handler of a task) the call itself waits, for *timeout* seconds at most: TaskTimeout.
        Raises TaskRejected if there is no room on the disk; the task will not run then.
        """
        if self.acceptance is not None and not has_loop():
            self.acceptance.block(timeout)
            return Waiting(None)
        return Waiting(self.acceptance)

    @property
    def is_awaited(self) -> bool:
        return bool(self._waiters)

    def cancel(self) -> bool:
        """Ask that the task be not run, or not run on; False if it is over already.

        One that has not begun never does. In one that runs TaskCancelled is raised, and its
        process is ended if it is still at it a second later. `await` raises TaskCancelled,
        unless it came to its end all the same.
        """
        self._seen = True  # who cancels it knows why it failed
        return self._way.cancel(self.id)

    async def progress(self) -> AsyncIterator[object]:
        """Yield what the task tells of how far it is, until it is over.

        What is told faster than it is read may be missing here, but not the last.
        """
        self._listening = listening = self._listening or Listening()
        async for value in listening.values(lambda: self.is_done):
            yield value

    def take_progress(self, value: object) -> None:
        """Take in what the task tells; called by the dispatcher."""
        self._listening = self._listening or Listening()
        self._listening.tell(value)

    async def _wait(self) -> object:
        self._seen = True
        if not self.is_done:
            # One future each: cancelling one waiter must not touch the others.
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        if self._error is not None:
            # A new one each time: a raised exception collects the frames that it went through.
            raise type(self._error)(str(self._error), self._error.traceback)
        return self._result

    def resolve(self, result: object, error: TaskFailed | None) -> None:
        """Take the result in; called by the dispatcher, once."""
        self._result, self._error, self.is_done = result, error, True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self._listening is not None:
            self._listening.end()

    def __del__(self) -> None:
        if self._error is not None and not self._seen:
            told = self._error.traceback or str(self._error)
            _log.error("task failed id=%d, nobody awaits it: %s", self.id, told)
