"""Carrying out what lifecycle's plan says: one function an action."""

from __future__ import annotations

from procd import logs
from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Role
from procd.master import heirs
from procd.master.ledgers import LEDGER_GRACE
from procd.master.lifecycle import Action, Call, Fork, Hurry, Kill, Stop
from procd.master.process import Process
from procd.master.service import Service
from procd.master.states import BESIDE, BY_BASE, Event, Row, Seat, State
from procd.spawn.context import Kind

HUNG_SECONDS = 5.0  # a fork takes milliseconds
BASE_PATIENCE = 4  # boot_timeouts for a base to import, beside all else, what an app does in one


class Actions:
    """The master's hands."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def do(self, action: Action, now: float) -> None:
        """Carry out one action."""
        if isinstance(action, Fork):
            self._fork(action.seat, now)
            return
        processes = self._service.processes
        process = processes.table.get(action.row)
        if process is None:
            return
        match action:
            case Call():
                processes.step(process, Event.CALL)
                is_ingress = process.row.seat.role is Role.INGRESS
                body = self._service.ingresses.where() if is_ingress else {}
                processes.send(process, "serve", body)
            case Stop():
                grace = self._service.generations.config.max_wait_time
                deadline = min(now + grace, self._service.stopping.deadline)
                if process.row.seat.role is Role.LEDGER:  # the last to go, by then
                    deadline = max(deadline, now + LEDGER_GRACE)
                processes.step(process, Event.STOP, deadline)
                heirs.drain(self._service, process)
            case Hurry():
                processes.hurry(process, now)
                self._service.drain(process)
            case Kill():
                if process.row.state is State.DRAINING:
                    logs.warning("killed at its deadline", pid=process.row.pid)
                processes.kill(process)
                if not process.row.pid and now - process.row.since > HUNG_SECONDS:
                    self._kill_parent(process)

    def _kill_parent(self, process: Process) -> None:
        """Who was told to fork it has not: it hangs, and is replaced."""
        processes, seat = self._service.processes, process.row.seat
        by_base = seat.role in (Role.TEMPLATE, Role.SPARE)
        parent = self._service.base() if by_base else processes.template(seat.generation)
        if parent is not None:
            logs.error("killed: it does not fork", pid=parent.row.pid)
            processes.kill(parent)

    def _fork(self, seat: Seat, now: float) -> None:
        service = self._service
        reload = service.generations.reload
        if seat.role in BY_BASE:
            order = self._fork_base if seat.role is Role.BASE else self._fork_spare
            seconds = BASE_PATIENCE * service.generations.config.boot_timeout
            service.processes.fork(seat, now + seconds, order)
            return
        if seat.role in BESIDE:
            order = {
                Role.GATE: service.gates.fork,
                Role.INGRESS: service.ingresses.fork,
                Role.LEDGER: service.ledgers.fork,
                Role.LOGGER: service.loggers.fork,
            }[seat.role]
            patience = BASE_PATIENCE if seat.role is Role.LEDGER else 1  # it may have much to read
            seconds = patience * service.generations.config.boot_timeout
            service.processes.fork(seat, now + seconds, order)
            return
        deadline = now + service.generations.infos[seat.generation].config.boot_timeout
        if seat.generation == reload.generation:
            deadline = max(deadline, reload.deadline + 1)  # the reload's own comes first
        if seat.role is Role.TEMPLATE:
            self._fork_template(seat, deadline)
        else:
            service.processes.fork(seat, deadline, self._fork_seated)

    def _fork_base(self, row: Row, channel: Channel) -> bool:
        service = self._service
        origin, config = service.origin, service.generations.config
        recipe = service.bases.recipe(row.seat.generation)

        def body() -> int:
            # Here and not at the top: the master has no use for what the base imports.
            from procd.spawn.base import Base

            return Base(origin, channel, recipe.allowance).run(config, recipe.modules, recipe.env)

        return service.processes.fork_own(body, row, channel)

    def _fork_spare(self, row: Row, channel: Channel) -> bool:
        output = self._service.processes.outputs.writer(row)
        fds = [channel.fileno(), output] if output >= 0 else [channel.fileno()]
        return self._service.tell_base("fork", {}, fds)

    def _fork_template(self, seat: Seat, deadline: float) -> None:
        """Have the spare become a template, or one that is forked now; it imports the app."""
        service = self._service
        processes = service.processes
        template = processes.spare(service.bases.number)
        if template is None:
            template = processes.fork(seat, deadline, self._fork_spare)
        else:
            processes.take(template, seat, deadline)
        if template is None:
            return  # there is nobody to fork it
        info = service.generations.infos[seat.generation]
        kind = Kind.BARE if info.unfit else Kind.REBORN if info.has_template else Kind.NEW
        body: dict[str, object] = {
            "config": info.config.plain(),
            "generation": seat.generation,
            "kind": int(kind),
        }
        processes.send(template, "import", body)
        service.tell_base("look", {"row": template.row.row, "generation": seat.generation})

    def _fork_seated(self, row: Row, channel: Channel) -> bool:
        seat = row.seat
        template = self._service.processes.template(seat.generation)
        if template is None:
            return False
        output = self._service.processes.outputs.writer(row)
        fds = [channel.fileno(), output] if output >= 0 else [channel.fileno()]
        if seat.role is Role.WORKER:
            mine = self._service.listening.of(seat.generation)
            fds += [listener.socket.fileno() for listener in mine]
        body: dict[str, object] = {
            "role": int(seat.role),
            "number": seat.number,
            "row": row.row,
            "incarnation": row.incarnation,
            "has_output": output >= 0,
        }
        return self._service.processes.send(template, "fork", body, fds)
