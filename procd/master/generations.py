"""Carrying out reloads and edits of the config, as reload.py judges: from request to answer.

A request that comes while one is under way joins the next: only that holds what is on disk now.
"""

from __future__ import annotations

import dataclasses
import time
from math import inf

from procd import logs
from procd.config import change
from procd.config.change import Edit
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Role
from procd.master.applying import Applying, edited, missing
from procd.master.asked import Asked, Ended, Outcome, Request
from procd.master.booting import Booting
from procd.master.closing import Closing, give_rest
from procd.master.configreader import ConfigReader
from procd.master.generation import Around, Generation, Last, Trial
from procd.master.lifecycle import Want, draining_generations
from procd.master.listening import Listening
from procd.master.process import Death, Process
from procd.master.processes import Processes
from procd.master.reload import Counts, Phase, Reload, Verdict
from procd.master.states import BESIDE, BY_BASE, SEATED, UP, State
from procd.master.steps import Steps, named


class Generations:
    """The reloads of one service. *around* is told of each step, and asked."""

    def __init__(
        self,
        config: Config,
        reader: ConfigReader,
        processes: Processes,
        listening: Listening,
        around: Around,
    ) -> None:
        self.config = config
        self.config_error: str | None = None
        self.needs_restart: tuple[str, ...] = ()  # keys whose new values wait for one
        self.counts = Counts(config.worker_num, config.task_worker_num)
        self.reload = Reload()
        self.last = Last()
        self.refusal: Last | None = None  # the last one, whatever came after it
        self.asked = Asked()
        self.infos: dict[int, Generation] = {}
        self._coming = config
        self._coming_counts = self.counts
        self._reader = reader
        self._processes = processes
        self._listening = listening
        self._around = around
        self._booting = Booting(self.infos, processes)
        self._settled = Last()  # the last one that was no refusal of the config
        self._refused_config: Config | None = None  # with which the last generation was refused
        self._leaves_keys = False  # in effect is less of the file than was read of it
        self._applying: Applying | None = None
        self._is_reading = False
        self._closing = Closing()

    # Requests

    def close(self, why: str) -> None:
        """The service is about to stop: begin nothing more, and answer everybody."""
        self._reader.cancel()
        self.asked.refuse_all(why)

    def start(self, now: float) -> None:
        """Begin the first generation."""
        self._begin(self.config, SEATED, ("start",), now)

    @property
    def is_idle(self) -> bool:
        return self.reload.phase is Phase.IDLE and not self._is_reading and not self.asked

    def _take_request(self, now: float) -> None:
        if self._is_reading or self._closing or not self.reload.serving:
            return
        request = self.asked.take()
        if request is None:
            return
        causes = tuple(request.causes)
        if self._has_read(request):  # to read it takes longer than all the rest
            self._begin(self.config, request.roles, causes, now)
            return
        self._is_reading = True
        self.last = Last("booting", None, self.last.error, causes)
        self._around.config_is_read()
        self._reader.read(now, lambda read: self._read(read, request, causes))

    def _has_read(self, request: Request) -> bool:
        """Tell whether what the file of the config says is in effect already."""
        if self._refused_config or self._leaves_keys:
            return False
        is_current = not self.config_error and self._reader.is_current()
        return not request.reads_config or (is_current and not request.is_edit)

    def _read(self, read: Config | str, request: Request, causes: tuple[str, ...]) -> None:
        self._is_reading = False
        if isinstance(read, str):
            self._refuse_config(read, causes)
            return
        self.config_error = None
        edit = change.compare(self.config, read)
        self.needs_restart = edit.waits
        if edit.waits:
            logs.warning("config change needs a restart", keys=",".join(edit.waits))
        if request.is_edit and not edit.takes_generation(self._refused_config):
            self._apply(edit, causes, time.monotonic())
        else:
            self._begin(edit.new, request.roles, causes, time.monotonic())

    def _begin(
        self, config: Config, roles: tuple[Role, ...], causes: tuple[str, ...], now: float
    ) -> None:
        if Role.WORKER in roles:
            try:
                number = self.reload.generation + 1
                self._listening.prepare(number, config, self._reader.hosts)
            except StartFailed as error:
                self._refuse_config(str(error), causes)
                return
        else:
            config = change.keeping(self.config, config, change.OF_WORKERS)
            self._leaves_keys = True
        self._applying = None
        self._around.will_boot(config)
        self._coming = config
        self._coming_counts = edited(self.counts, self.config, config)
        self.reload = self.reload.begin(roles, now, config.boot_timeout)
        self.infos[self.reload.generation] = Generation(config, causes, Steps(now))
        self.last = Last("booting", None, self.last.error, causes)
        logs.info("generation booting", generation=self.reload.generation, cause=named(causes))

    # An edit that takes no new generation

    def _apply(self, edit: Edit, causes: tuple[str, ...], now: float) -> None:
        """Put an edit into effect; it counts as applied when what it adds is ready."""
        for info in self.infos.values():  # a template that is born again goes by its own
            info.config = change.keeping(edit.new, info.config, change.LIVE)
        self.scale(edited(self.counts, self.config, edit.new))
        self.config = self._coming = edit.new
        if edit.live:
            self._applying = Applying(edit, causes, now, now + edit.new.boot_timeout)
        else:
            logs.info("config unchanged", cause=",".join(causes))
        if not edit.live or self._settled.state == "refused":
            self.last = self._settled
        self._around.attempted(Ended.APPLIED)

    def _advance_edit(self, now: float) -> None:
        applying, left = self._applying, self.missing()
        if applying is None or not (self.asked or applying.is_over(left, now)):
            return
        self._applying = None
        applying.log(left, now)
        if self._settled.state != "refused":
            self._settled = Last("ok", now - applying.began, None, applying.causes)
        self.last = self._settled

    def missing(self) -> int:
        """Return how many processes are still to come until all that is wanted serve."""
        return missing(self._processes.rows(), self.reload.serving, self.counts)

    # The transaction

    def want(self) -> Want:
        return self.reload.want(self.counts, self._coming_counts, self.config.max_draining)

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._close(now)
        if self.reload.phase is Phase.IDLE:
            self._advance_edit(now)
            self._take_request(now)
            return
        rows = self._processes.rows()
        want = self.want()
        room = len(draining_generations(rows, want)) < self.config.max_draining
        if self._is_held(now):
            return
        match self.reload.judge(rows, self._coming_counts, now, room=room):
            case Verdict.MAKE_ROOM:
                self.reload = self.reload.make_room()
            case Verdict.SWITCH:
                self._switch(now)
            case Verdict.FINISH:
                self._finish(now)
            case Verdict.REFUSE:
                why = self.reload.failure or self.reload.late(rows, self._coming_counts)
                self.reload = self.reload.refuse()
                self._listening.refuse(self.reload.generation)
                self._refused_config = self._coming
                self._refused(why, 1, self.last.cause, now - self.reload.began)
            case Verdict.WAIT:
                pass

    @property
    def trial(self) -> Trial | None:
        """Return what boots at the moment."""
        return self._booting.trial(self.reload)

    def again(self, why: str) -> None:
        """Boot the coming generation anew: what it was made of is not what there is now."""
        self.reload = self._booting.again(self.reload, why)

    def _is_held(self, now: float) -> bool:
        if now >= self.reload.deadline or self._booting.is_tired(self.reload):
            return False
        return self.trial is not None and not (
            self._around.is_settled() and self._booting.has_base_said(self.reload)
        )

    def _switch(self, now: float) -> None:
        for process in self._processes.table.values():
            mine = process.row.seat.generation == self.reload.generation
            if mine and self._processes.is_dead(process):
                # It is refused by its reaping, which is about to come with what it said.
                return
        self._listening.switch(self._coming.backlog)
        self._booting.is_ready(self.reload, now)
        self.reload = self.reload.switch(now)

    def _finish(self, now: float) -> None:
        first = not self.reload.serving
        before = set(self.reload.serving.values())
        self.reload = self.reload.finish()
        edit = dataclasses.replace(
            change.compare(self.config, self._coming), waits=self.needs_restart
        )
        self.config, self.counts = self._coming, self._coming_counts
        self._leaves_keys = self._leaves_keys and self.reload.roles != SEATED
        seconds, causes = now - self.reload.began, self.last.cause
        self._refused_config = None
        number = self.reload.generation
        steps = self.infos[number].steps
        steps.switched = now
        self.last = self._settled = Last("ok", seconds, None, causes, steps)
        self._listening.take_over(number, self.config)
        text = f"reloaded in {seconds * 1000:.0f} ms: {named(causes)} (generation {number})"
        logs.info("started" if first else text, **steps.seconds())
        if edit.parts:
            logs.info("config applied", **edit.fields)
        old = before - set(self.reload.serving.values())
        self._closing.begin(
            [
                process
                for process in self._processes.table.values()
                if process.row.state in UP and process.row.seat.generation in old
            ],
            Outcome(0, text + (f"\nconfig: {edit}" if str(edit) else "")),
            now,
        )
        self._forget_old()
        self._around.attempted(Ended.WON)

    def _forget_old(self) -> None:
        keep = {*self.reload.serving.values(), self.reload.generation}
        keep |= {row.seat.generation for row in self._processes.rows()}
        for number in [number for number in self.infos if number not in keep]:
            del self.infos[number]

    def _close(self, now: float) -> None:
        """Answer once no old worker accepts any more."""
        answer = self._closing.over(self._processes.table, now)
        if answer is not None:
            worker_generation = self.reload.serving[Role.WORKER]
            give_rest(self._listening.waiting(), self._processes, worker_generation)
            self._listening.close_leaving(worker_generation)
            self.asked.tell(answer)

    def _refuse_config(self, why: str, causes: tuple[str, ...]) -> None:
        self.config_error = why
        self._refused(why, 2, causes, 0.0)

    def _refused(self, why: str, exit_status: int, causes: tuple[str, ...], seconds: float) -> None:
        self.last = self.refusal = Last("refused", seconds, why, causes)
        if self.config_error is None:
            self._settled = self.last
        logs.log.error("%s", f"reload refused: {named(causes)}\n{why}")
        self.asked.tell(Outcome(exit_status, why))
        self._around.attempted(Ended.REFUSED)

    # Events

    def heard(self, process: Process, packet: Packet) -> None:
        """A template or process of a generation says something about its code."""
        self.reload = self._booting.heard(self.reload, process, packet, time.monotonic())

    def died(self, death: Death) -> None:
        """A death before the switch is a refusal; the last one after it is the drain's end."""
        row = death.process.row
        serving = {*self.reload.serving.values(), self.reload.generation}
        self.last.look_drained(self._processes.rows(), serving, time.monotonic())
        if row.state is State.KILLED or row.seat.role in (*BY_BASE, *BESIDE):
            return
        self.reload = self.reload.fail(row.seat.generation, death.reason)

    def due(self) -> list[float]:
        times = [self._reader.deadline or inf, self._closing.due]
        if self._applying is not None:
            times.append(self._applying.until)
        if self.reload.phase in (Phase.BOOTING, Phase.SWITCHING):
            times.append(self.reload.deadline)
        return times

    def scale(self, counts: Counts) -> None:
        """Change the counts live."""
        self.counts = counts
        self._coming_counts = counts
