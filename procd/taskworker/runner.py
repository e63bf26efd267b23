"""Running one task: claim, find its handler, call it, publish the result.

From the claim to finish() this process holds the record lock on the task's slot, so
whoever asks the kernel knows that it runs. CURRENT in the scoreboard says which token is
in hand from before it is taken until its dispatcher has been told: after a death it is
all that the master needs to look at.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from procd import logs
from procd.app import Server
from procd.errors import MessageTooBig, NoSuchTask, TaskRejected
from procd.ipc import hints, layout, wire
from procd.ipc.layout import Damaged, Meta
from procd.ipc.scoreboard import Cell
from procd.ipc.terms import TERMS, Terms
from procd.tasks import current, failure, options
from procd.tasks.limits import Limits
from procd.tasks.registry import TASKS
from procd.tasks.running import RunningTask
from procd.tasks.shared import Shared

CURRENT, DONE, FAILED = Cell.CURRENT, Cell.DONE, Cell.FAILED
_NO_TERMS = Terms()


class Runner:
    """Runs one task at a time; *cells* is the process's row of the scoreboard."""

    def __init__(
        self,
        shared: Shared,
        server: Server,
        cells: memoryview,
        tell_master: Callable[[str, dict[str, object]], object] = lambda _kind, _body: None,
    ) -> None:
        self._shared = shared
        self._server = server
        self._cells = cells
        self._tell_master = tell_master
        self._limits = Limits(shared.arena, cells)
        self.limit = shared.arena.layout.slot_bytes  # of a failure

    def run(self, token: int) -> Coroutine[Any, Any, None] | Literal[False] | None:
        """Claim and run a task; return a coroutine to be awaited if its handler is async.

        False for a token that names nothing (old, doubled, foreign): it is dropped.
        """
        arena = self._shared.arena
        self._cells[CURRENT] = token
        try:
            claimed = arena.claim(token)
        except Damaged as damaged:
            self._damaged(token, damaged)
            return None
        if claimed is None:
            self._cells[CURRENT] = 0
            return False
        attempt, meta, payload = claimed
        terms = arena.terms(token) if meta.flags & TERMS else _NO_TERMS
        task = RunningTask(self, self._shared.post, token, meta, attempt, terms)
        if terms.expires and time.time() >= terms.expires:
            task.fail("its ttl was over before it could begin", kind=failure.EXPIRED)
            return None
        try:
            call = self._prepare(task, payload, meta)
        except Exception as error:  # noqa: BLE001 - of whatever data; costs this task only
            self._failed(task, error)
            return None
        del claimed, payload  # may be large, and the handler has what was in it
        return self._call(task, call)

    def _damaged(self, token: int, damaged: Damaged) -> None:
        """Claimed, and nothing in its slot can be believed: a person should look at it."""
        logs.error("task damaged", id=token, why=damaged)
        packed = failure.pack(f"its data is damaged: {damaged}", "", self.limit)
        self._shared.arena.finish(token, packed, failed=True, is_dead=True)
        self._cells[FAILED] += 1
        self._shared.ledger.ring()
        self._cells[CURRENT] = 0

    def _prepare(self, task: RunningTask, payload: bytes, meta: Meta) -> Callable[[], object]:
        data = wire.unpack(payload)
        if not meta.flags & layout.NAMED:
            task.data = data
            handler = self._server.handlers.get("task")
            if handler is None:
                raise NoSuchTask("this generation of the app has no on_task handler")
            return lambda: handler(task)
        if not isinstance(data, list) or len(data) != 3 or not isinstance(data[0], str):
            raise wire.Undecodable("not a named task")
        name, args, kwargs = data
        task.name, task.data = name, {"args": args, "kwargs": kwargs}
        named = TASKS.get(name)
        if named is None:
            raise NoSuchTask(f"this generation of the app has no task {name!r}")
        return lambda: named.function(*args, **kwargs)

    def _call(
        self, task: RunningTask, handler: Callable[[], object]
    ) -> Coroutine[Any, Any, None] | None:
        current.enter(task)
        try:
            self._limits.begin(task.token, task.terms.timeout)
            outcome = self._limits.call(handler)
        except BaseException as error:  # noqa: BLE001 - the app's; costs this task only
            self._raised(task, error)
            return None
        if inspect.iscoroutine(outcome):
            return self._await(task, outcome)
        self._finish(task, outcome)
        return None

    async def _await(self, task: RunningTask, outcome: Coroutine[Any, Any, object]) -> None:
        try:
            result = await self._limits.await_(outcome)
        except BaseException as error:
            self._raised(task, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self._finish(task, result)

    def _finish(self, task: RunningTask, result: object) -> None:
        self._limits.end()
        current.leave()
        try:
            task.finish(result)
        except (TypeError, MessageTooBig, TaskRejected) as error:
            task.fail(f"{type(error).__name__}: its result: {error}")

    def _raised(self, task: RunningTask, error: BaseException) -> None:
        """Its handler raised *error*: try again later, or that is how it ends."""
        self._limits.end()
        current.leave()
        kind = self._limits.kind if error is self._limits.raised else ""
        is_over = task.is_finished or kind == failure.CANCELLED
        if task.terms.failures < task.terms.retries and not is_over:
            self._try_again(task, error)
        else:
            self._failed(task, error, kind)

    def _try_again(self, task: RunningTask, error: BaseException) -> None:
        terms, token = task.terms, task.token
        again = options.retried(terms, time.time())
        task.is_finished = True
        self._shared.arena.postpone(token, again)
        self._cells[Cell.RETRIED] += 1
        self._tell_master("delayed", {"id": token})
        self._cells[CURRENT] = 0
        logs.warning("task is tried again", id=task.id, because=failure.told(error)[0])

    def _failed(self, task: RunningTask, error: BaseException, kind: str = "") -> None:
        text, trace = failure.told(error)
        if task.is_finished:
            logs.log.error("task failed after it finished id=%d: %s", task.id, trace)
        elif isinstance(error, NoSuchTask):
            # Where that was found out tells nobody anything.
            task.fail(str(error), kind=failure.UNKNOWN)
        else:
            is_dead = task.terms.retries > 0 and kind != failure.CANCELLED
            if is_dead:
                logs.error("task dead", id=task.id, why=f"it used up its retries: {text}")
            task.fail(str(error) if kind else text, trace, kind, is_dead=is_dead)

    def publish(
        self, task: RunningTask, packed: bytes, counter: Cell, *, is_dead: bool = False
    ) -> bool:
        """Put the result into the slot, let go of it, then tell the dispatcher.

        Of a dead one the ledger is told, which tells the dispatcher. False if that is gone.
        Raises MessageTooBig, TaskRejected, and it is not finished then.
        """
        failed = counter is not DONE
        self._shared.arena.finish(task.token, packed, failed=failed, is_dead=is_dead)
        task.is_finished = True
        self._cells[counter] += 1
        if is_dead or task.meta.flags & layout.DURABLE:
            self._shared.ledger.ring()
        if is_dead:
            self._cells[CURRENT] = 0
            return True
        return self._tell(task.token, task.meta.src_row, task.meta.src_incarnation)

    def _tell(self, token: int, row: int, incarnation: int) -> bool:
        told = hints.tell(self._shared.post, self._shared.scoreboard, row, incarnation, token)
        self._cells[CURRENT] = 0
        return told
