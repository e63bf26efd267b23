"""What can cut the task that runs here short: its timeout, and that somebody cancels it.

Softly first: an error is raised in its handler, in a plain one by a signal's handler (between two
bytecodes of this process's only thread; in C code as soon as that returns), in an async one at
what it awaits. A timer of the kernel ends the process should the handler not be over
a grace later, whatever it is stuck in; for one that is cancelled the master does that.

A signal may come at any moment, also just before or after the handler's call: it does something
only while this room says that the call is under way.
"""

from __future__ import annotations

import asyncio
import signal
import time
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any

from procd.errors import TaskCancelled, TaskFailed, TaskTimeout
from procd.ipc import terms
from procd.ipc.arena import Arena
from procd.ipc.scoreboard import Cell
from procd.linux.timers import Deadline
from procd.tasks import failure
from procd.tasks.plaincall import outside_of

NANOSECONDS = 1_000_000_000


class Limits:
    """One task worker's. *raised* is the error that was put into the present task's handler."""

    def __init__(self, arena: Arena, cells: memoryview) -> None:
        self.raised: TaskFailed | None = None
        self._arena = arena
        self._cells = cells
        self._token = 0  # of the task in hand
        self._timeout = 0.0
        self._overdue_at = 0.0
        self._is_in_handler = False  # a plain one
        self._loop = events._get_running_loop()  # noqa: SLF001 - as tasks.plaincall
        self._coroutine: asyncio.Task[Any] | None = None  # that an async one runs in
        self._timers: tuple[Deadline, Deadline] | None = None  # soft, hard; made when needed
        signal.signal(terms.NUDGE, lambda *_: self._nudged())

    @property
    def kind(self) -> str:
        """In a failure's words, what has been raised."""
        if self.raised is None:
            return ""
        return failure.TIMEOUT if isinstance(self.raised, TaskTimeout) else failure.CANCELLED

    def begin(self, token: int, timeout: float) -> None:
        """A task is about to be run; *timeout* 0 = as long as it likes."""
        self.raised = None
        self._token, self._timeout = token, timeout
        if timeout:
            self._begin_time(timeout)

    def _begin_time(self, timeout: float) -> None:
        if self._timers is None:
            self._timers = Deadline(1, terms.NUDGE), Deadline(1, signal.SIGKILL)
        soft, hard = self._timers
        soft.seconds, hard.seconds = timeout, timeout + terms.grace(timeout)
        now = time.monotonic()
        self._overdue_at = now + timeout
        # Before the timer: else the master could not tell why this process died.
        self._cells[Cell.DEADLINE] = int((now + hard.seconds) * NANOSECONDS)
        hard.put_off()
        soft.put_off()

    def end(self) -> None:
        """The handler is over: nothing cuts it short any more."""
        self._token = 0
        if self.raised is not None:
            # Perhaps just where these were about to be put right.
            self._is_in_handler = False
            events._set_running_loop(self._loop)  # noqa: SLF001
        if self._timeout and self._timers is not None:
            for timer in self._timers:
                timer.cancel()
            self._cells[Cell.DEADLINE] = 0
            self._timeout = 0.0

    def call(self, handler: Callable[[], object]) -> object:
        """Call a plain handler, or the beginning of an async one."""
        try:
            self._is_in_handler = True
            if self._arena.is_cancelled(self._token):  # a nudge before that did nothing
                self._nudged()
            return outside_of(self._loop, handler)
        finally:
            self._is_in_handler = False

    async def await_(self, handler: Coroutine[Any, Any, object]) -> object:
        """Await an async handler."""
        self._coroutine = current = asyncio.current_task()
        try:
            self._nudged()  # what came since its call has found nobody
            return await handler
        except asyncio.CancelledError:
            if self.raised is None or current is None:
                raise
            current.uncancel()
            raise self.raised from None
        finally:
            self._coroutine = None

    def _nudged(self) -> None:
        """Raise in the handler, or have it raised, if it should not go on."""
        if not self._token or self.raised is not None:
            return
        if self._coroutine is not None:
            # Perhaps in the middle of the loop's own work.
            self._coroutine.get_loop().call_soon_threadsafe(self._cut, self._token)
        elif self._is_in_handler:
            error = self._verdict()
            if error is not None:
                self.raised = error
                raise error

    def _cut(self, token: int) -> None:
        error = self._verdict() if token == self._token else None
        if error is not None and self._coroutine is not None:
            self.raised = error
            self._coroutine.cancel()

    def _verdict(self) -> TaskFailed | None:
        if self._arena.is_cancelled(self._token):
            return TaskCancelled("cancelled while it ran")
        if self._timeout and time.monotonic() >= self._overdue_at:
            return TaskTimeout(f"it ran for longer than its timeout of {self._timeout:g} s")
        return None
