"""The parts of one running service, and the few verbs that concern several of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from procd import logs
from procd.config.schema import Config
from procd.ipc.scoreboard import Scoreboard
from procd.master.files import Files
from procd.master.generations import Generations
from procd.master.lifecycle import SEATED, State, Want
from procd.master.listeners import Listener
from procd.master.loop import Loop
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.recovery import Recovery
from procd.master.stopping import Stopping
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
    listeners: list[Listener]
    scoreboard: Scoreboard
    recovery: Recovery
    origin: Origin
    ready: Ready
    stopping: Stopping = field(default_factory=Stopping)
    began: float = field(default_factory=time.monotonic)
    exit_status: int = 0
    processes: Processes = field(init=False)
    generations: Generations = field(init=False)
    watching: Watching = field(init=False)
    count_refused: Callable[[], int] = field(default=lambda: 0)  # control requests
    _is_said: bool = False  # ready or not

    def want(self) -> Want:
        """Return what there should be now."""
        want = self.generations.want()
        return self.stopping.want(want) if self.stopping.is_asked else want

    def tell_base(self, kind: str, body: dict[str, object], fds: Sequence[int] = ()) -> bool:
        """Order the base to do something; False when there is none at the moment."""
        base = self.processes.base()
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
            "move": self.moves,
        }
        self.processes.send(process, "drain", body, fds)

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
            sdnotify.stopping()
            self.watching.close()
            self.generations.refuse_all("the service is stopping")
            self.close_listeners()
        for process in self.processes.table.values():
            if process.row.state is State.DRAINING:
                self.processes.hurry(process, self.stopping.deadline)
                self.drain(process)

    def close_listeners(self) -> None:
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener.close()
