"""A template: the app imported once, forking its generation's processes on the master's word.

What it imported it reports with hashes, and keeps a manifest of: a template that is killed
is born again from the very same code, whatever half-written tree the disk holds by then.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from procd import logs
from procd.app import Server
from procd.config.schema import Config
from procd.errors import ProcdError
from procd.ipc import wire
from procd.ipc.channel import Channel, Packet
from procd.ipc.scoreboard import Role
from procd.linux import process
from procd.spawn import child
from procd.spawn.codecache import CodeCache
from procd.spawn.context import Context, Origin
from procd.spawn.explain import explain
from procd.spawn.forkserver import number, send_pairs, serve
from procd.spawn.loader import Loader
from procd.spawn.shield import shielded
from procd.tasks.dispatcher import Shared
from procd.taskworker.taskworker import TaskWorker
from procd.worker.worker import Worker

new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
with suppress(ImportError):  # optional; here and not in each worker: the base imports it for all
    from uvloop import new_event_loop


class Template:
    """run() is the life of one template process."""

    def __init__(
        self,
        origin: Origin,
        shared: Shared,
        channel: Channel,
        config: Config,
        generation: int,
        *,
        is_reborn: bool,
    ) -> None:
        self._origin = origin
        self._shared = shared
        self._channel = channel
        self._config = config
        self._generation = generation
        self._is_reborn = is_reborn
        self._sources: dict[str, str] = {}

    def run(self) -> int:
        """Return the exit status: 0 told to go, 1 the app could not be imported."""
        logs.name_process(f"template-{self._generation}")
        process.set_name("procd: template")
        logs.set_level(self._config.log_level)  # the base has that of its own fork
        began = time.monotonic()
        os.environ.update(self._config.env)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)  # print() belongs in the log at once
        try:
            os.chdir(self._config.chdir)  # resolved anew: a symlinked release may have moved
            loader = Loader(self._config.chdir, self._origin.code_dir, self._note, self._pinned())
            with shielded():
                loader.install()
                app = loader.load(self._config.app)
            self._server = checked(app, self._config.app)
        except BaseException as error:  # noqa: BLE001 - the app's import may raise anything
            send_pairs(self._channel, "sources", self._sources)
            self._channel.send("failed", {"error": explain(error)})
            return 1
        self._keep_manifest()
        send_pairs(self._channel, "sources", self._sources)
        self._channel.send("ready", {"took": time.monotonic() - began})
        loader.on_source = self._note_late
        return serve(self._channel, {"fork": self._fork, "log": _reopen})

    # Sources

    def _note(self, path: str, digest: str) -> None:
        self._sources[path] = digest

    def _note_late(self, path: str, digest: str) -> None:
        """A worker imports something more: it has its own channel by then."""
        self._channel.send("sources", {"pairs": [[path, digest]], "more": False})

    @property
    def _manifest(self) -> Path:
        return self._origin.code_dir / f"generation-{self._generation}"

    def _keep_manifest(self) -> None:
        if self._is_reborn:
            return
        try:
            self._origin.code_dir.mkdir(mode=0o700, exist_ok=True)
            self._manifest.write_bytes(wire.pack(self._sources))
            self._manifest.with_name(f"generation-{self._generation - 8}").unlink(missing_ok=True)
            kept = [_manifest_in(path) for path in self._origin.code_dir.glob("generation-*")]
            CodeCache(self._origin.code_dir).prune(pair for each in kept for pair in each.items())
        except OSError as error:
            logs.warning("no manifest", file=self._manifest, why=error)

    def _pinned(self) -> dict[str, str] | None:
        if not self._is_reborn:
            return None
        found = _manifest_in(self._manifest)
        if not found:
            logs.warning("no manifest: the code comes from the disk", file=self._manifest)
        return found

    # Forking

    def _fork(self, packet: Packet) -> None:
        channel, *listeners = (os.dup(fd) for fd in packet.fds)
        context = Context(
            Role(number(packet, "role")),
            number(packet, "number"),
            self._generation,
            number(packet, "row"),
            number(packet, "incarnation"),
            self._config,
            self._server,
            Channel.of_fd(channel),
            self._origin,
            self._shared,
            listeners,
        )
        # The template's own channel is not the child's: it has one.
        close = {self._channel.fileno(), *packet.fds}
        try:
            child.fork_for_master(
                lambda: self._become(context), close, context.channel, self._origin.master_pid
            )
        finally:
            context.channel.close()
            for fd in listeners:
                os.close(fd)

    def _become(self, context: Context) -> int:
        logs.name_process(context.name)
        process.set_name(f"procd: {context.name}")
        self._inherited = self._channel  # kept: its number is closed here, or another's by now
        self._channel = context.channel  # late imports are told there
        context.shared.arena.become(context.row, context.incarnation)
        with _runner() as runner:
            return runner.run(_live(context))


def _manifest_in(path: Path) -> dict[str, str]:
    try:
        found = wire.unpack(path.read_bytes())
    except (OSError, wire.Undecodable):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _reopen(packet: Packet) -> None:
    logs.ordered(packet.body.get("level"), tuple(os.dup(fd) for fd in packet.fds))


async def _live(context: Context) -> int:
    try:
        if context.role is Role.WORKER:
            return await Worker(context).run()
        return await TaskWorker(context).run()
    except BaseException as error:  # noqa: BLE001 - on_worker_start may raise anything
        logs.log.error("%s", logs.line("process failed"), exc_info=error)
        context.channel.send("failed", {"error": explain(error)})
        return 1


def _runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=new_event_loop)


def checked(app: object, spec: str) -> Server:
    if not isinstance(app, Server):
        raise ProcdError(f"app: {spec!r} is a {type(app).__name__}, not a procd.Server")
    return app
