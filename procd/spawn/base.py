"""The base process: forks templates, and reads the disk for the master.

It drops to `user` before anything of the app is near, holds procd's own modules (and what
`preload` names) imported, and runs no app code. What the master must not do because a disk
may be slow, it does: hashing sources, and looking at them where inotify sees nothing.
"""

from __future__ import annotations

import importlib
import os
import time

from procd import logs
from procd.config.schema import Config
from procd.ipc.arena import Arena
from procd.ipc.channel import Channel, Packet
from procd.ipc.inbox import Post
from procd.linux import process
from procd.spawn import child, sources
from procd.spawn.context import Origin
from procd.spawn.forkserver import number, seconds_to, send_pairs, serve, texts
from procd.spawn.template import Template
from procd.tasks.dispatcher import Shared
from procd.tasks.tokens import Tokens

POLL_SECONDS = 0.25  # between two looks where inotify does not work


class Base:
    """run() is the life of a base process, forked by the master."""

    def __init__(self, origin: Origin, channel: Channel) -> None:
        self._origin = origin
        self._channel = channel
        self._polled: list[str] = []
        self._globs: list[str] = []
        self._seen: dict[str, sources.Fingerprint] = {}
        self._next_look = 0.0
        self._looked = 0  # wall clock, ns

    def run(self, config: Config) -> int:
        """Return the exit status."""
        logs.name_process("base")
        process.set_name("procd: base")
        process.drop_privileges(config.user, config.group)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        self._shared = _shared(self._origin)
        if isinstance(config.preload, tuple):
            _preload(config.preload)
        self._channel.send("ready")
        commands = {"template": self._fork, "hash": self._hash, "poll": self._poll, "log": _log}
        return serve(self._channel, commands, self._look)

    def _fork(self, packet: Packet) -> None:
        channel = Channel.of_fd(os.dup(packet.fds[0]))
        template = Template(
            self._origin,
            self._shared,
            channel,
            Config.from_plain(packet.body["config"]),  # type: ignore[arg-type] # the master's own
            number(packet, "generation"),
            is_reborn=bool(packet.body.get("reborn")),
        )
        close = {self._channel.fileno(), *packet.fds}
        try:
            child.fork_for_master(template.run, close, channel, self._origin.master_pid)
        finally:
            channel.close()

    # Reading the disk

    def _hash(self, packet: Packet) -> None:
        paths = texts(packet, "paths")
        if packet.body.get("globs"):
            paths += list(sources.fingerprint((), texts(packet, "globs")))
        digests = sources.digest(paths)
        last = bool(packet.body.get("last"))
        send_pairs(self._channel, "hashed", digests, number(packet, "ask"), last=last)

    def _poll(self, packet: Packet) -> None:
        if packet.body.get("first"):
            self._polled = []
        self._polled += texts(packet, "paths")
        self._globs = texts(packet, "globs")
        self._seen = {}
        self._next_look = 0.0

    def _look(self) -> float | None:
        if not self._polled and not self._globs:
            return None
        if time.monotonic() >= self._next_look:
            now = sources.fingerprint(self._polled, self._globs)
            doubtful = sources.unsettled(self._seen, self._looked) if self._seen else set()
            changed = {
                path for path in {*now, *self._seen} if now.get(path) != self._seen.get(path)
            }
            if self._seen and (changed or doubtful):
                paths = sorted(changed | doubtful)
                for start in range(0, len(paths), 200):
                    self._channel.send("suspects", {"paths": paths[start : start + 200]})
            self._seen, self._looked = now, time.time_ns()
            self._next_look = time.monotonic() + POLL_SECONDS
        return seconds_to(self._next_look)


def _log(packet: Packet) -> None:
    logs.ordered(packet.body.get("level"), tuple(os.dup(fd) for fd in packet.fds))


def _shared(origin: Origin) -> Shared:
    return Shared(
        Arena(origin.arena_fd, origin.layout),
        Tokens(origin.queue_key),
        origin.doorbell,
        Post(origin.ipc_dir),
        origin.scoreboard,
    )


def _preload(names: tuple[str, ...]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - somebody else's module
            logs.error("preload failed", module=name, why=error)
