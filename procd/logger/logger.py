"""The logger: the process that reads what all others print, and writes the log.

Each process prints into a pipe of its own, and the logger has the reading ends from the master,
which keeps them as well: whoever takes over after a killed logger goes on with what lies in them.
It reads whatever comes at once; what is too much is held back and counted, and what is slow to be
written waits in a thread. It runs no app code, and no reload concerns it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from math import inf

from procd import logs
from procd.config.schema import Config
from procd.ipc.channel import Channel, Closed, Packet
from procd.linux import process
from procd.logger.entry import MAX_LINE_BYTES, Entry, Who
from procd.logger.source import Source
from procd.logger.writer import Writer
from procd.spawn import stacks
from procd.spawn.context import Origin

READ_BYTES = 2 * MAX_LINE_BYTES  # of a pipe at once; the master's records come one a read
READS = 64  # a pipe holds 1 MiB at most
RECORDS = 64  # of the master, taken together
TELL_SECONDS = 1.0  # between two counts for `status`
LAST_SECONDS = 2.0  # for what waits to be written, at the end


class Logger:
    """run() is the life of a logger, forked by the master."""

    def __init__(self, origin: Origin, channel: Channel) -> None:
        self._origin = origin
        self._channel = channel
        self._sources: dict[int, Source] = {}  # by descriptor
        self._keys: dict[int, int] = {}  # the master's number of a pipe → descriptor
        self._due: set[int] = set()  # descriptors that wait for a time
        self._held = 0  # lines of pipes that have ended
        self._told: tuple[int, int, str | None] = (0, 0, None)
        self._tell_at = 0.0
        self._is_over = False

    def run(self, config: Config) -> int:
        """Serve until told to go; return the exit status."""
        logs.name_process("logger")
        process.set_name("procd: logger")
        process.drop_privileges(config.user, config.group)
        process.die_with_parent()  # a change of uid has cleared it
        if os.getppid() != self._origin.master_pid:
            return 0
        stacks.answer(self._origin.ipc_dir)
        self._rate = config.log_rate
        self._poll = select.epoll()
        self._poll.register(self._channel.fileno(), select.EPOLLIN)
        self._writers = [Writer(target, self._moved) for target in logs.targets()]
        self._channel.send("ready")
        try:
            while not self._is_over:
                self._turn()
        except Closed:
            return 1  # no master, no service
        self._end()
        return 0

    def _turn(self) -> None:
        found = self._poll.poll(self._wait_seconds())
        entries: list[Entry] = []
        for fd, _ in found:
            if fd != self._channel.fileno():
                entries += self._read(fd)
        entries += self._tick(time.monotonic())
        self._put(entries)
        # Last: a process that is gone has its last words read first, and so has the master.
        if any(fd == self._channel.fileno() for fd, _ in found):
            while (packet := self._channel.receive()) is not None:
                self._put(self._obey(packet))

    def _put(self, entries: Sequence[Entry]) -> None:
        if entries:
            for writer in self._writers:
                writer.put(entries)

    # Reading

    def _read(self, fd: int) -> list[Entry]:
        """Read what is there; at the end of a pipe, let go of it."""
        entries: list[Entry] = []
        source = self._sources.get(fd)
        if source is None:
            return entries
        for _ in range(RECORDS if self._keys.get(0) == fd else 1):
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                return entries + self._ended(fd)
            entries += source.feed(data, time.monotonic(), time.time())
        if source.due < inf:
            self._due.add(fd)
        return entries

    def _ended(self, fd: int) -> list[Entry]:
        entries = self._last_words(fd)
        key = next(key for key, each in self._keys.items() if each == fd)
        self._poll.unregister(fd)
        os.close(fd)
        self._held += self._sources.pop(fd).budget.total
        del self._keys[key]
        self._due.discard(fd)
        self._channel.send("ended", {"keys": [key]})
        return entries

    def _last_words(self, fd: int) -> list[Entry]:
        source, now = self._sources[fd], time.monotonic()
        entries = source.last_words(now, time.time())
        return entries + self._said(source.held(now, is_over=True))

    def _said(self, text: str | None) -> list[Entry]:
        if text is None:
            return []
        return [Entry(time.time(), "warning", Who("logger", os.getpid()), text)]

    # Clocks

    def _wait_seconds(self) -> float | None:
        due = min((self._sources[fd].due for fd in self._due), default=inf)
        if self._counts() != self._told:
            due = min(due, self._tell_at)
        return None if due == inf else max(0.0, due - time.monotonic())

    def _tick(self, now: float) -> list[Entry]:
        entries: list[Entry] = []
        for fd in list(self._due):
            source = self._sources[fd]
            entries += source.tick(now, time.time())
            entries += self._said(source.held(now))
            if source.due == inf:
                self._due.discard(fd)
        if now >= self._tell_at and (counts := self._counts()) != self._told:
            self._told, self._tell_at = counts, now + TELL_SECONDS
            held, lost, why = counts
            self._channel.send("counts", {"held_back": held, "lost": lost, "error": why})
        return entries

    def _counts(self) -> tuple[int, int, str | None]:
        """Return lines held back and entries lost since the start, and why they are now."""
        held = self._held + sum(source.budget.total for source in self._sources.values())
        whys = (writer.why for writer in self._writers if writer.why is not None)
        return held, sum(writer.lost for writer in self._writers), next(whys, None)

    # The master's word

    def _obey(self, packet: Packet) -> list[Entry]:
        match packet.kind:
            case "pipes" | "who":
                return self._take(packet)
            case "serve":
                self._channel.send("serving")
            case "rate":
                self._rate = packet.number("rate") or None
                for source in self._sources.values():
                    source.budget.limit(self._rate, time.monotonic())
            case "drain":
                self._is_over = True
            case "log":
                logs.ordered(packet.body.get("level"))
                for fd in packet.fds:
                    logs.reopened(fd)
                    self._channel.send("reopened")
        return []

    def _take(self, packet: Packet) -> list[Entry]:
        """Take in pipes, or what is new about those that are here."""
        entries: list[Entry] = []
        fds = iter(packet.fds)
        told = packet.body.get("whos")
        for key, role, number, generation, pid, is_over in told if isinstance(told, list) else ():
            who = Who(role, pid, number, generation)
            if packet.kind == "pipes":
                fd = self._keys[key] = next(fds)
                rate = None if key == 0 else self._rate  # the master's own are never too many
                self._sources[fd] = Source(who, rate, time.monotonic())
                self._poll.register(fd, select.EPOLLIN)
            elif (fd := self._keys.get(key, -1)) >= 0:
                self._sources[fd].who = who
            if is_over and fd >= 0:
                entries += self._drain(fd)
        return entries

    def _drain(self, fd: int) -> list[Entry]:
        """Its process is gone: nothing that it wrote waits for more, whoever has the pipe still."""
        entries: list[Entry] = []
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        for _ in range(READS):  # somebody else may still print into it
            if fd in self._sources and waiting.poll(0):
                entries += self._read(fd)
        if fd in self._sources:
            entries += self._last_words(fd)
        return entries

    def _moved(self) -> None:
        """In a writer's thread: the file is not where it was, and the master opens it anew."""
        self._channel.send("moved")

    # The end

    def _end(self) -> None:
        """Read and write all that there is."""
        entries: list[Entry] = []
        for fd in list(self._sources):
            entries += self._drain(fd)
        self._put(entries)
        until = time.monotonic() + LAST_SECONDS
        for writer in self._writers:
            writer.close(max(0.0, until - time.monotonic()))
