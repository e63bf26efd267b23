"""What a worker and a task worker have in common: inbox, messages, results, handlers.

It is the process behind the app's Server. An exception in a handler is logged with its
traceback and ends nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from procd import logs
from procd.app import Handler
from procd.errors import NoSuchWorker, TaskFailed, TaskQueueFull, TaskTimeout
from procd.ipc import inbox, wire
from procd.ipc.channel import Closed, Packet
from procd.ipc.inbox import Addressed, Gone, Hint, Inbox, Inherited, Message
from procd.ipc.scoreboard import Cell, Role
from procd.spawn.allowance import pin
from procd.spawn.context import Context
from procd.tasks import memory, registry, safeguards
from procd.tasks.dispatcher import RETRY_SECONDS, Dispatcher
from procd.tasks.inheriting import Inheriting
from procd.tasks.reading import Reading
from procd.tasks.ref import TaskRef

# What a handler may raise at the cost of its own call; sys.exit() in one is no order to us.
HANDLER_ERRORS = (Exception, SystemExit, KeyboardInterrupt)
QUEUE_SECONDS = 0.1  # between two complaints that the token queue is gone
ROOM_SECONDS = 0.02  # how often task_wait looks whether somebody else's slot came free

_COUNTED = {
    "connections": Cell.CONNECTIONS,
    "requests": Cell.REQUESTS,
    "tasks_accepted": Cell.ACCEPTED,
    "tasks_done": Cell.DONE,
    "tasks_failed": Cell.FAILED,
    "tasks_refused": Cell.REFUSED,
    "tasks_retried": Cell.RETRIED,
    "tasks_expired": Cell.EXPIRED,
    "tasks_cancelled": Cell.CANCELLED,
    "bad_messages": Cell.BAD_MESSAGES,
    "unhandled_messages": Cell.UNHANDLED,
}


class ProcessHost:
    """The process behind a Server. *on_addressed* gets tokens that are for this process."""

    def __init__(self, context: Context, on_addressed: Callable[[int], None]) -> None:
        self.context = context
        self.loop = asyncio.get_running_loop()
        self.role, self.number = context.role, context.number
        self.generation, self.row = context.generation, context.row
        self.is_task_worker = context.role is Role.TASK
        self.cells = context.shared.scoreboard.row(context.row)
        context.shared.arena.spool.max_bytes = context.config.task_max_bytes
        self.handlers = context.server.handlers
        self.inbox = Inbox(context.origin.ipc_dir, context.row, context.incarnation)
        self.dispatcher = Dispatcher(
            *(context.shared, self, self.cells, self._finished),
            want_retry=lambda: self._later(RETRY_SECONDS, self.dispatcher.retry),
            tell_master=context.channel.send,
            timeout=context.config.task_timeout,
            frees_last=context.config.orphan_results == "deliver",
            later=self._later,
        )
        self._reading = Reading(self.dispatcher, self.inbox, self._take, self.loop.call_soon)
        self._inheriting = Inheriting(
            *(context.shared.arena, self.handlers, self.call, context.channel.send)
        )
        self._on_addressed = on_addressed
        context.shared.tokens.on_gone = self._queue_is_gone
        context.shared.tokens.on_garbage = self._count_garbage
        self._has_complained = self._finds_it_gone = False
        self._running: set[asyncio.Task[object]] = set()
        self.busy = 0  # handlers under way that a drain waits for
        self.changed = asyncio.Event()  # a drain should look again
        self.look_at_memory: Callable[[], None] = lambda: None  # after each request or task
        context.server.attach(self)
        registry.enter(self.dispatcher)

    @property
    def worker_id(self) -> int:
        return self.context.shared.scoreboard.worker_id(self.role, self.number)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(seconds, callback)

    # Handlers

    async def start(self) -> None:
        """Run on_worker_start; what it raises goes to the caller. Then read the inbox."""
        safeguards.let_go_in_children(self.context)
        handler = self.handlers.get("worker_start")
        self.loop.add_reader(self.inbox.fileno(), self.read_inbox)
        # Somebody may have set MISSED before there was an inbox to be woken by.
        self.loop.call_soon(self.read_inbox)
        if not self.is_task_worker:
            pin(self.context.config, self.number)
        self.context.adopt()
        if handler is not None:
            outcome = handler()
            if inspect.isawaitable(outcome):
                await outcome
        # Not before: boot_timeout bounds what came until here.
        safeguards.end_if_stuck(self.loop, self.context)
        tell = self.context.channel.send
        self.look_at_memory = memory.watched(self.context.config.max_memory, tell, self._later)
        self.context.on_started()

    def listen_to_master(self, obey: Callable[[Packet], None]) -> None:
        """Have *obey* called with each order of the master."""

        def read() -> None:
            try:
                packet = self.context.channel.receive()
            except Closed:
                os._exit(1)  # no master, no service
            if packet is not None:
                obey(packet)

        self.loop.add_reader(self.context.channel.fileno(), read)

    async def stop(self) -> None:
        """Run on_worker_stop and leave the inbox."""
        handler = self.handlers.get("worker_stop")
        if handler is not None:
            try:
                outcome = handler()
                if inspect.isawaitable(outcome):
                    await outcome
            except HANDLER_ERRORS:
                logs.log.exception("handler failed on=worker_stop")
        self.loop.remove_reader(self.inbox.fileno())
        self._reading.end()
        self.inbox.close()

    def call(self, event: str, handler: Handler, *args: object) -> asyncio.Task[object] | None:
        """Call a handler; log what it raises. Returns the task of an async one."""
        try:
            outcome = handler(*args)
        except HANDLER_ERRORS:
            logs.log.exception("handler failed on=%s", event)
            return None
        if inspect.iscoroutine(outcome):
            return self.run(event, outcome)
        return None

    def run(self, event: str, coroutine: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Run an async handler; a drain waits for it."""
        task = self.loop.create_task(self._logged(event, coroutine))
        # The loop holds tasks weakly.
        self._running.add(task)
        self.busy += 1
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        self.busy -= 1
        self.changed.set()

    async def _logged(self, event: str, coroutine: Coroutine[Any, Any, object]) -> object:
        try:
            return await coroutine
        except HANDLER_ERRORS:
            logs.log.exception("handler failed on=%s", event)
            return None

    async def change(self, seconds: float) -> None:
        """Wait until a drain should look again, for so long at most."""
        self.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()

    # Tasks

    def _queue_is_gone(self) -> None:
        """Tell the master, now and then, that the token queue is not there."""
        self._finds_it_gone = True
        if not self._has_complained:
            self._has_complained, self._finds_it_gone = True, False
            self.context.channel.send("queue is gone")
            self._later(QUEUE_SECONDS, self._complain_again)

    def _complain_again(self) -> None:
        """It may have been removed anew meanwhile, and nobody else may notice."""
        self._has_complained = False
        if self._finds_it_gone:
            self._queue_is_gone()

    def _count_garbage(self) -> None:
        self.cells[Cell.BAD_MESSAGES] += 1

    def task(self, payload: bytes, dst_worker_id: int | None) -> TaskRef:
        if dst_worker_id is None:
            return self.dispatcher.dispatch(payload)
        seat = self.context.shared.scoreboard.address(dst_worker_id)
        if seat is None or seat[0] is not Role.TASK:
            raise NoSuchWorker(f"no task worker has the id {dst_worker_id}: {self._ids()}")
        return self.dispatcher.dispatch(payload, seat=seat[1])

    def cancel_task(self, task_id: int) -> bool:
        return self.dispatcher.cancel(task_id)

    def _ids(self) -> str:
        workers, tasks = self.context.shared.scoreboard.counts()
        last = workers + tasks - 1
        return f"workers are 0..{workers - 1}, task workers {workers}..{last}"

    async def task_wait(self, payload: bytes, timeout: float | None) -> object:
        try:
            async with asyncio.timeout(timeout):
                return await (await self._accepted(payload))
        except TimeoutError:
            raise TaskTimeout(f"no result within {timeout:g} s") from None

    async def _accepted(self, payload: bytes) -> TaskRef:
        while True:
            try:
                return self.dispatcher.dispatch(payload)
            except TaskQueueFull:
                room: asyncio.Future[None] = self.loop.create_future()
                wake = _once(room)
                self.dispatcher.room_waiters.append(wake)
                # Room may also come from another process's slots, which tells nobody.
                timer = self.loop.call_later(ROOM_SECONDS, wake)
                try:
                    await room
                finally:
                    timer.cancel()
                    if wake in self.dispatcher.room_waiters:
                        self.dispatcher.room_waiters.remove(wake)

    def _finished(self, ref: TaskRef, value: object, error: TaskFailed | None) -> None:
        handler = self.handlers.get("finish")
        if handler is not None and error is None:
            self.call("finish", handler, ref.id, value)
        self.changed.set()

    @property
    def waits_for_results(self) -> bool:
        """Tell whether somebody here would miss a result that is still to come."""
        listens = "finish" in self.handlers
        is_delayed = self.context.shared.arena.is_delayed  # perhaps for days
        is_followed = self.dispatcher.followers.has
        return self.dispatcher.follows.is_awaited or any(
            ref.is_awaited or is_followed(token) or (listens and not is_delayed(token))
            for token, ref in self.dispatcher.pending.items()
            if not ref.is_done
        )

    # Messages

    def send_message(self, data: object, dst_worker_id: int) -> None:
        shared = self.context.shared
        address = shared.scoreboard.address(dst_worker_id)
        if address is None:
            raise NoSuchWorker(f"no worker has the id {dst_worker_id}: {self._ids()}")
        datagram = inbox.message(self.worker_id, data)
        if address == (self.role, self.number):
            # To oneself: after the handler that sends it has returned.
            self.loop.call_soon(self._take, memoryview(datagram))
            return
        seat = shared.scoreboard.find(*address, self.generation)
        if seat is None:
            raise NoSuchWorker(f"worker {dst_worker_id} is not up at the moment: try again")
        try:
            shared.post.send(seat.row, seat.incarnation, datagram)
        except Gone:
            raise NoSuchWorker(f"worker {dst_worker_id} has just died: try again") from None

    def read_inbox(self) -> None:
        self._reading.read()

    def _take(self, datagram: memoryview) -> None:
        try:
            item = inbox.parse(datagram)
        except wire.Undecodable:
            self.cells[Cell.BAD_MESSAGES] += 1
            return
        match item:
            case Hint(token):
                self.dispatcher.take_hint(token)
            case Addressed(token):
                self._on_addressed(token)
            case Message(src, data):
                self._message(src, data)
            case Inherited(tokens):
                self._inheriting.take(tokens)
            case _:
                self.dispatcher.take_note(item)

    def _message(self, src_worker_id: int, data: object) -> None:
        handler = self.handlers.get("pipe_message")
        if handler is None:
            self.cells[Cell.UNHANDLED] += 1
            logs.warning("message without a handler", src=src_worker_id, on="pipe_message")
            return
        self.call("pipe_message", handler, src_worker_id, data)

    def stats(self) -> dict[str, int]:
        return {name: self.cells[cell] for name, cell in _COUNTED.items()} | {
            "tasks_pending": len(self.dispatcher.pending)
        }


def _once(future: asyncio.Future[None]) -> Callable[[], None]:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    return wake
