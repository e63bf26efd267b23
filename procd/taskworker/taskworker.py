"""A task worker: takes one task after the other until it is told to drain.

One wait for everything: the doorbell (nested, so that one ring wakes one process), the
inbox, and the master's word. Drained it finishes the task that it runs and leaves; what
was addressed to it and not begun goes to its successor.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import deque

from procd import logs
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import TAKING, Cell
from procd.linux import process
from procd.spawn.allowance import give_way
from procd.spawn.context import Context
from procd.tasks.host import ProcessHost
from procd.tasks.jitter import with_jitter
from procd.tasks.safeguards import retire_on_sigterm
from procd.taskworker.runner import Runner

BATCH_SECONDS = 0.005  # tasks run in one turn of the loop, before messages are looked at


class TaskWorker:
    """One task worker process; run() is its life."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.host = ProcessHost(context, on_addressed=self._take_addressed)
        self.loop = asyncio.get_running_loop()
        tell_master = context.channel.send
        self._runner = Runner(context.shared, context.server, self.host.cells, tell_master)
        self._addressed: deque[int] = deque()
        self._epoll = select.epoll()
        context.shared.doorbell.wait_in(self._epoll)
        self._is_waiting = False  # for the doorbell
        self._serves = False
        self._is_running = False  # an async task
        self._retires_at = with_jitter(context.config.task_max_request)
        self._count = 0
        self._max_rss = context.config.task_max_rss
        self._deadline = float("inf")
        self._drains = asyncio.Event()

    async def run(self) -> int:
        """Return the exit status."""
        give_way()
        await self.host.start()
        channel = self.context.channel
        retire_on_sigterm(channel)
        self.host.listen_to_master(self._obey)
        channel.send("ready")
        await self._drains.wait()
        await self._drain()
        await self.host.stop()
        return 0

    def _obey(self, packet: Packet) -> None:
        if packet.kind == "serve":
            self._serves = True
            self.context.channel.send("serving")
            self._wait()
            self._run_addressed()
        elif packet.kind == "drain":
            self._deadline = float(str(packet.body.get("deadline", 0)))
            self._serves = False
            self._wait()
            self.context.channel.send("shut")
            self._drains.set()
            self.host.changed.set()
        elif packet.kind == "log":
            logs.ordered(packet.body.get("level"), packet.fds)

    def _wait(self) -> None:
        """Listen to the doorbell, or not, as things stand."""
        wanted = self._serves and not self._is_running
        if wanted and not self._is_waiting:
            self.loop.add_reader(self._epoll.fileno(), self._answer)
        elif self._is_waiting and not wanted:
            self.loop.remove_reader(self._epoll.fileno())
        self._is_waiting = wanted

    def _answer(self) -> None:
        """The doorbell rang: take tasks for a while, then let others have the loop."""
        until = time.monotonic() + BATCH_SECONDS
        doorbell = self.context.shared.doorbell
        while not self._is_running and self._serves and doorbell.answer():
            self._take_one()
            if time.monotonic() >= until:
                return

    def _take_one(self) -> None:
        """Run the next task, for one ring; what is dropped has not used it up."""
        cells, tokens = self.host.cells, self.context.shared.tokens
        while True:
            # From here to CURRENT = token a death loses a token that nobody can name.
            cells[Cell.CURRENT] = TAKING
            token = tokens.receive()
            if token is None:
                cells[Cell.CURRENT] = 0
                return
            if self._run(token):
                return

    def _take_addressed(self, token: int) -> None:
        self._addressed.append(token)
        # Not within the handler that reads the inbox.
        self.loop.call_soon(self._run_addressed)

    def _run_addressed(self) -> None:
        while self._addressed and self._serves and not self._is_running:
            self._run(self._addressed.popleft())

    def _run(self, token: int) -> bool:
        """Run a task, or begin to; False if the token named none."""
        outcome = self._runner.run(token)
        if outcome is False:
            return False
        if outcome is None:
            self._ran()
            return True
        self._is_running = True
        self._wait()
        self.host.run("task", outcome).add_done_callback(lambda _: self._ran_async())
        return True

    def _ran_async(self) -> None:
        self._is_running = False
        self._ran()
        self._wait()
        self._run_addressed()

    def _ran(self) -> None:
        self._count += 1
        if self._count == self._retires_at:
            self.context.channel.send("retire", {"why": "task_max_request"})
        elif self._max_rss is not None and process.own_rss() > self._max_rss:
            self._max_rss = None  # asked for once
            self.context.channel.send("retire", {"why": "task_max_rss"})
        self.host.look_at_memory()

    async def _drain(self) -> None:
        host = self.host
        while host.busy or host.waits_for_results or host.dispatcher.has_unsent:
            left = self._deadline - time.monotonic()
            if left <= 0:
                return
            await host.change(min(left, 1.0))
