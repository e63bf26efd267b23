"""A blocking client with deadlines: one line of Python in, one line of JSON out (apps/repl.py)."""

from __future__ import annotations

import json
import socket
import time
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int] | str  # (host, port) or the path of a Unix socket


class Client:
    """One connection to a service."""

    def __init__(self, address: Address, seconds: float = 10) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(seconds)
            try:
                self.socket.connect(address)
            except OSError:
                self.socket.close()
                raise
        else:
            self.socket = socket.create_connection(address, seconds)
        self._rest = bytearray()

    @staticmethod
    def address_of(listener: str) -> Address:
        """Turn tcp://host:port or unix:///path, as `status` names it, into an address."""
        scheme, _, rest = listener.partition("://")
        if scheme == "unix":
            return rest.partition("?")[0]
        host, _, port = rest.rpartition(":")
        return host.strip("[]"), int(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_line(self, seconds: float = 15) -> bytes:
        """One line without its end; EOFError when the service closed before it was whole."""
        deadline = time.monotonic() + seconds
        seen = 0
        while (end := self._rest.find(b"\n", seen)) < 0:
            seen = len(self._rest)
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"closed after {bytes(self._rest[-200:])!r}")
            self._rest += data
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def post(self, expression: str) -> None:
        """Send a question; read_answer() reads what comes."""
        self.send(expression.encode() + b"\n")

    def read_answer(self, seconds: float = 15) -> Any:
        return json.loads(self.read_line(seconds))

    def ask(self, expression: str, seconds: float = 15) -> Any:
        self.post(expression)
        return self.read_answer(seconds)

    def is_closed(self, seconds: float) -> bool:
        """Whether the service ends this connection within *seconds*, sending nothing more."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
