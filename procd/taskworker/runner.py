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
from asyncio import events
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal

from procd import logs
from procd.app import Server
from procd.errors import InboxFull, MessageTooBig, NoSuchTask, TaskRejected
from procd.ipc import inbox, layout, wire
from procd.ipc.inbox import Gone
from procd.ipc.layout import Damaged, Meta
from procd.ipc.scoreboard import Cell
from procd.tasks import failure
from procd.tasks.dispatcher import Shared
from procd.tasks.registry import TASKS

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
    )

    def __init__(self, runner: Runner, token: int, meta: Meta, attempt: int) -> None:
        self._runner = runner
        self.meta = meta
        self.id = token
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
            tell(self._shared, *self._shared.arena.dispatcher(token), token)
            self._cells[CURRENT] = 0
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
            task.fail(
                str(error), kind=failure.UNKNOWN
            )  # where that was found out tells nobody anything
            return
        text = "".join(traceback.format_exception_only(error)).strip()
        where = traceback.extract_tb(error.__traceback__)
        place = f" ({where[-1].filename}:{where[-1].lineno})" if where else ""
        task.fail(text + place, trace)

    def publish(self, task: RunningTask, packed: bytes, *, failed: bool) -> bool:
        """Put the result into the slot, let go of it, then tell the dispatcher.

        False if that is gone. Raises MessageTooBig, TaskRejected, and it is not finished then.
        """
        self._shared.arena.finish(task.id, packed, failed=failed)
        task.is_finished = True
        self._cells[FAILED if failed else DONE] += 1
        told = tell(self._shared, task.meta.src_row, task.meta.src_incarnation, task.id)
        self._cells[CURRENT] = 0
        return told


def tell(shared: Shared, row: int, incarnation: int, token: int) -> bool:
    """Hint to a dispatcher that a result of its is there; False if it is gone.

    A full inbox sets MISSED and is tried once more: either the second hint arrives, or the
    dispatcher still has to read, and looks at MISSED after that. One that is gone needs no
    hint: the master frees what it left.
    """
    datagram = inbox.hint(token)
    with suppress(InboxFull):
        try:
            shared.post.send(row, incarnation, datagram)
        except InboxFull:
            shared.scoreboard.set(row, Cell.MISSED, 1)
            shared.post.send(row, incarnation, datagram)
        except Gone:
            return False
    return True


def outside_of_loop(call: Callable[[], object]) -> object:
    """Call a plain handler as if no event loop ran, so that it may use asyncio.run itself.

    A task worker's loop has nothing else to do meanwhile: it runs one task at a time.
    """
    loop = events._get_running_loop()  # noqa: SLF001 - for who implements loops, as we do here
    events._set_running_loop(None)  # noqa: SLF001
    try:
        return call()
    finally:
        events._set_running_loop(loop)  # noqa: SLF001
