"""Carrying out reloads: from a request to an answer, as reload.py judges.

A request that comes while one is under way joins the next, for only that one holds what is
on disk now.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Packet
from procd.ipc.scoreboard import Role
from procd.master.configreader import ConfigReader
from procd.master.lifecycle import UP, State, Want, draining_generations
from procd.master.process import Death, Process
from procd.master.processes import Processes
from procd.master.reload import ACK_SECONDS, Counts, Phase, Reload, Verdict

BOTH = (Role.WORKER, Role.TASK)
MOST_BOOTS = 5  # of one generation; then it is taken as it is, and the next look sees the rest

# What the running master has built on; a new value waits for a restart.
NEEDS_RESTART = (
    *("listen", "backlog", "run_dir", "state_dir", "master_pid_file", "worker_pid_file"),
    *("log_file", "user", "group", "task_slots", "task_slot_bytes"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reload ended, for who asked for it."""

    exit_status: int
    text: str


@dataclass(frozen=True, slots=True)
class Trial:
    """The generation that boots, as the watch asks for it."""

    sources: Mapping[str, str]
    is_read: bool  # the app's import is over
    has_failed: bool


Waiter = Callable[[Outcome], None]


@dataclass(slots=True)
class Generation:
    """What is known of one generation."""

    config: Config
    causes: tuple[str, ...]
    sources: dict[str, str] = field(default_factory=dict)  # path → sha256 hex
    import_seconds: float = 0.0
    has_template: bool = False  # had one: the next is born from its manifest
    unfit: str = ""  # why nothing can be forked from a process that has imported it
    is_looked_at: bool = False  # its base has compared what it preloaded with the disk
    boots: int = 1  # attempts at it; more than one if more was saved meanwhile


@dataclass(slots=True)
class Last:
    """The last reload, as `status` tells it."""

    state: str = "booting"
    seconds: float | None = None
    error: str | None = None
    cause: tuple[str, ...] = ()


@dataclass(slots=True)
class Request:
    """Reloads asked for and not begun."""

    roles: tuple[Role, ...] = ()
    causes: dict[str, None] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    reads_config: bool = False


