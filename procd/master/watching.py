"""Deciding that a reload is due: suspicion, quiet, content.

The watcher (or the base, where inotify is blind) names files that may have changed; after
a moment of quiet the base hashes them; what really differs from what the last attempt
imported is a reason to reload. The same look follows each attempt, for what was saved
while it booted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from math import inf
from pathlib import Path

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Packet
from procd.master.debounce import Debounce
from procd.master.generation import Trial
from procd.master.loop import Loop
from procd.master.watcher import Watcher

BATCH_BYTES = 64 * 1024  # of paths in one message to the base


class Watching:
    """The master's eyes on the disk.

    *tell_base*(kind, body) sends to the base; *on_change*(names, joined) asks for a reload for
    *names*, if any; what boots has *joined* in it already. *trial*() is what boots at the moment.
    """

    def __init__(
        self,
        loop: Loop,
        tell_base: Callable[[str, dict[str, object]], bool],
        on_change: Callable[[list[str], list[str]], None],
        trial: Callable[[], Trial | None],
    ) -> None:
        self._loop = loop
        self._tell_base = tell_base
        self._on_change = on_change
        self._trial = trial
        self._watcher: Watcher | None = None
        self._registered = -1
        self._config: Config | None = None
        self._known: dict[str, str | None] = {}  # path → hash, as of the last attempt
        self._is_extra_known = False
        self._refused = False  # the last attempt: then any new source may be the cure
        self._suspects: set[str] = set()
        self._unknown: set[str] = set()
        self._check_all = False
        self._debounce = Debounce()
        self._ask = 0
        self._answers: dict[str, str | None] = {}
        self._asked_unknown: set[str] = set()
        self._config_stamp: tuple[int, int, int] | None = None
        self._is_asking = False

    def attempt(self, config: Config, sources: dict[str, str], *, refused: bool) -> None:
        """An attempt to reload is over: *sources* is what it imported. Watch these now."""
        self._debounce.calm()
        if not config.watch_file:
            self.close()
            return
        self._open(config)
        extra = {path: digest for path, digest in self._known.items() if path not in sources}
        self._known = {**(extra if self._is_extra_known else {}), **sources}
        self._refused = refused
        if not refused:
            self._unknown.clear()
        self._watch()
        self._check_all = True
        self._look()

    @property
    def config_name(self) -> str:
        """The config file, as it stands among the names that on_change gets."""
        return "" if self._config is None else _short(str(self._config.path), self._config.chdir)

    def config_is_read(self, path: Path) -> None:
        """The config is about to be read: a later change counts."""
        self._config_stamp = _stamp(path)
        self._unknown.clear()

    def also(self, sources: dict[str, str]) -> None:
        """A process imported something more."""
        if self._watcher is not None and not sources.keys() <= self._known.keys():
            self._known = {**sources, **self._known}
            self._watch()

    def _open(self, config: Config) -> None:
        old = self._config
        same = old is not None and (old.chdir, old.watch_extra, old.watch_poll) == (
            config.chdir,
            config.watch_extra,
            config.watch_poll,
        )
        self._config = config
        if self._watcher is not None and same:
            return
        self.close()
        self._config = config
        self._is_extra_known = False  # what other globs match is no change
        poll = None if config.watch_poll == "auto" else bool(config.watch_poll)
        self._watcher = Watcher([config.chdir], self._globs(), poll)

    def _globs(self) -> list[str]:
        if self._config is None:
            return []
        return [os.path.join(self._config.chdir, glob) for glob in self._config.watch_extra]

    def _watch(self) -> None:
        watcher, config = self._watcher, self._config
        if watcher is None or config is None:
            return
        said = watcher.polls
        watcher.watch({*self._known, str(config.path)}, searching=self._refused)
        if watcher.polls:
            self._unregister()
            if not said or self._registered == -1:
                logs.warning("watching by polling", because=watcher.why_polling)
                self._registered = -2
            self.base_is_ready()
        elif self._registered < 0:
            self._loop.read(watcher.fd, self._read)
            self._registered = watcher.fd

    def base_is_ready(self) -> None:
        """A (new) base: give it what it has to look at, and ask again what is open."""
        if self._watcher is None:
            return
        if self._watcher.polls and self._config is not None:
            paths = [*self._known, str(self._config.path)]
            for first, batch in _batches(paths):
                self._tell_base("poll", {"paths": batch, "globs": self._globs(), "first": first})
        if self._is_asking:
            self._is_asking = False
            self._check_all = True
            self._look()

    def _unregister(self) -> None:
        if self._registered >= 0:
            self._loop.forget(self._registered)
            self._registered = -1

    def close(self) -> None:
        """Watch no more."""
        self._unregister()
        self._registered = -1
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = None
        self._tell_base("poll", {"paths": [], "globs": [], "first": True})

    # Suspicion

    def _read(self) -> None:
        if self._watcher is None:
            return
        changes = self._watcher.read()
        self.suspect(changes.candidates, everything=changes.everything, is_whole=changes.is_whole)
        # One that comes while an attempt is made may be what that lacks.
        self._unknown |= changes.unknown_py
        if changes.unknown_py and (self._refused or self._trial() is not None):
            self._touch()
        if self._watcher.polls:  # the last read() has given inotify up
            self._watch()

    def suspect(
        self, paths: Collection[str], *, everything: bool = False, is_whole: bool = False
    ) -> None:
        """These may have changed. *is_whole*: none of them is half written."""
        paths = {path for path in paths if not self._is_ours(path)}
        if self._watcher is None or not (paths or everything):
            return
        self._suspects |= paths
        self._check_all = self._check_all or everything
        self._touch(at_once=is_whole and self._trial() is None)

    def _is_ours(self, path: str) -> bool:
        """Tell what procd itself writes: a glob that matches it must not reload for ever."""
        config = self._config
        if config is None or path in self._known:
            return False
        folders = (f"{config.run_dir}/", f"{config.state_dir}/")
        files = (config.log_file, config.master_pid_file, config.worker_pid_file)
        return path.startswith(folders) or path in {str(file) for file in files if file}

    def _touch(self, *, at_once: bool = False) -> None:
        self._debounce.touch(time.monotonic(), at_once=at_once)

    @property
    def is_settled(self) -> bool:
        """Tell whether nothing is suspected: what boots is, as far as is known, what is there."""
        return self._watcher is None or (self._debounce.due() is None and not self._is_asking)

    def due(self) -> float:
        at = self._debounce.due()
        return inf if at is None or self._watcher is None else at

    def tick(self, now: float, *, is_idle: bool) -> None:
        """Look, if it has been quiet; while the config is read the look after that does.

        Of what boots this waits for the sources that it was made of.
        """
        at = self._debounce.due()
        trial = self._trial()
        if at is None or now < at or (trial is not None and not trial.is_read):
            return
        self._debounce.fired(now)
        if is_idle or trial is not None:
            self._look()

    # Content

    def _look(self) -> None:
        """Have the base hash what is suspected."""
        config = self._config
        if self._is_asking or config is None or self._watcher is None:
            self._check_all = True
            return
        paths = self._suspects | (set(self._known) if self._check_all else set())
        globs = self._globs() if self._check_all or not self._is_extra_known else []
        self._check_all = False
        trial = self._trial()
        failing = self._refused if trial is None else trial.has_failed
        self._asked_unknown = self._unknown if failing else set()
        self._unknown = set()
        self._suspects = set()
        paths |= self._asked_unknown
        paths.discard(str(config.path))
        self._ask += 1
        self._answers = {}
        self._is_asking = True
        batches = _batches(sorted(paths))
        for index, (_, batch) in enumerate(batches):
            last = index == len(batches) - 1
            body: dict[str, object] = {"paths": batch, "ask": self._ask, "last": last}
            if last:
                body["globs"] = globs
            self._tell_base("hash", body)

    def hashed(self, packet: Packet) -> None:
        """The base has hashed."""
        if packet.body.get("ask") != self._ask or not self._is_asking:
            return
        self._answers |= packet.pairs()
        if packet.body.get("more") or not packet.body.get("last", True):
            return
        self._is_asking = False
        self._judge()
        if self._check_all or self._suspects or (self._refused and self._unknown):
            self._touch()

    def _judge(self) -> None:
        config = self._config
        if config is None or self._watcher is None:
            return
        first_extra = not self._is_extra_known and bool(self._globs())
        self._is_extra_known = True
        if first_extra:
            # The first look at the globs only learns what they hold.
            new = self._answers.keys() - self._known.keys() - self._asked_unknown
            self._known |= {path: self._answers[path] for path in new if not self._is_ours(path)}
        trial = self._trial()
        expected = self._known if trial is None else {**self._known, **trial.sources}
        differs = [path for path, digest in self._answers.items() if expected.get(path) != digest]
        changed = [path for path in differs if not self._is_ours(path)]
        if first_extra:
            self._watch()
        stamp = _stamp(config.path)
        if stamp != self._config_stamp:
            self._config_stamp = stamp
            changed.append(str(config.path))
        # Saved after what boots was begun, and before it was imported.
        joined = [p for p, digest in self._answers.items() if self._known.get(p, digest) != digest]
        named = [
            [_short(path, config.chdir) for path in sorted(found)]
            for found in (changed, {*joined} - {*changed})
        ]
        if any(named):
            if trial is not None:
                self._debounce.disturbed()
            # Of globs the hash is taken here; of sources the attempt tells what it imported.
            both = self._answers.keys() & {*changed, *joined}
            self._known |= {path: self._answers[path] for path in both}
            self._on_change(*named)


def _batches(paths: list[str]) -> list[tuple[bool, list[str]]]:
    """Cut paths into messages; at least one, the first marked."""
    found: list[tuple[bool, list[str]]] = []
    batch: list[str] = []
    size = 0
    for path in paths:
        batch.append(path)
        size += len(os.fsencode(path)) + 8
        if size > BATCH_BYTES:
            found.append((not found, batch))
            batch, size = [], 0
    if batch or not found:
        found.append((not found, batch))
    return found


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _short(path: str, folder: Path) -> str:
    prefix = f"{folder}/"
    return path.removeprefix(prefix)
