"""Reading the config again, in a child: the master neither parses YAML nor waits for a disk.

Nor for a name server: host names in `listen` are looked up by the child as well.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from procd.config.schema import Config
from procd.errors import ConfigError
from procd.ipc.channel import MAX_MESSAGE_BYTES, Channel, Closed
from procd.master import listeners
from procd.master.loop import Loop
from procd.spawn import child

SETTLED_NS = 2_000_000_000  # network file systems keep whole seconds, FAT two
SECONDS = 10.0  # a file that cannot be read by then is refused


Stamp = tuple[int, int, int, int, int]


class ConfigReader:
    """Reads one file with one set of overrides, one reading at a time."""

    def __init__(self, path: Path, overrides: Sequence[str], loop: Loop) -> None:
        self._path = path
        self._overrides = tuple(overrides)
        self._loop = loop
        self._channel: Channel | None = None
        self.pid = 0  # of the last reader
        self._pidfd = -1
        self._done: Callable[[Config | str], None] | None = None
        self.deadline: float | None = None
        self.hosts: dict[str, str] = {}  # addresses of the names in the `listen` last read
        self._reads: Stamp | None = None  # the file as it stood before it was read
        self._good: Stamp | None = None  # and of the last reading, if that was good

    def is_current(self) -> bool:
        """Tell whether the file is for sure the one that was read last, and was good."""
        return self._good is not None and self._good == _stamp(self._path)

    def read(self, now: float, done: Callable[[Config | str], None]) -> None:
        """Call *done* with the Config, or with why there is none."""
        self._reads, self._good = _stamp(self._path), None
        ours, theirs = Channel.pair()
        try:
            self.pid = child.fork(lambda: self._body(theirs), {theirs.fileno()})
        except OSError as error:
            ours.close()
            done(f"{self._path}: cannot fork to read it: {error.strerror}")
            return
        finally:
            theirs.close()
        self._channel, self._done, self.deadline = ours, done, now + SECONDS
        with suppress(ProcessLookupError):
            self._pidfd = os.pidfd_open(self.pid)
        self._loop.read(ours, self._hear)

    def _body(self, channel: Channel) -> int:
        from procd.config.load import load

        try:
            config = load(self._path, self._overrides, os.environ)
        except ConfigError as error:
            channel.send("refused", {"error": str(error)[:60_000]})
            return 2
        names = {listen.host for listen in config.listen if listen.scheme == "tcp"}
        hosts = {}
        for name in sorted(names):
            with suppress(OSError, UnicodeError):  # whoever binds it says so
                hosts[name] = listeners.look_up(name)
        try:
            channel.send("config", {"plain": config.plain(), "hosts": hosts})
        except ValueError:
            words = f"its values take more than {MAX_MESSAGE_BYTES} bytes; shorten env or listen"
            channel.send("refused", {"error": f"{self._path}:1:1: {words}"})
            return 2
        return 0

    def _hear(self) -> None:
        if self._channel is None:
            return
        try:
            packet = self._channel.receive()
        except Closed:
            self._finish(f"{self._path}: its reader died")
            return
        if packet is None:
            return
        plain = packet.body.get("plain")
        if packet.kind == "config" and isinstance(plain, dict):
            hosts = packet.body.get("hosts")
            self.hosts = hosts if isinstance(hosts, dict) else {}
            self._good = self._reads
            self._finish(Config.from_plain(plain))
        else:
            self._finish(str(packet.body.get("error")))

    def tick(self, now: float) -> None:
        if self.deadline is not None and now >= self.deadline:
            self._finish(f"{self._path}: could not be read within {SECONDS:g} s")

    def cancel(self) -> None:
        """Read no more; nobody wants to hear it."""
        self._done = None
        self._finish("")

    def _finish(self, outcome: Config | str) -> None:
        done, self._done, self.deadline = self._done, None, None
        if self._channel is not None:
            self._loop.forget(self._channel)
            self._channel.close()
            self._channel = None
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        if done is not None:
            done(outcome)


def _stamp(path: Path) -> Stamp | None:
    """Return what changes with every change of a file; None where that is not for sure.

    A file that has just been changed may be changed again within the same tick of its clock.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    if abs(time.time_ns() - found.st_ctime_ns) < SETTLED_NS:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
