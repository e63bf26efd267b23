"""The master's side of the ledger: that there is one, and what is asked of it.

It never waits for the ledger: a question is sent on its way, and answered when the answer
comes or the ledger dies.
"""

from __future__ import annotations

import time
from pathlib import Path

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.ledger import files
from procd.master.control import Json, Reply
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.recovery import Recovery
from procd.master.states import GOING, UP, Event, Row, Seat, State
from procd.spawn.context import Origin

LEDGER_GRACE = 3.0  # seconds to write down what came last
SEAT = Seat(Role.LEDGER, 0, 0)


class Ledgers:
    """*path* is that of the ledger's file; *recovery* is told if it misses the token queue."""

    def __init__(
        self,
        config: Config,
        origin: Origin,
        processes: Processes,
        recovery: Recovery,
        path: Path,
    ) -> None:
        self.letters = 0  # dead letters that lie there
        self.is_up = False  # one was asked for: it stays until the service ends
        self._config = config
        self._origin = origin
        self._processes = processes
        self._recovery = recovery
        self._path = path
        self._error: str | None = None
        self._asked: dict[int, Reply] = {}
        self._unasked: list[tuple[Json, Reply]] = []  # until there is somebody to ask
        self._last = 0
        self._is_empty = False
        self._waiting = 0  # tasks in the file that the arena does not hold, when it was closed

    def is_needed(self, task_workers: int) -> bool:
        """Tell whether there should be one: where tasks can run, and from then on."""
        self.is_up = self.is_up or task_workers > 0
        return self.is_up

    def fork(self, row: Row, channel: Channel) -> bool:
        """Fork a ledger for a row."""
        origin, config, path = self._origin, self._config, self._path

        def body() -> int:
            # Here and not at the top: the master has no use for what the ledger imports.
            from procd.ledger.ledger import Ledger

            return Ledger(origin, channel, row.row, row.incarnation).run(config, path)

        return self._processes.fork_own(body, row, channel)

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet of a ledger."""
        processes, state = self._processes, process.row.state
        match packet.kind:
            case "ready" if state is State.BOOTING:
                self._error = None
                processes.step(process, Event.BECAME_READY)
            case "serving" if state in (State.CALLED, *GOING):
                processes.step(process, Event.SERVES)
                boot = time.monotonic() - process.row.since
                logs.info("ready", role="ledger", pid=process.row.pid, boot=boot)
                unasked, self._unasked = self._unasked, []
                for body, reply in unasked:
                    self._pass_on(process, body, reply)
            case "letters":
                self.letters = packet.number("count")
            case "failed":
                self._error = str(packet.body.get("error")) or None
                self._refuse_unasked()
            case "answer":
                self._answered(packet)
            case "closed":
                self._is_empty = packet.body.get("is_empty") is True
                self._waiting = packet.number("waiting")

    # Questions

    def ask(self, request: Json, reply: Reply) -> None:
        """Pass a question about tasks on; *reply* is called later."""
        self.is_up = True
        ledger = next((p for p in self._processes.table.values() if _is_up(p)), None)
        if ledger is not None:
            self._pass_on(ledger, request, reply)
            return
        self._unasked.append((request, reply))
        if self._error is not None:
            self._refuse_unasked()

    def _pass_on(self, ledger: Process, request: Json, reply: Reply) -> None:
        self._last += 1
        if self._processes.send(ledger, "ask", {**request, "ask": self._last}):
            self._asked[self._last] = reply
        else:
            reply({"ok": False, "exit": 1, "error": "the ledger does not listen: see the log"})

    def _refuse_unasked(self) -> None:
        unasked, self._unasked = self._unasked, []
        for _, reply in unasked:
            reply({"ok": False, "exit": 1, "error": f"no ledger to ask: {self._error}"})

    def _answered(self, packet: Packet) -> None:
        reply = self._asked.pop(packet.number("ask"), None)
        answer = packet.body.get("answer")
        if reply is not None and isinstance(answer, dict):
            reply(answer)

    def died(self) -> None:
        """The ledger is gone: answer who waits."""
        asked, self._asked = self._asked, {}
        for reply in asked.values():
            text = "the ledger died before it could answer: try again, or see the log"
            reply({"ok": False, "exit": 1, "error": text})

    def page(self) -> Json:
        """Return what `status` tells."""
        return {"error": self._error}

    # The end

    def close(self) -> int:
        """Remove a file in which nothing is; return how many tasks only the file keeps."""
        if self._is_empty:
            files.remove(self._path)
        else:
            files.tidy(self._path)
        return self._waiting


def _is_up(process: Process) -> bool:
    return process.row.seat.role is Role.LEDGER and process.row.state in UP
