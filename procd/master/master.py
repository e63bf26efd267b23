"""The master: one loop that turns signals, deaths, messages and time into rows, and rows
into actions.

It outlives everything. It never imports the app, runs no thread and no asyncio, parses
nothing that a user wrote but control requests, and a fault in what it is told is logged
and dropped. run() tells its story: take the files, open the listeners, begin generation 1,
loop until nothing is wanted and nothing is left, give everything back.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from procd import logs
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.ipc.channel import Channel, Packet
from procd.ipc.inbox import Post
from procd.ipc.scoreboard import Role, Scoreboard
from procd.linux import process as kernel
from procd.master import listeners as sockets
from procd.master import recovery as tasks
from procd.master import status
from procd.master.commands import Commands
from procd.master.configreader import ConfigReader
from procd.master.control import Control
from procd.master.files import Files, owner_of
from procd.master.generations import BOTH, Generations
from procd.master.lifecycle import (
    GOING,
    SEATED,
    Action,
    Call,
    Event,
    Fork,
    Hurry,
    Kill,
    Row,
    State,
    Stop,
    Want,
    next_deadline,
    plan,
)
from procd.master.lifecycle import Backoff as Held
from procd.master.listeners import Listener
from procd.master.loop import Loop
from procd.master.processes import Death, Process, Processes
from procd.master.stopping import Stopping
from procd.master.watching import Watching
from procd.service import sdnotify
from procd.spawn.context import Origin

ROUNDS = 64  # of plan and action in one turn; what is left then is due in the next

Ready = Callable[[str | None], None]


class Master:
    """One service. *ready* is called once: with None when it serves, else with why not."""

    def __init__(self, config: Config, overrides: Sequence[str], ready: Ready) -> None:
        self.began = time.monotonic()
        self.files = Files(config)
        self.loop = Loop()
        self.listeners: list[Listener] = []
        self.stopping = Stopping()
        self._ready: Ready | None = ready
        self._first_config = config
        self._reader = ConfigReader(config.path, overrides, self.loop)
        self._exit_status = 0

    def run(self) -> int:
        """Serve until told to stop; return the exit status."""
        kernel.set_name("procd: master")
        kernel.become_subreaper()
        self.files.take()
        try:
            self._open()
        except BaseException:
            self._close_listeners()
            self.files.give_back()
            raise
        try:
            self._loop()
        finally:
            self._end()
        return self._exit_status

    def _open(self) -> None:
        config = self._first_config
        self.listeners = [sockets.bind(listen, config.backlog) for listen in config.listen]
        self.scoreboard = Scoreboard()
        arena = tasks.open_arena(
            self.files.arena_path,
            self.files.ids_path,
            config.task_slots,
            config.task_slot_bytes,
            int(time.time() * 1000),
        )
        post = Post(self.files.ipc_dir)
        self.recovery = tasks.Recovery(arena, self.scoreboard, post, config.task_max_attempts)
        if os.geteuid() == 0:
            self.recovery.queue.give_to(*owner_of(config))
        self.origin = Origin(
            os.getpid(),
            self.files.ipc_dir,
            arena.fd,
            arena.layout,
            self.recovery.queue.key,
            self.recovery.doorbell,
            self.scoreboard,
            self.files.lease.fd,
        )
        self.processes = Processes(self.origin, self.loop, self._heard, self._died)
        self.generations = Generations(
            config, self._reader, self.processes, self._config_is_read, self._attempted
        )
        self.watching = Watching(self.loop, self._tell_base, self._changed)
        self.commands = Commands(self)
        self.control = Control(self.files.control_path, self.loop, self.commands.serve)
        self.loop.catch(self.commands.signals)
        self.files.record()

    def _loop(self) -> None:
        now = time.monotonic()
        adopted = self.recovery.adopt(now)
        if adopted:
            logs.info("tasks kept from before run again", count=adopted)
        counts = self.generations.counts
        self.scoreboard.set_counts(counts.worker, counts.task)
        self.watching.config_is_read(self._first_config.path)
        self.generations.start(now)
        while True:
            now = time.monotonic()
            self._settle(now)
            if self.stopping.is_asked and not self.processes.table:
                return
            signums, callbacks = self.loop.wait(self._next_deadline(now) - time.monotonic())
            for signum in signums:
                self._guard(lambda signum=signum: self._signal(signum))  # type: ignore[misc]
            for callback in callbacks:
                self._guard(callback)
            self._guard(self._tick)

    def _guard(self, step: Callable[[], None]) -> None:
        """Carry out one step; nothing that goes wrong in it ends the service."""
        try:
            step()
        except Exception:  # noqa: BLE001 - the process's one broad handler
            logs.log.exception("fault in the master")

    def _tick(self) -> None:
        now = time.monotonic()
        self._reader.tick(now)
        self.recovery.tick(now)
        self.watching.tick(now, is_idle=self.generations.is_idle)

    def _next_deadline(self, now: float) -> float:
        due = [
            *self.generations.due(),
            *self.recovery.due(),
            self.watching.due(),
            self.stopping.due(now),
            self.commands.due(),
            next_deadline(self.processes.rows(), self._want(), self.processes.held, now),
        ]
        return min(due)

    # Rows into actions

    def _want(self) -> Want:
        if self.stopping.is_asked:
            return self.stopping.want(self.generations.want())
        return self.generations.want()

    def _settle(self, now: float) -> None:
        for _ in range(ROUNDS):
            if self.stopping.is_asked:
                self.stopping.advance(self.processes.rows(), self.recovery.arena.count, now)
            else:
                self.generations.advance(now)
            actions = plan(self.processes.rows(), self._want(), self.processes.held, now)
            if not actions:
                break
            for action in actions:
                self._guard(lambda action=action: self._do(action, now))  # type: ignore[misc]
        self._publish()
        self.commands.advance(now)

    def _do(self, action: Action, now: float) -> None:
        if isinstance(action, Fork):
            self._fork(action, now)
            return
        process = self.processes.table.get(action.row)
        if process is None:
            return
        match action:
            case Call():
                self.processes.step(process, Event.CALL)
                self.processes.send(process, "serve", {})
            case Stop():
                until = min(now + self.generations.config.max_wait_time, self.stopping.deadline)
                self.processes.step(process, Event.STOP, until)
                self._drain(process)
            case Hurry():
                self.processes.hurry(process, now)
                self._drain(process)
            case Kill():
                if process.row.state is State.DRAINING:
                    logs.warning("killed at its deadline", pid=process.row.pid)
                self.processes.kill(process)

    def _drain(self, process: Process) -> None:
        body: dict[str, object] = {
            "deadline": process.row.deadline,
            "close_idle": self.stopping.is_asked,
        }
        self.processes.send(process, "drain", body)

    def _fork(self, action: Fork, now: float) -> None:
        seat = action.seat
        config = self._first_config
        info = self.generations.infos.get(seat.generation)
        if info is not None:
            config = info.config
        deadline = now + config.boot_timeout
        if seat.generation == self.generations.reload.generation:
            deadline = max(deadline, self.generations.reload.deadline + 1)

        def order(row: Row, channel: Channel) -> bool:
            if seat.role is Role.BASE:
                return self.processes.fork_base(config, row, channel)
            if seat.role is Role.TEMPLATE:
                body: dict[str, object] = {
                    "config": config.plain(),
                    "generation": seat.generation,
                    "reborn": info is not None and info.has_template,
                }
                return self._tell_base("template", body, [channel.fileno()])
            return self._fork_seated(row, channel)

        self.processes.fork(seat, deadline, order)

    def _fork_seated(self, row: Row, channel: Channel) -> bool:
        seat = row.seat
        template = self.processes.template(seat.generation)
        if template is None:
            return False
        fds = [channel.fileno()]
        if seat.role is Role.WORKER:
            fds += [listener.socket.fileno() for listener in self.listeners]
        body: dict[str, object] = {
            "role": int(seat.role),
            "number": seat.number,
            "row": row.row,
            "incarnation": row.incarnation,
        }
        return self.processes.send(template, "fork", body, fds)

    def _tell_base(self, kind: str, body: dict[str, object], fds: Sequence[int] = ()) -> bool:
        base = self.processes.base()
        return base is not None and self.processes.send(base, kind, body, fds)

    # What happens

    def _heard(self, process: Process, packet: Packet) -> None:
        seat = process.row.seat
        self.generations.heard(process, packet)
        if packet.kind == "ready" and process.row.state is State.BOOTING:
            self.processes.step(process, Event.BECAME_READY)
            if seat.role is Role.BASE:
                self.watching.base_is_ready()
        elif packet.kind == "serving" and process.row.state in (State.CALLED, *GOING):
            self.processes.step(process, Event.SERVES)
            now = time.monotonic()
            logs.info(
                "ready",
                role=status.ROLES[seat.role],
                id=self.scoreboard.worker_id(seat.role, seat.number),
                generation=seat.generation,
                pid=process.row.pid,
                boot=now - process.row.since,
            )
            if seat.role is Role.TASK:
                self.recovery.readdress()
                self.recovery.retry(now)
                self.recovery.ring()
        elif packet.kind == "retire" and process.row.state is State.SERVING:
            self.processes.retire(process)
        elif packet.kind == "shut":
            process.is_shut = True
        elif packet.kind == "hashed":
            self.watching.hashed(packet)
        elif packet.kind == "suspects":
            paths = packet.body.get("paths")
            self.watching.suspect([str(p) for p in paths] if isinstance(paths, list) else [])
        elif packet.kind == "sources":
            info = self.generations.infos.get(seat.generation)
            serving = self.generations.reload.serving.values()
            if info is not None and seat.generation in serving:
                self.watching.also(info.sources)

    def _died(self, death: Death) -> None:
        now = time.monotonic()
        row = death.process.row
        seat = row.seat
        expected = row.state in GOING
        if seat.role in SEATED:
            blame = not (row.state is State.KILLED and self.stopping.is_asked)
            self.recovery.reaped(death.sitting, death.how, now, blame=blame)
        self.generations.died(death)
        say = logs.info if expected else logs.error
        if seat.role in SEATED or not expected:
            say(
                "gone" if expected else "died",
                role=status.ROLES[seat.role],
                id=self.scoreboard.worker_id(seat.role, seat.number) if seat.role in SEATED else None,
                generation=seat.generation,
                pid=row.pid,
                by=death.how,
                lived=now - row.since,
            )
        if not expected:
            held = self.processes.held
            held[seat] = held.get(seat, Held()).after_death(now - row.since, now)
            key = (seat.role, seat.number)
            self.processes.restarts[key] = self.processes.restarts.get(key, 0) + 1
        elif row.state is State.KILLED and seat.generation in self._want().generations:
            held = self.processes.held
            held[seat] = held.get(seat, Held()).after_death(now - row.since, now)

    def _config_is_read(self) -> None:
        self.watching.config_is_read(self._first_config.path)
        sdnotify.reloading()

    def _attempted(self, took_over: bool) -> None:  # noqa: FBT001 - the callback's one value
        generations = self.generations
        number = generations.reload.generation
        info = generations.infos.get(number)
        if not took_over and not generations.reload.serving:
            self._start_failed(generations.last.error or "the app did not come up")
            return
        if took_over:
            self.processes.forget_held(set(generations.reload.serving.values()))
            self.scoreboard.set_counts(generations.counts.worker, generations.counts.task)
            logs.set_level(generations.config.log_level)
            self.recovery.max_attempts = generations.config.task_max_attempts
        sources = {} if info is None else info.sources
        self.watching.attempt(generations.config, sources, refused=not took_over)
        if self._ready is not None:
            ready, self._ready = self._ready, None
            self._publish()
            ready(None)
        text = f"generation {number} serves"
        if not took_over:
            serving = max(generations.reload.serving.values())
            text = f"reload refused, generation {serving} serves: {generations.last.error}"
        sdnotify.ready(text.splitlines()[0][:200])

    def _start_failed(self, why: str) -> None:
        self._exit_status = StartFailed.exit_status
        if self._ready is not None:
            ready, self._ready = self._ready, None
            ready(why)
        self.stop(time.monotonic())

    def _changed(self, names: list[str]) -> None:
        if not self.stopping.is_asked:
            self.generations.request(BOTH, names)

    def _signal(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            self.processes.reap()
        else:
            self.commands.signal(signum)

    def _publish(self) -> None:
        """Keep true what others read: the worker pid file."""
        up = [
            (row.seat.role, row.seat.number, row.pid)
            for row in self.processes.rows()
            if row.state is State.SERVING and row.seat.role in SEATED
        ]
        self.files.write_pids([pid for _, _, pid in sorted(up)])

    # Stopping

    def stop(self, deadline: float, *, discard: bool = False) -> None:
        """Begin to stop, or hurry a stop that is under way."""
        first = not self.stopping.is_asked
        self.stopping.ask(deadline, discard=discard)
        if first:
            logs.info("stopping")
            sdnotify.stopping()
            self.watching.close()
            self.generations.refuse_all("the service is stopping")
            self._close_listeners()
        for process in list(self.processes.table.values()):
            if process.row.state is State.DRAINING:
                self.processes.hurry(process, self.stopping.deadline)
                self._drain(process)

    def _close_listeners(self) -> None:
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            listener.close()

    def _end(self) -> None:
        kept = self.recovery.close(self.files.ids_path, discard=self.stopping.discards)
        logs.info("stopped", tasks_kept=kept)
        self.commands.stopped(kept)
        self.control.close()
        self.files.give_back()
        if self._ready is not None:
            self._ready("stopped before it served")
