"""The generation that boots: whether it may be judged yet, and when it boots anew.

What is on the disk may change while it is imported, and a warm base may have preloaded what
is there no more. Then the same generation boots once more, before anybody has judged it.
"""

from __future__ import annotations

from collections.abc import Mapping

from procd import logs
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Role
from procd.master.generation import Generation, Trial
from procd.master.process import Process
from procd.master.processes import Processes
from procd.master.reload import Phase, Reload
from procd.master.states import BY_BASE, SEATED, State

MOST_BOOTS = 8  # of one generation; then it is taken as it is, and the next look sees the rest


class Booting:
    """*infos* is what is known of each generation, by number."""

    def __init__(self, infos: Mapping[int, Generation], processes: Processes) -> None:
        self._infos = infos
        self._processes = processes
        self._said = ""  # why an app was unfit, last

    def trial(self, reload: Reload) -> Trial | None:
        """Return what boots at the moment."""
        if reload.phase is not Phase.BOOTING:
            return None
        info, failed = self._infos[reload.generation], reload.failure is not None
        return Trial(info.sources, info.has_template or failed, failed)

    def is_tired(self, reload: Reload) -> bool:
        """Tell whether it has been begun anew often enough."""
        return self._infos[reload.generation].boots > MOST_BOOTS

    def has_base_said(self, reload: Reload) -> bool:
        """Tell whether the base has said if what it had preloaded is what the disk holds."""
        return self._infos[reload.generation].is_looked_at or reload.failure is not None

    def again(self, reload: Reload, why: str) -> Reload:
        """Boot anew: end all that there is of the coming generation."""
        number = reload.generation
        info = self._infos[number]
        info.boots += 1
        info.is_looked_at = False
        info.steps.imported = None
        if not info.unfit:
            info.sources, info.has_template = {}, False
        for process in list(self._processes.table.values()):
            if process.row.seat.generation == number and process.row.seat.role not in BY_BASE:
                self._processes.kill(process)
        logs.info("generation boots anew", generation=number, because=why)
        return reload.again()

    def heard(self, reload: Reload, process: Process, packet: Packet, now: float) -> Reload:
        """A template or process of a generation says something about its code."""
        seat = process.row.seat
        info = self._infos.get(seat.generation)
        is_template = seat.role is Role.TEMPLATE
        if info is None or (is_template and process.row.state is State.KILLED):
            return reload  # the second: last words of one that another has taken the place of
        match packet.kind:
            case "sources":
                info.sources |= {path: str(digest) for path, digest in packet.pairs().items()}
            case "failed":
                process.error = str(packet.body.get("error"))
            case "unfit" if is_template:
                return self._is_unfit(reload, seat.generation, str(packet.body.get("why")))
            case "ready" if is_template:
                info.has_template = True
                info.steps.imported = info.steps.imported or now
        return reload

    def is_ready(self, reload: Reload, now: float) -> None:
        """All of the coming generation are ready: note when, and when they were forked."""
        steps = self._infos[reload.generation].steps
        mine = [
            process
            for process in self._processes.table.values()
            if process.row.seat.generation == reload.generation and process.row.seat.role in SEATED
        ]
        steps.forked = max((process.forked for process in mine), default=now)
        steps.ready = now

    def _is_unfit(self, reload: Reload, number: int, why: str) -> Reload:
        """Nothing can be forked from the app once it is imported: each process imports it."""
        info = self._infos[number]
        info.unfit, info.has_template = why, True
        if why != self._said:
            self._said = why
            logs.warning("not fit to be forked: each process imports the app", because=why)
        boots = reload.phase is Phase.BOOTING and number == reload.generation
        return self.again(reload, "not fit to be forked") if boots else reload
