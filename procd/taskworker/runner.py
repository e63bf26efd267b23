"""Running one task: claim, find its handler, call it, publish the result.

From the claim to finish() this process holds the record lock on the task's slot, so
whoever asks the kernel knows that it runs. CURRENT in the scoreboard says which token is
in hand from before it is taken until its dispatcher has been told: after a death it is
all that the master needs to look at.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from procd import logs
from procd.app import Server
from procd.errors import MessageTooBig, NoSuchTask, TaskRejected
from procd.ipc import hints, layout, wire
from procd.ipc.layout import Damaged, Meta
from procd.ipc.scoreboard import Cell
from procd.tasks import failure
from procd.tasks.plaincall import outside_of_loop
from procd.tasks.registry import TASKS
from procd.tasks.shared import Shared

CURRENT, DONE, FAILED = Cell.CURRENT, Cell.DONE, Cell.FAILED


class RunningTask:
    """See procd.Task for what an app may use."""

    __slots__ = (
        "_runner",
        "attempt",
        "data",
        "id",
        "is_finished",
        "meta",
        "name",
        "src_worker_id",
        "token",
    )

    def __init__(self, runner: Runner, token: int, meta: Meta, attempt: int) -> None:
        self._runner = runner
        self.meta = meta
        self.token = token
        self.id = meta.task_id or token
        self.attempt = attempt + 1
        self.src_worker_id = meta.src_worker_id
        self.name: str | None = None
        self.data: object = None
        self.is_finished = False

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name or ''}>"

    def finish(self, result: object) -> None:
        if not self.is_finished:
            self._runner.publish(self, wire.pack(result), failed=False)

    def fail(self, text: str, trace: str = "", kind: str = "") -> None:
        if not self.is_finished:
            packed = failure.pack(text, trace, self._runner.limit, kind)
            if not self._runner.publish(self, packed, failed=True):
                logs.log.error(
                    "task failed id=%d, its dispatcher is gone: %s", self.id, trace or text
                )


class Runner:
    """Runs one task at a time; *cells* is the process's row of the scoreboard."""

    def __init__(self, shared: Shared, server: Server, cells: memoryview) -> None:
        self._shared = shared
        self._server = server
        self._cells = cells
        self.limit = shared.arena.layout.slot_bytes  # of a failure

    def run(self, token: int) -> Coroutine[Any, Any, None] | Literal[False] | None:
        """Claim and run a task; return a coroutine to be awaited if its handler is async.

        False for a token that names nothing (old, doubled, foreign): it is dropped.
        """
        self._cells[CURRENT] = token
        try:
            claimed = self._shared.arena.claim(token)
        except Damaged as damaged:
            # Claimed, but not readable: its dispatcher is told by the chunk's owner.
            logs.error("task damaged", id=token, why=damaged)
            packed = failure.pack(f"its data is damaged: {damaged}", "", self.limit)
            self._shared.arena.finish(token, packed, failed=True)
            self._cells[FAILED] += 1
            self._tell(token, *self._shared.arena.dispatcher(token))
            return None
        if claimed is None:
            self._cells[CURRENT] = 0
            return False
        attempt, meta, payload = claimed
        task = RunningTask(self, token, meta, attempt)
        try:
            call = self._prepare(task, payload, meta)
            del claimed, payload  # may be large, and the handler has what was in it
            outcome = outside_of_loop(call)
        except BaseException as error:  # noqa: BLE001 - the app's; costs this task only
            self._failed(task, error)
            return None
        if inspect.iscoroutine(outcome):
            return self._await(task, outcome)
        self._finish(task, outcome)
        return None

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

    async def _await(self, task: RunningTask, outcome: Coroutine[Any, Any, object]) -> None:
        try:
            result = await outcome
        except BaseException as error:
            self._failed(task, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self._finish(task, result)

    def _finish(self, task: RunningTask, result: object) -> None:
        try:
            task.finish(result)
        except (TypeError, MessageTooBig, TaskRejected) as error:
            task.fail(f"{type(error).__name__}: its result: {error}")

    def _failed(self, task: RunningTask, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error)).strip()
        if task.is_finished:
            logs.log.error("task failed after it finished id=%d: %s", task.id, trace)
            return
        if isinstance(error, NoSuchTask):
            # Where that was found out tells nobody anything.
            task.fail(str(error), kind=failure.UNKNOWN)
            return
        text = "".join(traceback.format_exception_only(error)).strip()
        where = traceback.extract_tb(error.__traceback__)
        place = f" ({where[-1].filename}:{where[-1].lineno})" if where else ""
        task.fail(text + place, trace)

    def publish(self, task: RunningTask, packed: bytes, *, failed: bool) -> bool:
        """Put the result into the slot, let go of it, then tell the dispatcher.

        False if that is gone. Raises MessageTooBig, TaskRejected, and it is not finished then.
        """
        self._shared.arena.finish(task.token, packed, failed=failed)
        task.is_finished = True
        self._cells[FAILED if failed else DONE] += 1
        if task.meta.flags & layout.DURABLE:
            self._shared.ledger.ring()
        return self._tell(task.token, task.meta.src_row, task.meta.src_incarnation)

    def _tell(self, token: int, row: int, incarnation: int) -> bool:
        told = hints.tell(self._shared.post, self._shared.scoreboard, row, incarnation, token)
        self._cells[CURRENT] = 0
        return told
