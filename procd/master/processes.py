"""The process table's edge: forking, hearing, killing and reaping what lifecycle decides.

Each process has a row (scoreboard), a channel and, once its pid is known, a pidfd: signals
go through that, so they never hit somebody else's reused pid.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf

from procd import logs
from procd.ipc import inbox, words
from procd.ipc.channel import Channel, Closed, Packet
from procd.ipc.scoreboard import Role, Scoreboard, Standing
from procd.ipc.scoreboard import Seat as Sitting
from procd.master.backoff import Backoff
from procd.master.loop import Loop
from procd.master.outputs import Outputs
from procd.master.process import Death, Process, describe
from procd.master.states import BESIDE, BY_BASE, Event, Row, Seat, State, spare_seat
from procd.spawn import child
from procd.spawn.context import Origin

STRANGERS_KEPT = 1024  # exit statuses of pids that no channel has named yet


class Processes:
    """*on_packet* hears what processes say, *on_death* that one is reaped."""

    def __init__(
        self,
        origin: Origin,
        loop: Loop,
        on_packet: Callable[[Process, Packet], None],
        on_death: Callable[[Death], None],
        outputs: Outputs,
    ) -> None:
        self.outputs = outputs
        self.table: dict[int, Process] = {}
        self.held: dict[Seat, Backoff] = {}
        self.restarts: dict[tuple[Role, int], int] = {}
        self._origin = origin
        self._scoreboard: Scoreboard = origin.scoreboard
        self._loop = loop
        self._on_packet = on_packet
        self._on_death = on_death
        self._incarnation = 0
        self._statuses: dict[int, int] = {}  # of reaped pids that nobody has named

    def rows(self) -> list[Row]:
        return [process.row for process in self.table.values()]

    def ready(self, seat: Seat) -> Process | None:
        """Return who sits there, if it takes orders."""
        return self._in(seat, (State.READY,))

    def spare(self, base: int) -> Process | None:
        """Return the spare that was forked from a base; orders to one that comes up wait."""
        return self._in(spare_seat(base), (State.READY, State.BOOTING, State.FORKING))

    def template(self, generation: int) -> Process | None:
        """Return a generation's template, if it takes orders; those to one that imports wait."""
        return self._in(Seat(Role.TEMPLATE, 0, generation), (State.READY, State.BOOTING))

    def _in(self, seat: Seat, states: tuple[State, ...]) -> Process | None:
        found = (p for p in self.table.values() if p.row.seat == seat)
        return next((p for p in found if p.row.state in states), None)

    def are_gone(self, but: Role) -> bool:
        """Tell whether nobody is left, except of one role."""
        return all(row.seat.role is but for row in self.rows())

    def forget_held(self, generations: set[int]) -> None:
        """A new generation took over: earlier deaths do not count any more."""
        self.held = {
            seat: backoff
            for seat, backoff in self.held.items()
            if seat.role in (*BY_BASE, *BESIDE) or seat.generation in generations
        }

    # Forking

    def fork(
        self, seat: Seat, deadline: float, order: Callable[[Row, Channel], bool]
    ) -> Process | None:
        """Give *seat* a row and a channel, and have *order* bring the process about; return it.

        order(row, the process's end) returns False when there is nobody to fork it.
        """
        number = self._free_row()
        if number is None:
            logs.error("no free row: too many processes", rows=self._scoreboard.rows)
            return None
        now = time.monotonic()
        self._incarnation += 1
        row = Row(number, self._incarnation, seat, State.FORKING, now, deadline)
        try:
            self.outputs.open(row)
            ours, theirs = Channel.pair()
        except OSError as error:
            self.outputs.over(row)
            logs.error("no process forked", why=error.strerror, cure="raise LimitNOFILE")
            self.held[seat] = self.held.get(seat, Backoff(1)).after_death(0, now)
            return None
        process = Process(row, ours, restarts=self.restarts.get((seat.role, seat.number), 0))
        self.table[number] = process
        self._scoreboard.seat(_sitting(row, Standing.BOOTING))
        self._loop.read(ours, lambda: self._hear(process))
        is_ordered = order(row, theirs)
        self.outputs.is_forked(row)
        if not is_ordered:
            self._drop(process)
        theirs.close()
        return process if is_ordered else None

    def take(self, spare: Process, seat: Seat, deadline: float) -> None:
        """Have a spare sit in *seat* from now on, as if it had just been forked for that."""
        row = spare.row.step(Event.TAKE)
        row = spare.row = replace(row, seat=seat, since=time.monotonic(), deadline=deadline)
        self.outputs.named(row)
        self._scoreboard.seat(_sitting(row, Standing.BOOTING))

    def _free_row(self) -> int | None:
        for number in range(1, min(self._scoreboard.rows, words.MAX_ROWS)):
            if number not in self.table:
                return number
        return None

    def fork_own(
        self, body: Callable[[], int], row: Row, channel: Channel, keep: Collection[int] = ()
    ) -> bool:
        """Fork a process that runs *body* and is the master's own: base, ingress, gate, ledger.

        Of the master's descriptors it also has those in *keep*.
        """
        try:
            fds = {*self._origin.fds, channel.fileno(), *keep}
            pid = child.fork(body, fds, self.outputs.writer(row))
        except OSError as error:
            logs.error("fork failed", why=error.strerror)
            return False
        self._forked(self.table[row.row], pid)
        return True

    # Hearing

    def _hear(self, process: Process) -> None:
        while process.row.row in self.table and self.table[process.row.row] is process:
            try:
                packet = process.channel.receive()
            except Closed:
                self._closed(process)
                return
            if packet is None:
                return
            for fd in packet.fds:  # nobody has any to give us
                os.close(fd)
            if packet.kind == "forked":
                pid = packet.body.get("pid")
                if isinstance(pid, int) and not process.row.pid:
                    self._forked(process, pid)
            else:
                self._on_packet(process, packet)

    def _forked(self, process: Process, pid: int) -> None:
        process.row = replace(process.row, pid=pid).step(Event.FORKED)
        process.forked = time.monotonic()
        self.outputs.named(process.row)
        self._scoreboard.stand(process.row.row, pid, Standing.BOOTING)
        status = self._statuses.pop(pid, 0)
        try:
            process.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died(process, status)  # it was reaped before its pid was read
            return
        except OSError as error:
            # Its pid is as good: it is our child, and nobody else's before we reap it.
            logs.error("no pidfd", pid=pid, why=error.strerror, cure="raise LimitNOFILE")
        # It is still there to be reaped: a status that was kept was an earlier owner's.
        if process.row.state is State.KILLED:
            self._signal(process)

    def _closed(self, process: Process) -> None:
        """The channel has ended: its process leaves, and is reaped; or was never forked."""
        self._loop.forget(process.channel)
        process.channel.close()
        if not process.row.pid:
            self._drop(process)

    def _drop(self, process: Process) -> None:
        """Take out a row that never became a process."""
        del self.table[process.row.row]
        self.outputs.over(process.row)
        self._scoreboard.clear(process.row.row)
        if process.channel.fileno() >= 0:
            self._loop.forget(process.channel)
            process.channel.close()
        if process.row.state is not State.KILLED:  # else it was not wanted any more
            seat, now = process.row.seat, time.monotonic()
            self.held[seat] = self.held.get(seat, Backoff(1)).after_death(0, now)

    # Orders

    def send(
        self, process: Process, kind: str, body: dict[str, object], fds: Sequence[int] = ()
    ) -> bool:
        if process.channel.fileno() < 0:
            return False
        sent = process.channel.send(kind, body, fds)
        if not sent:
            logs.warning("process does not listen", pid=process.row.pid, order=kind)
        return sent

    def step(self, process: Process, event: Event, deadline: float = inf) -> None:
        process.row = process.row.step(event, deadline)
        state = process.row.state
        if state is State.SERVING:
            standing = Standing.SERVING
        elif state in (State.DRAINING, State.KILLED):
            standing = Standing.LEAVING
        else:
            standing = Standing.BOOTING
        self._scoreboard.stand(process.row.row, process.row.pid, standing)

    def kill(self, process: Process) -> None:
        self.step(process, Event.KILL)
        if process.row.pid:
            self._signal(process)

    @staticmethod
    def hurry(process: Process, deadline: float) -> None:
        """Bring a deadline forward."""
        process.row = replace(process.row, deadline=min(process.row.deadline, deadline))

    @staticmethod
    def retire(process: Process) -> None:
        process.row = replace(process.row, retires=True)

    @staticmethod
    def _signal(process: Process) -> None:
        with suppress(ProcessLookupError):
            if process.pidfd >= 0:
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
            else:
                os.kill(process.row.pid, signal.SIGKILL)

    @staticmethod
    def is_dead(process: Process) -> bool:
        """Tell whether it has died and only waits to be reaped."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, process.row.pid, flags) is not None

    # Reaping

    def reap(self) -> dict[int, int]:
        """Reap whatever has died; return the statuses of pids that are no process here."""
        strangers = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            process = self._of(pid)
            if process is None:
                # Its pid may still stand unread in a channel; who reads it finds the status.
                self._statuses[pid] = status
                for other in [p for p in self.table.values() if not p.row.pid]:
                    self._hear(other)
                if pid in self._statuses:
                    strangers[pid] = status
            else:
                self._died(process, status)
        while len(self._statuses) > STRANGERS_KEPT:
            del self._statuses[next(iter(self._statuses))]
        return strangers

    def _of(self, pid: int) -> Process | None:
        return next((p for p in self.table.values() if p.row.pid == pid), None)

    def _died(self, process: Process, status: int) -> None:
        self._last_words(process)
        row, sitting = process.row, _sitting(process.row, Standing.LEAVING)
        self.table.pop(row.row, None)
        self.outputs.over(row)
        self._scoreboard.clear(row.row)
        if process.pidfd >= 0:
            os.close(process.pidfd)
        if process.channel.fileno() >= 0:
            self._loop.forget(process.channel)
            process.channel.close()
        inbox.remove(inbox.path_of(self._origin.ipc_dir, row.row, row.incarnation))
        self._on_death(Death(process, sitting, describe(status)))

    def _last_words(self, process: Process) -> None:
        """Read what it said before its end: why it failed, what it had imported."""
        while process.channel.fileno() >= 0:
            try:
                packet = process.channel.receive()
            except Closed:
                return
            if packet is None:
                return
            for fd in packet.fds:
                os.close(fd)
            if packet.kind != "forked":
                self._on_packet(process, packet)


def _sitting(row: Row, standing: Standing) -> Sitting:
    seat = row.seat
    names = (row.row, row.incarnation, row.pid, seat.generation, seat.role, seat.number)
    return Sitting(*names, standing)
