"""The base process: forks templates, and reads the disk for the master.

It drops to `user` before anything of the app is near, holds procd's own modules and those of
its recipe imported, and runs no app code. What the master must not do because a disk may be
slow, it does: hashing sources, and looking at them where inotify sees nothing.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Packet
from procd.linux import process
from procd.spawn import child, manifest, sources, stacks
from procd.spawn.allowance import Allowance
from procd.spawn.child import Birth
from procd.spawn.context import Origin
from procd.spawn.forkserver import log, seconds_to, send_pairs, serve
from procd.spawn.preload import Preloaded, preload
from procd.spawn.template import Template

POLL_SECONDS = 0.25  # between two looks where inotify does not work


class Base:
    """run() is the life of a base process, forked by the master."""

    def __init__(self, origin: Origin, channel: Channel, allowance: Allowance) -> None:
        self._allowance = allowance
        self._origin = origin
        self._channel = channel
        self._preloaded = Preloaded()
        self._to_prune = 0
        self._polled: list[str] = []
        self._globs: list[str] = []
        self._seen: dict[str, sources.Fingerprint] = {}
        self._next_look = 0.0
        self._looked = 0  # wall clock, ns

    def run(self, config: Config, modules: Mapping[str, str | None], env: Mapping[str, str]) -> int:
        """Import *modules* in the environment *env*, then serve; return the exit status."""
        logs.name_process("base")
        process.set_name("procd: base")
        self._allowance.take()
        process.drop_privileges(config.user, config.group)
        stacks.answer(self._origin.ipc_dir)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        self._shared = self._origin.open()
        if modules and not self._preload(modules, env, config):
            return 0
        gc.collect()
        gc.freeze()  # a later collection, here or in what is forked, touches none of its pages
        self._channel.send("ready", {"modules": len(self._preloaded.names)})
        commands = {
            "fork": self._fork,
            "look": self._compare,
            "hash": self._hash,
            "poll": self._poll,
            "log": log,
        }
        return serve(self._channel, commands, self._idle)

    def _preload(
        self, modules: Mapping[str, str | None], env: Mapping[str, str], config: Config
    ) -> bool:
        """Return False, and say so, if nothing can be forked from here any more."""
        os.environ.update(env)
        # Told before: a base that dies of it cannot tell any more.
        done = self._preloaded = preload(
            modules,
            config.chdir,
            lambda package: self._channel.send("importing", {"package": package}),
        )
        if done.culprit:
            self._channel.send("unfit", {"module": done.culprit, "why": done.why})
        return not done.culprit

    def _fork(self, packets: list[Packet]) -> None:
        """Fork what waits to become a template; the app is imported on the master's word."""
        for packet in packets:
            channel = Channel.of_fd(os.dup(packet.fds[0]))
            life = Template(self._origin, self._shared, channel, self._preloaded.packages)
            output = packet.fds[1] if len(packet.fds) > 1 else -1
            mine = (self._channel.fileno(), packet.fds[0])
            birth = Birth(life.run, channel, mine, output)
            try:
                child.fork_for_master([birth], self._origin.master_pid)
            finally:
                channel.close()
        # After a fork the first write to each page copies it: not when a save waits for a hash.
        sources.digest((__file__,))

    # Reading the disk

    def _compare(self, packets: list[Packet]) -> None:
        """Tell whether what was preloaded is what the disk holds, for templates that import now."""
        changed = self._preloaded.changed()
        for packet in packets:
            self._channel.send("looked", {"row": packet.number("row"), "changed": changed})
        self._to_prune = packets[-1].number("generation")

    def _hash(self, packets: list[Packet]) -> None:
        for packet in packets:
            self._hash_one(packet)

    def _hash_one(self, packet: Packet) -> None:
        paths = packet.texts("paths")
        if packet.body.get("globs"):
            paths += list(sources.fingerprint((), packet.texts("globs")))
        digests = sources.digest(paths)
        last = bool(packet.body.get("last"))
        send_pairs(self._channel, "hashed", digests, packet.number("ask"), last=last)

    def _poll(self, packets: list[Packet]) -> None:
        for packet in packets:
            if packet.body.get("first"):
                self._polled = []
            self._polled += packet.texts("paths")
            self._globs = packet.texts("globs")
        self._seen = {}
        self._next_look = 0.0

    def _idle(self) -> float | None:
        """Do what can wait; return after how many seconds there is more of it."""
        if self._to_prune:
            newest, self._to_prune = self._to_prune, 0
            manifest.prune(self._origin.code_dir, newest)
        return self._look()

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
