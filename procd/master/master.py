"""The master: one loop; signals, deaths, messages and time become rows, and rows actions.

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
from contextlib import suppress
from math import inf
from pathlib import Path

from procd import logs
from procd.config.schema import Config
from procd.errors import StartFailed
from procd.ipc.inbox import Post
from procd.ipc.scoreboard import Role, Scoreboard
from procd.linux import process as kernel
from procd.master import publicqueue, strangers
from procd.master.actions import Actions
from procd.master.bases import Bases
from procd.master.cancelling import Cancelling
from procd.master.commands import Commands
from procd.master.configreader import ConfigReader
from procd.master.control import Control
from procd.master.events import Events
from procd.master.files import Files, owner_of, settled, warn_of_root
from procd.master.gates import Gates
from procd.master.generations import Generations
from procd.master.ingresses import Ingresses
from procd.master.inheritance import open_arena
from procd.master.ledgers import Ledgers
from procd.master.lifecycle import next_deadline, plan
from procd.master.listeners import Owner
from procd.master.listening import Listening
from procd.master.loggers import Loggers
from procd.master.loop import Loop
from procd.master.outputs import Outputs
from procd.master.processes import Processes
from procd.master.publicqueue import PublicQueue
from procd.master.recovery import Recovery
from procd.master.service import Ready, Service
from procd.master.strangers import Strangers
from procd.master.tokenqueue import TokenQueue
from procd.master.watching import Watching
from procd.service import sdnotify
from procd.spawn import stacks
from procd.spawn.context import Origin

ROUNDS = 64  # of plan and action in one turn; what is left then is due in the next


class Master:
    """One service. *ready* is called once: with None when it serves, else with why not."""

    def __init__(self, config: Config, overrides: Sequence[str], ready: Ready) -> None:
        self._config = config
        self._overrides = overrides
        self._ready = ready
        self._watchdog = sdnotify.Watchdog()
        self._loop = Loop()
        self._reader = ConfigReader(config.path, overrides, self._loop)
        self._public: PublicQueue | None = None
        self._owner: Owner | None = None  # of what the processes use, if not the master
        self._has_arena = True

    def run(self) -> int:
        """Serve until told to stop; return the exit status.

        Raises StartFailed, AlreadyRunning and the like with nothing of ours left.
        """
        kernel.set_name("procd: master")
        kernel.become_subreaper()
        self._owner = owner_of(self._config) if os.geteuid() == 0 else None
        files = Files(settled(self._config))
        files.take()
        stacks.answer(files.ipc_dir)
        listening = Listening(self._owner)
        try:
            listening.open(self._config.listen, self._config.backlog)
            self._public = self._open_public(files.config.state_dir)
            self._service = self._open(files, listening)
            self._build()
        except BaseException:
            if self._public is not None:
                self._public.close(keep=False)
            listening.close()
            files.give_back()
            raise
        try:
            self._serve()
        finally:
            self._end()
        return self._service.exit_status

    # Opening

    def _open_public(self, state_dir: Path) -> PublicQueue | None:
        note = publicqueue.note_in(state_dir)
        key = self._config.message_queue_key
        if key is None:
            publicqueue.forget(note, None)
            return None
        return PublicQueue(key, self._config, self._owner, note)

    def _open(self, files: Files, listening: Listening) -> Service:
        config = self._config
        scoreboard = Scoreboard()
        arena = open_arena(
            files.arena_path,
            files.ids_path,
            config.task_slots,
            config.task_slot_bytes,
            int(time.time() * 1000),
        )
        post = Post(files.ipc_dir)
        arena.spool.max_bytes = config.task_max_bytes
        if self._owner is not None:
            arena.spool.give_to(*self._owner)
        tokens = TokenQueue(files.lease, self._owner)
        recovery = Recovery(arena, tokens, scoreboard, post, config.task_max_attempts)
        recovery.successors.is_on = config.orphan_results == "deliver"
        origin = Origin(
            os.getpid(),
            files.ipc_dir,
            arena.fd,
            arena.layout,
            arena.spool,
            tokens.key,
            recovery.doorbell,
            scoreboard,
            files.lease.fd,
            recovery.ledger,
        )
        return Service(
            *(config, files, self._loop, listening, scoreboard, recovery, origin, self._ready)
        )

    def _build(self) -> None:
        service = self._service
        events = Events(service)
        outputs = Outputs(service.scoreboard)
        service.processes = Processes(
            *(service.origin, self._loop, events.heard, events.died), outputs
        )
        service.loggers = Loggers(self._config, service.origin, service.processes, outputs)
        service.strangers = Strangers(service.processes, lambda: (self._reader.pid,))
        recovery = service.recovery
        service.cancelling = Cancelling(
            *(recovery.arena, recovery.endings, service.scoreboard, service.processes.table)
        )
        service.bases = Bases(self._config)
        service.gates = Gates(
            *(self._config, service.origin, service.processes, self._loop),
            self._owner,
        )
        service.ingresses = Ingresses(
            *(self._config, service.origin, service.processes, service.recovery),
            *(service.stopping, self._public),
        )
        service.ledgers = Ledgers(
            *(self._config, service.origin, service.processes, service.recovery),
            service.files.ledger_path,
        )
        service.generations = generations = Generations(
            *(self._config, self._reader, service.processes, service.listening, events)
        )
        service.watching = Watching(
            *(self._loop, service.tell_base, events.changed), lambda: generations.trial
        )
        self._actions = Actions(service)
        self._commands = Commands(service)
        self._control = Control(service.files.control_path, self._loop, self._commands.serve)
        service.count_refused = lambda: self._control.refused
        self._loop.catch(self._commands.signals)
        service.files.record()
        warn_of_root(self._config)

    # The loop

    def _serve(self) -> None:
        service, now = self._service, time.monotonic()
        adopted = service.recovery.adopt(now)
        if adopted:
            logs.info("tasks kept from before run again", count=adopted)
        counts = service.generations.counts
        service.scoreboard.set_counts(counts.worker, counts.task)
        service.watching.config_is_read(self._config.path)
        service.generations.start(now)
        while True:
            now = time.monotonic()
            self._guard(lambda now=now: self._settle(now))  # type: ignore[misc]
            if service.stopping.is_asked and service.processes.are_gone(Role.LOGGER):
                return
            signums, callbacks = self._loop.wait(self._deadline(now) - time.monotonic())
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

    def _signal(self, signum: int) -> None:
        if signum == signal.SIGCHLD:
            self._service.processes.reap()
        else:
            self._commands.signal(signum)

    def _tick(self) -> None:
        now = time.monotonic()
        self._reader.tick(now)
        self._service.recovery.tick(now)
        self._service.cancelling.tick(now)
        self._service.ingresses.tick(now)
        self._service.watching.tick(now, is_idle=self._service.generations.is_idle)
        self._check_arena(now)
        self._watchdog.tick(now, self._service.is_well)

    def _check_arena(self, now: float) -> None:
        """End the service if somebody has cut its arena short: each process that maps it dies."""
        arena, service = self._service.recovery.arena, self._service
        if self._has_arena and arena.lost:
            self._has_arena = False
            do = "start the service again; what is left of its tasks is set aside beside it"
            logs.error("task arena lost: the service ends", file=arena.path, why=arena.lost, do=do)
            service.exit_status = StartFailed.exit_status
            service.say_ready(f"{arena.path}: {arena.lost}: {do}")
            service.stop(now)

    def _deadline(self, now: float) -> float:
        try:
            return self._earliest(now)
        except Exception:  # noqa: BLE001 - as in _guard; and a loop must not spin over it
            logs.log.exception("fault in the master")
            return now + 1

    def _earliest(self, now: float) -> float:
        service = self._service
        rows, held = service.processes.rows(), service.processes.held
        return min(
            self._watchdog.due,
            *service.generations.due(),
            *service.recovery.due(),
            *service.cancelling.due(),
            service.watching.due(),
            service.stopping.due(now),
            self._commands.due(),
            service.ingresses.due(),
            service.spare_at if service.spare_at > now else inf,
            next_deadline(rows, service.want(), held, now),
        )

    def _settle(self, now: float) -> None:
        """Turn rows into actions until there is nothing to do but wait."""
        service = self._service
        for _ in range(ROUNDS):
            rows = service.processes.rows()
            if service.stopping.is_asked:
                serving, count = service.generations.want(), service.recovery.arena.count
                service.stopping.advance(rows, serving, count, now)
            else:
                self._guard(lambda: service.generations.advance(now))
            rows = service.processes.rows()
            actions = plan(rows, service.want(), service.processes.held, now)
            if not actions:
                break
            for action in actions:
                self._guard(lambda action=action: self._actions.do(action, now))  # type: ignore[misc]
        self._guard(service.publish)
        self._guard(service.loggers.tell)
        self._guard(lambda: self._commands.advance(now))

    # The end

    def _end(self) -> None:
        service = self._service
        strangers.end(service.processes.reap, service.loggers.pids)
        kept = service.recovery.close(service.files.ids_path, discard=service.stopping.discards)
        kept += service.ledgers.close()
        unread = service.ingresses.close(keep=self._commands.is_restart)
        logs.info("stopped", tasks_kept=kept, messages_kept=unread or None)
        service.loggers.close()
        service.listening.close()
        self._commands.stopped(kept, unread)
        self._control.close()
        with suppress(OSError):
            service.files.give_back()
        service.say_ready("stopped before it served")
