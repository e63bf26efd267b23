"""The control socket: run_dir/control.sock, one JSON object a line each way.

It serves uid 0 and the master's own user (SO_PEERCRED), whatever the file's mode. A client
that sends something else, or does not read its answer, costs its own connection only.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from procd import logs
from procd.errors import StartFailed
from procd.master.loop import Loop

MAX_REQUEST_BYTES = 64 * 1024
MAX_CLIENTS = 64
_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

Json = dict[str, object]
Reply = Callable[[Json], None]


class Control:
    """*serve*(request, reply) answers a request, at once or later."""

    def __init__(self, path: Path, loop: Loop, serve: Callable[[Json, Reply], None]) -> None:
        self.path = path
        self.refused = 0  # requests that were none
        self._loop = loop
        self._serve = serve
        self._clients: set[_Client] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)  # ours: the pid file's lock says that no other master lives
            old = os.umask(0o177)
            try:
                self._socket.bind(str(path))
            finally:
                os.umask(old)
            self._socket.listen(16)
        except OSError as error:
            self._socket.close()
            raise StartFailed(f"cannot make the control socket {path}: {error.strerror}") from None
        self._socket.setblocking(False)
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        loop.read(self._socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._turn_away(error)
            return
        sock.setblocking(False)
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid = _CREDENTIALS.unpack(found)[1]
        if uid not in (0, os.geteuid()) or len(self._clients) >= MAX_CLIENTS:
            self.refused += 1
            logs.warning("control refused", uid=uid, clients=len(self._clients))
            sock.close()
            return
        self._clients.add(_Client(sock, self))

    def _turn_away(self, error: OSError) -> None:
        """No descriptor is left: give the spare one for the client to be told to go."""
        logs.error("control not accepted", why=error.strerror, cure="raise LimitNOFILE")
        os.close(self._spare)
        with suppress(OSError):
            self._socket.accept()[0].close()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def serve(self, line: bytes, reply: Reply) -> bool:
        """Answer one line; False if it was no request."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict) or not isinstance(request.get("command"), str):
            self.refused += 1
            return False
        self._serve(request, reply)
        return True

    def forget(self, client: _Client) -> None:
        self._clients.discard(client)

    @property
    def loop(self) -> Loop:
        return self._loop

    def close(self) -> None:
        """Send what is still to be said, as far as the clients read, and remove the socket."""
        for client in list(self._clients):
            client.close()
        self._loop.forget(self._socket)
        self._socket.close()
        os.close(self._spare)
        with suppress(OSError):
            os.unlink(self.path)


class _Client:
    def __init__(self, sock: socket.socket, control: Control) -> None:
        self._socket = sock
        self._control = control
        self._in = bytearray()
        self._out = bytearray()
        control.loop.read(sock, self._ready)

    def _ready(self) -> None:
        if self._socket.fileno() < 0:
            return
        if self._out:
            self._write()
            return
        try:
            data = self._socket.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        while b"\n" in self._in:
            line, _, rest = bytes(self._in).partition(b"\n")
            self._in = bytearray(rest)
            if not self._control.serve(line, self._reply):
                self._reply({"ok": False, "exit": 2, "error": "not a request of procd"})
                self.close()
                return
        if len(self._in) > MAX_REQUEST_BYTES:
            self._control.refused += 1
            self.close()

    def _reply(self, answer: Json) -> None:
        if self._socket.fileno() < 0:
            return
        self._out += json.dumps(answer).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._out[:sent]
        if self._out:
            self._control.loop.write(self._socket, self._ready)
        elif sent:
            self._control.loop.forget(self._socket)
            self._control.loop.read(self._socket, self._ready)

    def close(self) -> None:
        self._control.forget(self)
        if self._socket.fileno() >= 0:
            self._control.loop.forget(self._socket)
            self._socket.close()
