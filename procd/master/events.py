"""What happens to the service: what its processes say, their deaths, a reload's end."""

from __future__ import annotations

import time

from procd import logs
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Role
from procd.master import heirs, status
from procd.master.asked import Ended
from procd.master.backoff import Backoff
from procd.master.process import Death, Process
from procd.master.service import Service
from procd.master.states import DISPATCHING, GOING, SEATED, Event, Row, Seat, State
from procd.master.steps import named
from procd.master.warmth import Warmth
from procd.service import sdnotify
from procd.spawn import stacks

STATUS_CHARACTERS = 200  # of one line for systemctl status
SPARE_SECONDS = 0.1  # after an attempt


class Events:
    """The master's ears towards its own processes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._warmth = Warmth(service)

    # What a process says

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet. What does not fit the process's state changes nothing."""
        match process.row.seat.role:
            case Role.BASE:
                self._warmth.heard(process, packet)
            case Role.SPARE:
                if packet.kind == "waits" and process.row.state is State.BOOTING:
                    self._service.processes.step(process, Event.BECAME_READY)
            case Role.GATE:
                self._service.gates.heard(process, packet)
                self._heard_of_tasks(packet)
            case Role.INGRESS:
                self._service.ingresses.heard(process, packet)
            case Role.LEDGER:
                self._service.ledgers.heard(process, packet)
                self._heard_of_tasks(packet)
            case Role.LOGGER:
                self._service.loggers.heard(process, packet)
            case _:
                self._service.generations.heard(process, packet)
                self._heard(process, packet)

    def _heard(self, process: Process, packet: Packet) -> None:
        service, state = self._service, process.row.state
        match packet.kind:
            case "ready" if state is State.BOOTING:
                service.processes.step(process, Event.BECAME_READY)
            case "waits" if state is State.BOOTING and process.row.seat.role is Role.SPARE:
                service.processes.step(process, Event.BECAME_READY)
            case "serving" if state in (State.CALLED, *GOING):
                self._serves(process)
            case "retire" if state is State.SERVING:
                logs.info("retires", pid=process.row.pid, why=packet.body.get("why"))
                service.processes.retire(process)
            case "shut":
                process.is_shut = True
            case "heir" if state is State.DRAINING:
                heirs.answer(service, process)
            case "modules":
                service.bases.learn({name: file or "" for name, file in packet.pairs().items()})
            case "sources":
                self._imported(process.row.seat.generation)
            case _:
                self._heard_of_tasks(packet)

    def _heard_of_tasks(self, packet: Packet) -> None:
        service, now = self._service, time.monotonic()
        match packet.kind:
            case "delayed":
                service.recovery.delays.learn(packet.number("id"))
            case "cancel":
                service.cancelling.cancel(packet.number("id"), now)
            case "through":
                heard = packet.body.get("heard") is True
                service.recovery.successors.through(packet.body.get("ids"), heard=heard)
                service.recovery.sweep_soon(now)
            case "queue is gone":
                service.recovery.queue_is_missed(now)

    def _serves(self, process: Process) -> None:
        service, now = self._service, time.monotonic()
        service.processes.step(process, Event.SERVES)
        row = process.row
        logs.info("ready", **self._names(row), pid=row.pid, boot=now - row.since)
        if row.seat.role is Role.TASK:
            # It may be the one that addressed tasks wait for.
            service.recovery.readdress()
            service.recovery.retry(now)
            service.recovery.ring()

    def _imported(self, generation: int) -> None:
        """A process that serves has imported something more: watch that, too."""
        generations = self._service.generations
        info = generations.infos.get(generation)
        if info is not None and generation in generations.reload.serving.values():
            self._service.watching.also(info.sources)

    def _names(self, row: Row) -> dict[str, object]:
        seat = row.seat
        names: dict[str, object] = {"role": status.ROLES[seat.role]}
        if seat.role in SEATED:
            names["id"] = self._service.scoreboard.worker_id(seat.role, seat.number)
        return names | {"generation": seat.generation}

    # A death

    def died(self, death: Death) -> None:
        """Put right what a reaped process left, and hold back its successor if need be."""
        service, now, row = self._service, time.monotonic(), death.process.row
        was_told = row.state in GOING
        if row.seat.role in DISPATCHING:
            blame = not (row.state is State.KILLED and service.stopping.is_asked)
            service.recovery.reaped(death.sitting, death.how, now, blame=blame)
        service.generations.died(death)
        stacks.forget(service.files.ipc_dir, row.pid)
        if row.seat.role is Role.LEDGER:
            service.ledgers.died()
        if row.seat.role is Role.LOGGER:
            service.loggers.died()
        lived = now - row.since
        fields = self._names(row) | {"pid": row.pid, "by": death.how, "lived": lived}
        if not was_told:
            logs.error("died", **fields)
        elif row.seat.role in SEATED:
            logs.info("gone", **fields)
        if not service.stopping.is_asked:
            is_app = row.seat.role in SEATED
            title = f"{fields['role']} {fields['id']} pid {row.pid}" if is_app else None
            service.strangers.look(title)
        is_wanted = self._is_wanted(row.seat)
        if row.seat.role is Role.BASE:
            self._warmth.died(row, death.how)
        # One that is killed because it does not boot comes back no quicker than one that dies.
        if is_wanted and (not was_told or row.state is State.KILLED):
            held, key = service.processes.held, (row.seat.role, row.seat.number)
            held[row.seat] = held.get(row.seat, Backoff()).after_death(lived, now)
            restarts = service.processes.restarts
            restarts[key] = restarts.get(key, 0) + 1

    def _is_wanted(self, seat: Seat) -> bool:
        """Tell whether a death there is a restart: of one that boots or was refused it is none."""
        service = self._service
        match seat.role:
            case Role.BASE | Role.SPARE:
                return seat.generation == service.bases.number
            case Role.GATE:
                return service.gates.wanted is not None
            case Role.INGRESS:
                return seat.number == service.ingresses.number
            case Role.LEDGER | Role.LOGGER:
                return True
            case _:
                return seat.generation in service.generations.reload.serving.values()

    # A reload

    def config_is_read(self) -> None:
        """The config is about to be read again."""
        self._service.watching.config_is_read(self._service.config.path)
        sdnotify.reloading()

    def will_boot(self, config: Config) -> None:
        """A generation of this config is about to boot."""
        if self._service.generations.reload.serving:
            sdnotify.reloading()
        else:
            sdnotify.starting(config.boot_timeout)
        self._service.bases.begin(config)

    def is_settled(self) -> bool:
        """Tell whether what boots is, as far as is known, what the disk holds."""
        return self._service.watching.is_settled

    def changed(self, names: list[str], joined: list[str]) -> None:
        """The watch has found *names* to be a reason to reload; *joined* are in what boots."""
        generations, config_name = self._service.generations, self._service.watching.config_name
        is_config, is_edit = config_name in names, names == [config_name]
        if self._service.stopping.is_asked:
            return
        if generations.trial is not None:
            last, more = generations.last, [] if is_config else names
            last.cause = tuple(dict.fromkeys((*last.cause, *joined, *more)))
        if not names:
            return
        if generations.trial is not None and not is_config:
            generations.again(named(tuple(names)))
        else:
            generations.asked.ask(SEATED, names, is_edit=is_edit, reads_config=is_config)

    def attempted(self, ended: Ended) -> None:
        """A reload is over, or the start is."""
        service, generations = self._service, self._service.generations
        if not generations.reload.serving:
            service.exit_status = StartFailed.exit_status
            service.say_ready(generations.last.error or "the app did not come up")
            service.stop(time.monotonic())
            return
        if ended is Ended.WON:
            service.processes.forget_held(set(generations.reload.serving.values()))
        if ended is not Ended.REFUSED:
            self._put_into_effect()
        self._warmth.settle()
        info = generations.infos.get(generations.reload.generation)
        sources = {} if info is None else info.sources
        is_refused = generations.last.state == "refused"
        service.watching.attempt(generations.config, sources, refused=is_refused)
        service.say_ready(None)
        # When what has just happened is over: it would take time from that.
        service.spare_at = time.monotonic() + SPARE_SECONDS
        text = f"generation {max(generations.reload.serving.values())} serves"
        if is_refused:
            why = (generations.last.error or "").splitlines()
            text += f"; reload refused: {why[0] if why else 'see the log'}"
        sdnotify.ready(text[:STATUS_CHARACTERS])

    def _put_into_effect(self) -> None:
        """Have everybody follow the config as it is now."""
        service, config = self._service, self._service.generations.config
        service.listening.set_backlog(config.backlog)
        service.ingresses.follow(config)
        service.gates.follow(config)
        service.loggers.follow(config)
        service.recovery.max_attempts = config.task_max_attempts
        service.recovery.successors.is_on = config.orphan_results == "deliver"
        service.set_log_level(config.log_level)
        service.count()
