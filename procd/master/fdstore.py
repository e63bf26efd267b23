"""Listening sockets that systemd keeps for us: clients in their backlog outlive a killed master.

Each socket that procd bound by itself is handed to systemd's file descriptor store
(FileDescriptorStoreMax= in the unit; sd_pid_notify_with_fds(3)). The next master of the unit, after
a crash or a `systemctl restart`, is given them back and binds nothing. A stop ends them.

Only where $FDSTORE says that there is a store: systemd sets it from 254 on, our units before.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress

from procd import logs
from procd.config import change
from procd.config.schema import Listen
from procd.master.listeners import Listener, address_of
from procd.service import sdnotify

_FIRST_FD = 3  # sd_listen_fds(3)
_PREFIX = "procd."  # a socket unit's own FileDescriptorName= begins otherwise


class FdStore:
    """What an earlier master of this unit left, and what the next one shall find."""

    def __init__(self, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> None:
        self._is_there = environ.get("FDSTORE", "0").isdecimal() and environ.get("FDSTORE") != "0"
        self._is_there = self._is_there and bool(environ.get("NOTIFY_SOCKET"))
        self._left: dict[str, list[int]] = {}
        self._kept: set[str] = set()
        count = environ.get("LISTEN_FDS", "")
        if environ.get("LISTEN_PID") == str(pid or os.getpid()) and count.isdecimal():
            for index, name in enumerate(
                environ.get("LISTEN_FDNAMES", "").split(":")[: int(count)]
            ):
                if name.startswith(_PREFIX):
                    os.set_inheritable(_FIRST_FD + index, False)
                    self._left.setdefault(name, []).append(_FIRST_FD + index)

    def take(self, listen: Listen, backlog: int) -> Listener | None:
        """Return the very socket that listened on this address before; None if there is none."""
        fds = self._left.get(_name(listen))
        while fds:
            sock = socket.socket(fileno=fds.pop(0))
            try:
                return _listener(listen, sock, backlog)
            except OSError as error:
                logs.warning("kept listener not used", address=listen.text, why=error)
                sock.close()
                sdnotify.forget(_name(listen))  # or it would come back beside its successor
        return None

    def keep(self, listeners: Iterable[Listener]) -> None:
        """Have systemd keep exactly these; what else was left is closed."""
        mine = {_name(one.listen): one for one in listeners if one.listen.scheme != "systemd"}
        if self._is_there:
            for name, listener in mine.items():
                if name not in self._kept:
                    sdnotify.store(listener.socket.fileno(), name)
            for name in (self._kept | self._left.keys()) - mine.keys():
                sdnotify.forget(name)
            self._kept = set(mine)
        for fd in (fd for fds in self._left.values() for fd in fds):
            os.close(fd)
        self._left = {}

    def close(self, listeners: Iterable[Listener]) -> None:
        """The service stops. A Unix path is removed then, and a socket without it is no use."""
        self.keep([one for one in listeners if one.listen.scheme == "tcp"])


def _name(listen: Listen) -> str:
    words = f"{listen.scheme} {listen.host} {listen.port} {listen.path}"
    return _PREFIX + hashlib.sha256(words.encode()).hexdigest()[:24]


def _listener(listen: Listen, sock: socket.socket, backlog: int) -> Listener:
    """Raises OSError if the socket is not what it was, or its path is gone."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError("it does not listen")
    inode = None
    if listen.scheme == "unix":
        found = os.stat(listen.path, follow_symlinks=False)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(f"{listen.path} is no socket any more")
        with suppress(PermissionError):
            os.chmod(listen.path, change.mode(listen))
        inode = (found.st_dev, found.st_ino)
    sock.listen(backlog)
    sock.setblocking(False)
    return Listener(listen, sock, address_of(sock), inode)
