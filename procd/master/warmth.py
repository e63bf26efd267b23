"""What bases say, and what becomes of it: which one forks is bases.py's to decide.

A base reads the disk for the master, forks templates, and tells after each fork whether what
it had preloaded is still what the disk holds: if not, what boots from it is begun anew.
"""

from __future__ import annotations

import time

from procd import logs
from procd.ipc.channel import Packet
from procd.master.process import Process
from procd.master.service import Service
from procd.master.states import GOING, Event, Row, State


class Warmth:
    """The master's dealings with its bases."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def heard(self, base: Process, packet: Packet) -> None:
        """Take in one packet of a base."""
        service = self._service
        match packet.kind:
            case "ready" if base.row.state is State.BOOTING:
                service.processes.step(base, Event.BECAME_READY)
                self._is_ready(base, packet)
            case "importing":
                service.bases.imports(base.row.seat.generation, str(packet.body.get("package")))
            case "unfit":
                self._is_unfit(base, packet)
            case "looked":
                self._looked(packet)
            case "hashed":
                service.watching.hashed(packet)
            case "suspects":
                service.watching.suspect(packet.texts("paths"))

    def _is_ready(self, base: Process, packet: Packet) -> None:
        service, number = self._service, base.row.seat.generation
        if modules := packet.number("modules"):
            logs.info("base warm", modules=modules, seconds=time.monotonic() - base.row.since)
        service.bases.became_ready(number)
        if number == service.bases.number:
            service.watching.base_is_ready()
        if service.generations.is_idle:
            self.settle()

    def settle(self) -> None:
        """No attempt is under way: a warm base may take over, or be made."""
        service = self._service
        if service.bases.take_over():
            service.watching.base_is_ready()
        service.bases.settle(service.generations.config)

    def _is_unfit(self, base: Process, packet: Packet) -> None:
        service = self._service
        module, why = str(packet.body.get("module")), str(packet.body.get("why"))
        logs.warning("not preloaded: not fit to be forked", module=module, because=why)
        service.bases.is_unfit(base.row.seat.generation, module, why)
        service.processes.kill(base)

    def _looked(self, packet: Packet) -> None:
        service, generations = self._service, self._service.generations
        template = service.processes.table.get(packet.number("row"))
        if template is None or template.row.state in GOING:
            return
        generation = template.row.seat.generation
        info = generations.infos.get(generation)
        if info is not None:
            info.is_looked_at = True
        changed = packet.body.get("changed")
        if changed and generations.trial and generation == generations.reload.generation:
            service.bases.disk_changed()
            generations.again(f"{changed} has changed since it was preloaded")

    def died(self, row: Row, how: str) -> None:
        """A base has died: by its own fault or somebody's, or told to go."""
        service, generations = self._service, self._service.generations
        number, lived = row.seat.generation, time.monotonic() - row.since
        if service.stopping.is_asked:
            return
        has_forked = number == service.bases.number
        is_late = row.state is State.KILLED
        why = "its import does not end" if is_late else f"its import ends the base: {how}"
        blamed = service.bases.died(number, why, lived, is_late=is_late)
        if blamed:
            logs.warning("not preloaded", module=blamed, because=why)
        elif blamed == "":
            logs.warning("nothing is preloaded: the base dies of it", by=how)
        if not has_forked or not generations.trial:
            return
        if not generations.infos[generations.reload.generation].is_looked_at:
            generations.again("the base has died")
