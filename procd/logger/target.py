"""Where the log is written in the end: stderr, a file, or journald; and one entry into one of them.

Journald's socket is a descriptor like the others: a datagram an entry. One that is too large for
it goes as a sealed memory file, whose descriptor is the whole message.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from procd.logger import formats
from procd.logger.entry import Entry

JOURNAL = "/run/systemd/journal/socket"
PIPE_BYTES = 4096  # a pipe that is writable takes so many without blocking (pipe(7), PIPE_BUF)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class Target:
    """One descriptor that the log is written to."""

    fd: int
    format: str = "text"  # text, json or journal
    colour: bool = False
    path: Path | None = None  # of a file that can be reopened
    identifier: str = "procd"  # for journald

    def render(self, entry: Entry) -> bytes:
        """Return what is written of an entry."""
        if self.format == "journal":
            return formats.journal(entry, self.identifier)
        return formats.line(entry, self.format, colour=self.colour)


def write_at_once(target: Target, entry: Entry) -> None:
    """Write one entry if that can be done without waiting. Raises OSError."""
    data = target.render(entry)
    if target.format == "journal":
        send(target.fd, data, socket.MSG_DONTWAIT)
        return
    room = select.poll()
    room.register(target.fd, select.POLLOUT)
    for start in range(0, len(data), PIPE_BYTES):
        if not room.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        os.write(target.fd, data[start : start + PIPE_BYTES])


def send(fd: int, data: bytes, flags: int = 0) -> None:
    """Send one entry to journald. Raises OSError."""
    with socket.socket(fileno=os.dup(fd)) as journal:
        try:
            journal.send(data, flags)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            _send_file(journal, data, flags)


def _send_file(journal: socket.socket, data: bytes, flags: int) -> None:
    memory = os.memfd_create("procd-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(memory, "wb", buffering=0) as file:
        file.write(data)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)  # journald takes no other
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [memory]))]
        journal.sendmsg([], rights, flags)


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream is the journal's: systemd.exec(5), JOURNAL_STREAM."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError):
        found = os.fstat(fd)
        return (device, inode) == (str(found.st_dev), str(found.st_ino))
    return False


def journal_socket(path: str = JOURNAL) -> int | None:
    """Return a descriptor that leads to journald; None if there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)
    except OSError:
        sock.close()
        return None
    return sock.detach()


def is_coloured(fd: int, environ: Mapping[str, str]) -> bool:
    """Tell whether a person reads there who likes colours (no-color.org)."""
    return os.isatty(fd) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
