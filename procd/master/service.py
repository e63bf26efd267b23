"""The parts of one running service, and the few verbs that concern several of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.ipc.scoreboard import Role, Scoreboard
from procd.logger.entry import LEVELS
from procd.master.bases import Bases
from procd.master.cancelling import Cancelling
from procd.master.files import Files
from procd.master.gates import Gates
from procd.master.generations import Generations
from procd.master.ingresses import Ingresses
from procd.master.ledgers import LEDGER_GRACE, Ledgers
from procd.master.ledgers import SEAT as LEDGER_SEAT
from procd.master.lifecycle import Want
from procd.master.listening import Listening
from procd.master.loggers import SEAT as LOGGER_SEAT
from procd.master.loggers import Loggers
from procd.master.loop import Loop
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.recovery import Recovery
from procd.master.states import DISPATCHING, GOING, SEATED, UP, Seat, State, base_seat
from procd.master.stopping import Stopping
from procd.master.strangers import Strangers
from procd.master.watching import Watching
from procd.service import sdnotify
from procd.spawn.context import Origin

Ready = Callable[[str | None], None]


@dataclass(slots=True)
class Service:
    """Built by Master; whoever acts for the master is given this.

    *ready* is called once: with None when the first generation serves, else with why not.
    """

    config: Config  # as it was at the start
    files: Files
    loop: Loop
    listening: Listening
    scoreboard: Scoreboard
    recovery: Recovery
    origin: Origin
    ready: Ready
    stopping: Stopping = field(default_factory=Stopping)
    began: float = field(default_factory=time.monotonic)
    exit_status: int = 0
    spare_at: float = inf  # from when on the next template is forked ahead
    processes: Processes = field(init=False)
    cancelling: Cancelling = field(init=False)
    generations: Generations = field(init=False)
    bases: Bases = field(init=False)
    watching: Watching = field(init=False)
    ingresses: Ingresses = field(init=False)
    ledgers: Ledgers = field(init=False)
    gates: Gates = field(init=False)
    strangers: Strangers = field(init=False)
    loggers: Loggers = field(init=False)
    count_refused: Callable[[], int] = field(default=lambda: 0)  # control requests
    _is_said: bool = False  # ready or not

    def want(self) -> Want:
        """Return what there should be now."""
        want = self.generations.want()
        if self.stopping.is_asked:
            want = self.stopping.want(want)
        return replace(
            want,
            base=self.bases.number,
            next_base=self.bases.next_number,
            has_spare=self._may_fork_ahead(),
            beside=(LOGGER_SEAT, *self._from_outside(), *self._ledger(bool(want.shares))),
        )

    def _from_outside(self) -> tuple[Seat, ...]:
        """Return the seats of those that take tasks from other programs."""
        if not self.generations.reload.serving or self.stopping.is_asked:
            return ()
        wanted = (self.ingresses.wanted, self.gates.wanted)
        return tuple(seat for seat in wanted if seat is not None)

    def _ledger(self, serves: bool) -> tuple[Seat, ...]:  # noqa: FBT001 - a private condition
        """Return the seat of a ledger if there should be one: it goes after all others."""
        if self.stopping.is_asked:
            rows = [row for row in self.processes.rows() if row.seat.role in DISPATCHING]
            # One that is about to open its file would leave it half made.
            is_wanted = self.ledgers.is_up and any(
                row.seat.role is not Role.LEDGER or row.state not in (*UP, *GOING) for row in rows
            )
        else:
            is_wanted = serves and self.ledgers.is_needed(self.generations.counts.task)
        return (LEDGER_SEAT,) if is_wanted else ()

    def _may_fork_ahead(self) -> bool:
        is_late = time.monotonic() >= self.spare_at
        return is_late and self.generations.is_idle and not self.stopping.is_asked

    def base(self) -> Process | None:
        """Return the base that forks, if it takes orders."""
        return self.processes.ready(base_seat(self.bases.number))

    def tell_base(self, kind: str, body: dict[str, object], fds: Sequence[int] = ()) -> bool:
        """Order the base to do something; False when there is none at the moment."""
        base = self.base()
        return base is not None and self.processes.send(base, kind, body, fds)

    @property
    def moves(self) -> bool:
        """Tell whether open connections move to who stays."""
        return self.generations.config.on_reload == "move" and not self.stopping.is_asked

    def drain(self, process: Process, fds: Sequence[int] = ()) -> None:
        """Tell a process to drain until its row's deadline; *fds* lead to its heir."""
        body: dict[str, object] = {
            "deadline": process.row.deadline,
            "close_idle": self.stopping.is_asked,
            "leaving": self.listening.leaving(process.row.seat.generation),
            "move": self.moves,
            "discard": self.stopping.discards,
        }
        self.processes.send(process, "drain", body, fds)

    def set_log_level(self, level: str) -> None:
        """Have the master and every process log from this level on."""
        if logs.log.level == LEVELS[level]:
            return
        logs.set_level(level)
        for process in self.processes.table.values():
            self.processes.send(process, "log", {"level": level})

    def is_well(self) -> bool:
        """Tell whether clients are served or about to be; systemd's watchdog asks."""
        going = (State.DRAINING, State.KILLED)
        return self.stopping.is_asked or any(
            row.seat.role is Role.WORKER and row.state not in going for row in self.processes.rows()
        )

    def count(self) -> None:
        """Tell the processes how many there are now, and tasks who is there to run them."""
        counts = self.generations.counts
        self.scoreboard.set_counts(counts.worker, counts.task)
        self.processes.outputs.counted()
        self.recovery.readdress()
        self.recovery.retry(time.monotonic())

    def publish(self) -> None:
        """Keep true what others read: the worker pid file."""
        up = [
            (row.seat.role, row.seat.number, row.pid)
            for row in self.processes.rows()
            if row.state is State.SERVING and row.seat.role in SEATED
        ]
        self.files.write_pids([pid for _, _, pid in sorted(up)])

    def say_ready(self, failure: str | None) -> None:
        """Tell the starter, the first time, whether the service serves."""
        if not self._is_said:
            self._is_said = True
            self.publish()
            self.ready(failure)

    def stop(self, deadline: float, *, discard: bool = False) -> None:
        """Begin to stop, or hurry a stop that is under way."""
        first = not self.stopping.is_asked
        self.stopping.ask(deadline, discard=discard)
        if first:
            logs.info("stopping", pid=os.getpid())
            sdnotify.stopping(deadline - time.monotonic())
            self.watching.close()
            self.generations.close("the service is stopping")
            self.listening.close()
            self.gates.close()
        for process in self.processes.table.values():
            if process.row.state is State.DRAINING:
                self.processes.hurry(process, self.stopping.deadline)
                self.drain(process)
            elif process.row.seat.role is Role.LEDGER and process.row.state not in UP:
                self.processes.hurry(process, self.stopping.deadline + LEDGER_GRACE)
