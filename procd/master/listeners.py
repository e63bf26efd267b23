"""The listening sockets, which the master owns and never closes while the config has them.

Rules:
- A socket accepts only once everything about it is right: its mode, its backlog, its path.
- What stands at a Unix path is replaced only if it is a socket that nobody answers on; a file,
  a folder, a link or somebody's live socket is reported and left.
- A path is removed only while it is still the socket that was bound here.
- One Listen is one socket; systemd's name likewise.
- The workers inherit the sockets by fork and only ever close them: close() here also removes
  the path, and belongs to the master.

Looking up a host name may take the resolver's time; an address does not. A master that serves
has names looked up by a child (configreader.py) and hands in what was found.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace

from procd import logs
from procd.config import change
from procd.config.schema import Listen
from procd.errors import StartFailed
from procd.linux import sockets

_MAX_PATH_BYTES = 107  # unix(7): 108 with the closing NUL
_FIRST_FD = 3  # sd_listen_fds(3)

_NOT_TCP = {
    errno.EADDRINUSE: "the port is taken: stop who has it (ss -ltnp 'sport = {port}' names it)",
    errno.EACCES: (
        "a port below net.ipv4.ip_unprivileged_port_start (1024) takes root or"
        " CAP_NET_BIND_SERVICE: use a higher one"
    ),
    errno.EADDRNOTAVAIL: "no interface here has {host}: see `ip address`, or use 0.0.0.0",
    errno.EAFNOSUPPORT: "this kernel has no IPv6: use an IPv4 address",
}
_NOT_UNIX = {
    errno.EADDRINUSE: "another process has just begun to listen there: stop it",
    errno.ENOENT: "the folder {folder} does not exist: create it",
    errno.ENOTDIR: "{folder} is no folder",
    errno.EACCES: "uid {uid} may not make or remove a socket in {folder}: change its owner",
    errno.EPERM: "uid {uid} may not make or remove a socket in {folder}: change its owner",
    errno.EROFS: "{folder} is on a read-only file system: choose another place",
    errno.ENOSPC: "no space is left in {folder}: make room",
    errno.EDQUOT: "the quota of uid {uid} in {folder} is used up: make room",
}

Socket = socket.socket
Owner = tuple[int, int]  # uid, gid


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that listens, and how `status` names it."""

    listen: Listen  # as the config has it
    socket: Socket
    address: str  # tcp://127.0.0.1:9000 with the real port, unix:///absolute/path
    inode: tuple[int, int] | None = None  # of a Unix path that was bound here

    @property
    def port(self) -> int:
        """Return the port of one that was bound by its address; 0 of others."""
        return int(self.socket.getsockname()[1]) if self.listen.scheme == "tcp" else 0

    def close(self) -> None:
        """Stop listening; remove the Unix path if it is still this socket."""
        if self._has_path():
            with contextlib.suppress(OSError):
                os.unlink(self.listen.path)
        self.socket.close()

    def shut(self) -> None:
        """Take no new client; those that the kernel has taken can still be accepted.

        A socket of systemd goes on taking them: it is systemd's, and holds them for whoever
        is given it next.
        """
        try:
            if self.listen.scheme == "tcp":
                sockets.take_no_new_client(self.socket)
            elif self._has_path():
                os.unlink(self.listen.path)
        except OSError as error:
            logs.warning("listener takes clients to its end", of=self.address, why=error.strerror)

    def adapted(self, listen: Listen) -> Listener:
        """Return the same socket under a config that may have another ?mode=."""
        if change.mode(listen) != change.mode(self.listen) and self._has_path():
            try:
                os.chmod(listen.path, change.mode(listen))
            except OSError as error:
                logs.error("mode not changed", of=self.address, why=error.strerror)
                return self
        return replace(self, listen=listen)

    def share_port(self, *, is_shared: bool) -> None:
        """Let another socket of ours bind the port too, as 0.0.0.0 beside 127.0.0.1."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_shared)

    def set_backlog(self, backlog: int) -> None:
        """Change how many may wait; systemd's own sockets have that from their unit."""
        if self.listen.scheme != "systemd":
            self.socket.listen(backlog)

    def _has_path(self) -> bool:
        """Tell whether the Unix path is there and still this socket."""
        if self.inode is None:
            return False
        try:
            found = os.stat(self.listen.path, follow_symlinks=False)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.inode


def bind(
    listen: Listen,
    backlog: int,
    hosts: Mapping[str, str] | None = None,
    *,
    shares_port: bool = False,
    owner: Owner | None = None,
) -> Listener:
    """Open the socket that *listen* asks for: listening, non-blocking, not inherited over exec.

    *hosts* are the addresses of host names; without it they are looked up here. One that shares
    its port listens only after set_backlog(). A Unix path is made *owner*'s, if not ours. Raises
    StartFailed in one line with the address and what to do.
    """
    match listen.scheme:
        case "tcp":
            return _bind_tcp(listen, None if shares_port else backlog, hosts)
        case "unix":
            return _bind_unix(listen, backlog, owner)
        case "systemd":
            return _take_over(listen)
    raise StartFailed(f"cannot listen on {listen.text}: this version knows no {listen.scheme}://")


