"""What happens to the service: what its processes say, their deaths, a reload's end."""

from __future__ import annotations

import time

from procd import logs
from procd.errors import StartFailed
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Role
from procd.master import heirs, status
from procd.master.generations import BOTH
from procd.master.lifecycle import GOING, SEATED, Backoff, Event, Row, State
from procd.master.process import Death, Process
from procd.master.service import Service
from procd.service import sdnotify

STATUS_CHARACTERS = 200  # of one line for systemctl status


class Events:
    """The master's ears towards its own processes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    # What a process says

    def heard(self, process: Process, packet: Packet) -> None:
        """Take in one packet. What does not fit the process's state changes nothing."""
        service, state = self._service, process.row.state
        service.generations.heard(process, packet)
        match packet.kind:
            case "ready" if state is State.BOOTING:
                service.processes.step(process, Event.BECAME_READY)
                if process.row.seat.role is Role.BASE:
                    service.watching.base_is_ready()
            case "serving" if state in (State.CALLED, *GOING):
                self._serves(process)
            case "retire" if state is State.SERVING:
                logs.info("retires", pid=process.row.pid, why=packet.body.get("why"))
                service.processes.retire(process)
            case "shut":
                process.is_shut = True
            case "heir" if state is State.DRAINING:
                heirs.answer(service, process)
            case "queue is gone":
                service.recovery.queue_is_missed(time.monotonic())
            case "hashed" | "suspects":
                self._heard_of_files(packet)
            case "sources":
                self._imported(process.row.seat.generation)

    def _heard_of_files(self, packet: Packet) -> None:
        if packet.kind == "hashed":
            self._service.watching.hashed(packet)
        else:
            paths = packet.body.get("paths")
            suspects = [str(path) for path in paths] if isinstance(paths, list) else []
            self._service.watching.suspect(suspects)

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
        if row.seat.role in SEATED:
            blame = not (row.state is State.KILLED and service.stopping.is_asked)
            service.recovery.reaped(death.sitting, death.how, now, blame=blame)
        service.generations.died(death)
        lived = now - row.since
        fields = self._names(row) | {"pid": row.pid, "by": death.how, "lived": lived}
        if not was_told:
            logs.error("died", **fields)
        elif row.seat.role in SEATED:
            logs.info("gone", **fields)
        # Of one that boots or was refused a death is no restart.
        wanted = row.seat.generation in {0, *service.generations.reload.serving.values()}
        # One that is killed because it does not boot comes back no quicker than one that dies.
        if wanted and (not was_told or row.state is State.KILLED):
            held, key = service.processes.held, (row.seat.role, row.seat.number)
            held[row.seat] = held.get(row.seat, Backoff()).after_death(lived, now)
            restarts = service.processes.restarts
            restarts[key] = restarts.get(key, 0) + 1

    # A reload

    def config_is_read(self) -> None:
        """The config is about to be read again."""
        self._service.watching.config_is_read(self._service.config.path)
        sdnotify.reloading()

    def changed(self, names: list[str]) -> None:
        """The watch has found a reason to reload."""
        if not self._service.stopping.is_asked:
            self._service.generations.request(BOTH, names)

    def attempted(self, took_over: bool) -> None:  # noqa: FBT001 - a callback's one value
        """A reload is over, or the start is."""
        service, generations = self._service, self._service.generations
        if not generations.reload.serving:
            service.exit_status = StartFailed.exit_status
            service.say_ready(generations.last.error or "the app did not come up")
            service.stop(time.monotonic())
            return
        if took_over:
            self._take_over()
        info = generations.infos.get(generations.reload.generation)
        sources = {} if info is None else info.sources
        service.watching.attempt(generations.config, sources, refused=not took_over)
        service.say_ready(None)
        text = f"generation {max(generations.reload.serving.values())} serves"
        if not took_over:
            # A traceback's last line names the error.
            why = (generations.last.error or "").splitlines()
            text += f"; reload refused: {why[-1] if why else 'see the log'}"
        sdnotify.ready(text[:STATUS_CHARACTERS])

    def _take_over(self) -> None:
        service, generations = self._service, self._service.generations
        config, counts = generations.config, generations.counts
        service.processes.forget_held(set(generations.reload.serving.values()))
        service.scoreboard.set_counts(counts.worker, counts.task)
        service.recovery.max_attempts = config.task_max_attempts
        logs.set_level(config.log_level)
