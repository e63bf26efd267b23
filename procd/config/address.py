"""The text of a listener to a Listen: tcp://host:port, unix:///path?mode=0660, systemd://NAME.

Pure: nothing is resolved, bound or looked up.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address

from procd.config.fault import Wrong, quoted
from procd.config.schema import LISTENERS_NOT_YET, Listen

ALLOWED = "tcp://host:port, unix:///path?mode=0660, systemd://NAME"
MAX_PORT = 65535
MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7) is 108 with its closing NUL
# What procd.ipc makes in run_dir: ipc/ROW.INCARNATION.sock, an address of unix(7).
MAX_RUN_DIR = MAX_SOCKET_PATH - len("/ipc/NNNN.NNNNNNNNNN.sock")

_TCP = re.compile(r"(\[[^\[\]]*\]|[^\s\[\]:/?#@]+):([0-9]{1,5})")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_MODE = re.compile(r"mode=(0?[0-7]{3})")
# sd_listen_fds_with_names(3): no colon, no control character, at most 255
_FD_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,255}")


def parse(text: str, base: str) -> Listen:
    """Return the listener that *text* names; a relative socket path is based on *base*.

    Raises Wrong.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "tcp":
        return _tcp(text, rest)
    if separator and scheme == "unix":
        return _unix(text, rest, base)
    if separator and scheme == "systemd":
        if not _FD_NAME.fullmatch(rest):
            raise Wrong(f"{quoted(text)} needs the FileDescriptorName= of a socket unit")
        return Listen(scheme, "", 0, "", None, rest, text)
    if separator and scheme in LISTENERS_NOT_YET:
        raise Wrong(f"{quoted(text)}: {scheme}:// is not in this version of procd yet")
    raise Wrong(f"{quoted(text)} is no address")


def identity(listen: Listen) -> tuple[str, ...] | None:
    """Return what two listeners cannot share; None if there may be many alike (port 0)."""
    match listen.scheme:
        case "tcp":
            return ("tcp", listen.host, str(listen.port)) if listen.port else None
        case "unix":
            return ("unix", listen.path)
    return (listen.scheme, listen.name)


def _tcp(text: str, rest: str) -> Listen:
    found = _TCP.fullmatch(rest)
    if not found:
        if "[" not in rest and rest.count(":") > 1:
            raise Wrong(f"{quoted(text)}: an IPv6 address stands in brackets, tcp://[::1]:9000")
        raise Wrong(f"{quoted(text)} is no address")
    port = int(found[2])
    if port > MAX_PORT:
        raise Wrong(f"{quoted(text)}: port {port} is above {MAX_PORT}")
    return Listen("tcp", _host(text, found[1]), port, "", None, "", text)


def _host(text: str, host: str) -> str:
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        if not host.strip("0123456789."):
            return str(IPv4Address(host))
    except ValueError:
        raise Wrong(f"{quoted(text)}: {quoted(host)} is no IP address") from None
    if not _HOST.fullmatch(host):
        raise Wrong(f"{quoted(text)}: {quoted(host)} is no host; 0.0.0.0 or [::] is all of them")
    return host.lower()


def _unix(text: str, rest: str, base: str) -> Listen:
    path, separator, query = rest.partition("?")
    if not path or path.endswith("/"):
        raise Wrong(f"{quoted(text)} names no socket")
    if path.startswith("@"):
        raise Wrong(f"{quoted(text)}: an abstract socket has no permissions, so none is offered")
    mode = _MODE.fullmatch(query)
    if separator and not mode:
        raise Wrong(f"{quoted(text)}: after the path only ?mode=0660 (octal) may stand")
    absolute = os.path.normpath(os.path.join(base, path))
    length = len(os.fsencode(absolute))
    if length > MAX_SOCKET_PATH:
        limit = f"the kernel takes {MAX_SOCKET_PATH}"
        raise Wrong(f"{quoted(text)}: the path has {length} bytes, {limit}; choose a shorter one")
    return Listen("unix", "", 0, absolute, int(mode[1], 8) if mode else None, "", text)