class Generations:
    """The reloads of one service.

    *on_read* is called before the config is read again, *on_begin*(config) before a generation
    boots, *on_change*(took over, else refused) after an attempt. While *is_settled*() is false,
    the disk may hold something else than what boots, and nothing is decided.
    """

    def __init__(
        self,
        config: Config,
        reader: ConfigReader,
        processes: Processes,
        on_read: Callable[[], None],
        on_begin: Callable[[Config], None],
        on_change: Callable[[bool], None],
        is_settled: Callable[[], bool],
    ) -> None:
        self.config = config
        self.config_error: str | None = None
        self.needs_restart: tuple[str, ...] = ()  # keys whose new values wait for one
        self.counts = Counts(config.worker_num, config.task_worker_num)
        self.reload = Reload()
        self.last = Last()
        self.infos: dict[int, Generation] = {}
        self._coming = config
        self._coming_counts = self.counts
        self._reader = reader
        self._processes = processes
        self._on_read = on_read
        self._on_begin = on_begin
        self._on_change = on_change
        self._is_settled = is_settled
        self._request: Request | None = None
        self._waiters: list[Waiter] = []
        self._is_reading = False
        self._is_read_in_vain = False  # the config, for what was to boot from it was refused
        self._closing: list[Process] = []  # old workers that have not said that they are shut
        self._closing_until = inf
        self._answer: Outcome | None = None
        self._unfit = ""  # as it was said last

    # Requests

    def start(self, now: float) -> None:
        """Begin the first generation."""
        self._begin(self.config, BOTH, ("start",), now)

    def request(
        self,
        roles: tuple[Role, ...],
        causes: Iterable[str],
        waiter: Waiter | None = None,
        *,
        reads_config: bool = True,
    ) -> None:
        """Ask for a new generation of *roles*.

        Without *reads_config* the config's file is known to be as it was: reading it takes
        longer than all the rest.
        """
        request = self._request = self._request or Request()
        request.reads_config = request.reads_config or reads_config
        if len(roles) > len(request.roles):
            request.roles = roles
        request.causes |= dict.fromkeys(causes)
        if waiter is not None:
            request.waiters.append(waiter)

    @property
    def is_idle(self) -> bool:
        return self.reload.phase is Phase.IDLE and not self._is_reading and self._request is None

    def refuse_all(self, why: str) -> None:
        """Answer everybody: the service is about to stop."""
        waiters, self._waiters = self._waiters, []
        if self._request is not None:
            waiters += self._request.waiters
        self._request = None
        for waiter in waiters:
            waiter(Outcome(1, why))

    def _take_request(self, now: float) -> None:
        if self._request is None or self._is_reading or self._closing or not self.reload.serving:
            return
        request, self._request = self._request, None
        self._waiters = request.waiters
        causes = tuple(request.causes)
        if not (request.reads_config or self._is_read_in_vain):
            self._begin(self.config, request.roles, causes, now)
            return
        self._is_reading = True
        self.last = Last("booting", None, self.last.error, causes)
        self._on_read()
        self._reader.read(now, lambda read: self._read(read, request.roles, causes))

    def _read(self, read: Config | str, roles: tuple[Role, ...], causes: tuple[str, ...]) -> None:
        self._is_reading = False
        if isinstance(read, str):
            self.config_error = read
            self._refused(read, 2, causes, 0.0)
            return
        self.config_error = None
        self._is_read_in_vain = True
        waits = [
            name for name in NEEDS_RESTART if getattr(read, name) != getattr(self.config, name)
        ]
        self.needs_restart = tuple(waits)
        if waits:
            logs.warning("config change needs a restart", keys=",".join(waits))
            old = {name: getattr(self.config, name) for name in waits}
            read = dataclasses.replace(read, **old)
        self._begin(read, roles, causes, time.monotonic())

    def _begin(
        self, config: Config, roles: tuple[Role, ...], causes: tuple[str, ...], now: float
    ) -> None:
        if Role.WORKER not in roles:  # the workers' count is for the next reload of all
            config = dataclasses.replace(config, worker_num=self.config.worker_num)
        self._on_begin(config)
        self._coming = config
        # A count that was scaled by hand stays until the file's own count is edited.
        worker, task = self.counts.worker, self.counts.task
        if config.worker_num != self.config.worker_num:
            worker = config.worker_num
        if config.task_worker_num != self.config.task_worker_num:
            task = config.task_worker_num
        self._coming_counts = Counts(worker, task)
        self.reload = self.reload.begin(roles, now, config.boot_timeout)
        self.infos[self.reload.generation] = Generation(config, causes)
        self.last = Last("booting", None, self.last.error, causes)
        logs.info("generation booting", generation=self.reload.generation, cause=",".join(causes))

    # The transaction

    def want(self) -> Want:
        return self.reload.want(self.counts, self._coming_counts, self.config.max_draining)

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._close(now)
        if self.reload.phase is Phase.IDLE:
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
                self._refused(why, 1, self.last.cause, now - self.reload.began)
            case Verdict.WAIT:
                pass

    def _is_held(self, now: float) -> bool:
        """Tell whether it is too early to say that what boots is good, or that it is not."""
        if self.reload.phase is not Phase.BOOTING or now >= self.reload.deadline:
            return False
        info = self.infos[self.reload.generation]
        failed = self.reload.failure is not None
        if info.boots > MOST_BOOTS:
            return False
        return not (self._is_settled() and (info.is_looked_at or failed))

    @property
    def trial(self) -> Trial | None:
        """Return what boots at the moment."""
        if self.reload.phase is not Phase.BOOTING:
            return None
        info = self.infos[self.reload.generation]
        failed = self.reload.failure is not None
        return Trial(info.sources, info.has_template or failed, failed)

    @property
    def awaits_base(self) -> bool:
        """Tell whether what boots waits for its base's word."""
        return self.trial is not None and not self.infos[self.reload.generation].is_looked_at

    def again(self, why: str) -> None:
        """Boot the coming generation anew: what it was made of is not what there is now."""
        number = self.reload.generation
        info = self.infos[number]
        info.boots += 1
        info.is_looked_at = False
        if not info.unfit:
            info.sources, info.has_template = {}, False
        self.reload = self.reload.again()
        for process in list(self._processes.table.values()):
            if process.row.seat.generation == number and process.row.seat.role is not Role.BASE:
                self._processes.kill(process)
        logs.info("generation boots anew", generation=number, because=why)

    def _switch(self, now: float) -> None:
        for process in self._processes.table.values():
            mine = process.row.seat.generation == self.reload.generation
            if mine and self._processes.is_dead(process):
                # It is refused by its reaping, which is about to come with what it said.
                return
        self.reload = self.reload.switch(now)

    def _finish(self, now: float) -> None:
        first = not self.reload.serving
        before = set(self.reload.serving.values())
        self.reload = self.reload.finish()
        self.config, self.counts = self._coming, self._coming_counts
        self._is_read_in_vain = self.reload.roles != BOTH
        seconds = now - self.reload.began
        causes = self.last.cause
        self.last = Last("ok", seconds, None, causes)
        number = self.reload.generation
        what = ", ".join(causes)
        text = f"reloaded in {seconds * 1000:.0f} ms: {what} (generation {number})"
        logs.info("started" if first else text, generation=number, seconds=seconds)
        self._closing = [
            process
            for process in self._processes.table.values()
            if process.row.state in UP
            and process.row.seat.generation in before - set(self.reload.serving.values())
        ]
        self._closing_until = now + ACK_SECONDS
        waits = f"\nneeds a restart: {', '.join(self.needs_restart)}" if self.needs_restart else ""
        self._answer = Outcome(0, text + waits)
        self._forget_old()
        self._on_change(True)

    def _forget_old(self) -> None:
        keep = {*self.reload.serving.values(), self.reload.generation}
        keep |= {row.seat.generation for row in self._processes.rows()}
        for number in [number for number in self.infos if number not in keep]:
            del self.infos[number]

    def _close(self, now: float) -> None:
        """Answer once no old worker accepts any more."""
        if self._answer is None:
            return
        table = self._processes.table
        self._closing = [
            process
            for process in self._closing
            if table.get(process.row.row) is process and not process.is_shut
        ]
        if self._closing and now < self._closing_until:
            return
        self._closing, self._closing_until = [], inf
        outcome, self._answer = self._answer, None
        self._tell(outcome)

    def _refused(self, why: str, exit_status: int, causes: tuple[str, ...], seconds: float) -> None:
        self.last = Last("refused", seconds, why, causes)
        logs.log.error("%s", logs.line("reload refused", cause=",".join(causes)) + "\n" + why)
        self._tell(Outcome(exit_status, why))
        self._on_change(False)

    def _tell(self, outcome: Outcome) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(outcome)

    # Events

    def heard(self, process: Process, packet: Packet) -> None:
        """A template or process of a generation says something about its code."""
        seat = process.row.seat
        info = None if seat.role is Role.BASE else self.infos.get(seat.generation)
        if process.row.state is State.KILLED and seat.role is Role.TEMPLATE:
            return  # last words of one that another has taken the place of
        if packet.kind == "sources" and info is not None:
            info.sources |= {path: str(digest) for path, digest in packet.pairs().items()}
        elif packet.kind == "failed":
            process.error = str(packet.body.get("error"))
        elif packet.kind == "unfit" and info and seat.role is Role.TEMPLATE:
            self._is_unfit(info, seat.generation, str(packet.body.get("why")))
        elif packet.kind == "ready" and info and seat.role is Role.TEMPLATE:
            info.has_template = True
            took = packet.body.get("took")
            info.import_seconds = took if isinstance(took, float) else 0.0

    def _is_unfit(self, info: Generation, number: int, why: str) -> None:
        """Nothing can be forked from the app once it is imported: each process imports it."""
        if why != self._unfit:
            logs.warning(
                "app imported by each process for itself: not fit to be forked", because=why
            )
        self._unfit = info.unfit = why
        info.has_template = True
        if self.reload.phase is Phase.BOOTING and number == self.reload.generation:
            self.again("not fit to be forked")

    def died(self, death: Death) -> None:
        """A death before the switch is a refusal."""
        row = death.process.row
        if row.state is State.KILLED or row.seat.role is Role.BASE:
            return
        who = "the app's import" if row.seat.role is Role.TEMPLATE else f"a {_name(row.seat.role)}"
        reason = death.process.error or f"{who} ended with {death.how} before it was ready"
        self.reload = self.reload.fail(row.seat.generation, reason)

    def due(self) -> list[float]:
        times = [self._reader.deadline or inf]
        if self._closing:
            times.append(self._closing_until)
        if self.reload.phase in (Phase.BOOTING, Phase.SWITCHING):
            times.append(self.reload.deadline)
        return times

    def scale(self, counts: Counts) -> None:
        """Change the counts live."""
        self.counts = counts
        self._coming_counts = counts


def _name(role: Role) -> str:
    return {Role.WORKER: "worker", Role.TASK: "task worker"}.get(role, role.name.lower())
