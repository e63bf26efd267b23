"""A template: the app imported once, forking its generation's processes on the master's word.

What it imported it reports with hashes, and keeps a manifest of: a template that is killed
is born again from the very same code, whatever half-written tree the disk holds by then.

An import that leaves threads or sockets open makes it unfit to be forked from. It says so and
leaves; its successor is bare, and what that forks imports the same sources for itself.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.linux import process
from procd.spawn import child, stacks
from procd.spawn.appimport import AppImport, rehearse
from procd.spawn.child import Adopt, Birth
from procd.spawn.context import Context, Kind, Origin
from procd.spawn.explain import explain
from procd.spawn.forkserver import log, send_pairs, serve
from procd.tasks.shared import Shared
from procd.taskworker.taskworker import TaskWorker
from procd.worker.worker import Worker

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with suppress(ImportError):  # optional; here and not in each worker: the base imports it for all
    from uvloop import new_event_loop


class Template:
    """run() is the life of one template process."""

    def __init__(
        self, origin: Origin, shared: Shared, channel: Channel, packages: frozenset[str]
    ) -> None:
        self._origin = origin
        self._shared = shared
        self._channel = channel
        self._packages = packages

    def run(self, adopt: Adopt) -> int:
        """Wait for the order to import an app, then fork from it; return the exit status.

        It is forked ahead of that order where there is time, and then is called a spare.
        """
        logs.name_process("spare")
        process.set_name("procd: spare")
        adopt()
        stacks.answer(self._origin.ipc_dir)
        rehearse(self._origin.code_dir)
        self._channel.send("waits")
        commands = {"import": self._import, "fork": self._fork, "log": log}
        return serve(self._channel, commands)

    def _import(self, packets: list[Packet]) -> None:
        """Import the app; one that fails, or is unfit to be forked from, ends the process."""
        (packet,) = packets
        self._config = Config.from_plain(packet.body["config"])  # type: ignore[arg-type] # the master's own
        self._generation = packet.number("generation")
        self._kind = Kind(packet.number("kind"))
        self._app = AppImport(self._config, self._origin.code_dir, self._packages)
        logs.name_process("template")
        process.set_name("procd: template")
        logs.set_level(self._config.log_level)  # the base has that of its own fork
        os.environ.update(self._config.env)
        if self._kind is not Kind.BARE:
            self._import_here()
        self._channel.send("ready")

    def _import_here(self) -> None:
        try:
            self._app.run(self._generation, is_reborn=self._kind is Kind.REBORN)
        except BaseException as error:  # noqa: BLE001 - the app's import may raise anything
            send_pairs(self._channel, "sources", self._app.sources)
            self._channel.send("failed", {"error": explain(error, self._config.chdir)})
            raise SystemExit(1) from None
        send_pairs(self._channel, "sources", self._app.sources)
        self._tell_modules()
        if self._app.unfit:
            self._channel.send("unfit", {"why": self._app.unfit})
            raise SystemExit(0)
        self._app.tell_later_sources(self._note_late)

    def _tell_modules(self) -> None:
        """Tell what was imported that is not the app's: the base may have it for the next one."""
        if modules := self._app.new_modules():
            send_pairs(self._channel, "modules", modules)

    def _note_late(self, path: str, digest: str) -> None:
        """A worker imports something more: it has its own channel by then."""
        self._channel.send("sources", {"pairs": [[path, digest]], "more": False})

    # Forking

    def _fork(self, packets: list[Packet]) -> None:
        contexts = [self._context(packet) for packet in packets]
        # The template's own channel is not the children's, nor is that of another child.
        mine = {self._channel.fileno(), *(fd for packet in packets for fd in packet.fds)}
        theirs = {fd for context in contexts for fd in _descriptors(context)}
        births = [
            Birth(
                partial(self._become, context),
                context.channel,
                (mine | theirs) - set(_descriptors(context)),
                context.output,
            )
            for context in contexts
        ]
        try:
            child.fork_for_master(births, self._origin.master_pid)
        finally:
            for context in contexts:
                context.channel.close()
                for fd in {context.output, *context.listener_fds} - {-1}:
                    os.close(fd)

    def _context(self, packet: Packet) -> Context:
        channel, *listeners = (os.dup(fd) for fd in packet.fds)
        output = listeners.pop(0) if packet.body.get("has_output") else -1
        return Context(
            Role(packet.number("role")),
            packet.number("number"),
            self._generation,
            packet.number("row"),
            packet.number("incarnation"),
            self._config,
            self._app.server,
            Channel.of_fd(channel),
            self._origin,
            self._shared,
            listeners,
            output,
        )

    def _become(self, context: Context, adopt: Adopt) -> int:
        logs.name_process(context.name)
        process.set_name(f"procd: {context.name}")
        self._inherited = self._channel  # kept: its number is closed here, or another's by now
        self._channel = context.channel  # late imports are told there
        stacks.answer(self._origin.ipc_dir)
        context.shared.arena.become(context.row, context.incarnation)
        context.on_started = self._tell_modules
        context.adopt = adopt
        try:
            if self._kind is Kind.BARE:
                adopt()
                self._app.run(self._generation, is_reborn=True)
                self._app.tell_later_sources(self._note_late)
                context.server = self._app.server
            reseed()
            with _runner() as runner:
                return runner.run(_live(context))
        except BaseException as error:  # noqa: BLE001 - on_worker_start may raise anything
            text = explain(error, self._config.chdir)
            logs.log.error("%s", f"process failed\n{text}")
            self._channel.send("failed", {"error": text})
            return 1


async def _live(context: Context) -> int:
    life = Worker(context) if context.role is Role.WORKER else TaskWorker(context)
    return await life.run()


def _descriptors(context: Context) -> tuple[int, ...]:
    return context.channel.fileno(), context.output, *context.listener_fds


def reseed() -> None:
    """Give this process random numbers of its own; `random` sees to it by itself."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=new_event_loop)