def look_up(host: str) -> str:
    """Return one address of a host name; raises OSError, UnicodeError.

    IPv4 where it has both kinds: a client that tries only one kind tries that one.
    """
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0])


def is_address(host: str) -> bool:
    """Tell an IP address from a name that has to be looked up."""
    try:
        socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return False
    return True


def _bind_tcp(listen: Listen, backlog: int | None, hosts: Mapping[str, str] | None) -> Listener:
    host = listen.host
    try:
        if not is_address(host):
            host = look_up(host) if hosts is None else hosts[host]
        found = socket.getaddrinfo(
            *(host, listen.port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        )
    except (socket.gaierror, UnicodeError, KeyError) as error:
        why = "not found" if isinstance(error, KeyError) else error
        raise _failed(
            listen, f"{listen.host!r} is no address of this machine ({why}): name one, or an IP"
        ) from None
    family, _, _, _, where = found[0]
    try:
        sock = Socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _failed(listen, _why(_NOT_TCP, listen, error)) from error
    try:
        # Connections of the last run in TIME_WAIT do not keep the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] is IPv6 alone: beside it 0.0.0.0 can stand in the same list.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if backlog is None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
        if backlog is not None:
            sock.listen(backlog)  # may say EADDRINUSE as well
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _failed(listen, _why(_NOT_TCP, listen, error)) from error
    return Listener(listen, sock, address_of(sock))


def _bind_unix(listen: Listen, backlog: int, owner: Owner | None) -> Listener:
    path = os.path.abspath(listen.path)
    length = len(os.fsencode(path))
    if length > _MAX_PATH_BYTES:
        raise _failed(
            listen, f"the path has {length} bytes, the kernel takes {_MAX_PATH_BYTES}: shorten it"
        )
    sock = Socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _make_room(listen, path)
        # The kernel makes the file with mode 0777 less the umask: so it is right from the first
        # moment, and bound by its real name, which `ss` and getsockname() show ever after.
        umask = os.umask(~change.mode(listen) & 0o777)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        if owner is not None:
            os.chown(path, *owner, follow_symlinks=False)
        found = os.stat(path, follow_symlinks=False)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _failed(listen, _why(_NOT_UNIX, listen, error)) from error
    except StartFailed:
        sock.close()
        raise
    return Listener(listen, sock, f"unix://{path}", (found.st_dev, found.st_ino))


def _make_room(listen: Listen, path: str) -> None:
    """Remove the socket of a dead process; raise StartFailed if *path* holds anything else."""
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(mode):
        raise _failed(listen, f"{path} exists and is no socket: move it away, or name another path")
    with Socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return os.unlink(path)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise _failed(
                listen, f"{path} is a socket of another user: remove it, or name another path"
            ) from None
        except OSError:
            pass  # EAGAIN: alive with a full backlog; EPROTOTYPE: alive, of another type
    raise _failed(listen, f"another process listens on {path}: stop it (ss -xlp names it)")


def _take_over(listen: Listen) -> Listener:
    """Take the socket that systemd opened under this name: sd_listen_fds_with_names(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise _failed(
            listen,
            "systemd passed this process no socket: start its .socket unit, and procd --foreground",
        )
    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names = names[: int(count) if count.isdecimal() else 0]
    fds = [_FIRST_FD + index for index, name in enumerate(names) if name == listen.name]
    if len(fds) != 1:
        raise _failed(
            listen,
            f"systemd passed {len(fds)} sockets of that name, of {names}: give one .socket unit"
            f" FileDescriptorName={listen.name} and one ListenStream=",
        )
    try:
        # A copy, so that a listener that leaves the config can come back to it.
        sock = Socket(fileno=os.dup(fds[0]))
    except OSError as error:
        raise _failed(listen, f"fd {fds[0]} of systemd is no socket ({error.strerror})") from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        sock.close()
        raise _failed(
            listen, "its unit needs ListenStream= and Accept=no: the socket cannot accept"
        )
    os.set_inheritable(fds[0], False)
    sock.setblocking(False)
    return Listener(listen, sock, address_of(sock))


def address_of(sock: Socket) -> str:
    where = sock.getsockname()
    if sock.family == socket.AF_INET6:
        return f"tcp://[{where[0]}]:{where[1]}"
    if sock.family == socket.AF_INET:
        return f"tcp://{where[0]}:{where[1]}"
    return f"unix://{os.fsdecode(where)}"


def _failed(listen: Listen, why: str) -> StartFailed:
    return StartFailed(f"cannot listen on {listen.text}: {why}")


def _why(reasons: dict[int, str], listen: Listen, error: OSError) -> str:
    reason = reasons.get(error.errno or 0) or error.strerror or str(error)
    folder = os.path.dirname(listen.path)
    return reason.format(host=listen.host, port=listen.port, folder=folder, uid=os.geteuid())
