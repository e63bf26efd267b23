"""One client's connection: bytes in, handlers called one at a time, bytes out.

Back-pressure goes both ways. While a handler of this connection runs, what comes is kept
up to READ_AHEAD, then the socket is not read. While the client does not take what was
sent, nothing more is read from it either, and send() refuses at `send_buffer_bytes`. The
worker and its other connections notice neither.
"""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import struct
import termios
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from procd import logs
from procd.errors import SendBufferFull
from procd.tasks.host import HANDLER_ERRORS, ProcessHost

READ_AHEAD = 64 * 1024  # bytes
# What a connection may be about; see Connection.occupation.
HANDLING, UNSENT, CLOSING = "a handler runs", "bytes are unsent", "it closes"


class Owner(Protocol):
    """The worker that a connection belongs to."""

    host: ProcessHost

    def count_request(self) -> None: ...
    def forget(self, connection: Connection) -> None: ...
    def would_move(self, connection: Connection) -> bool: ...


class Connection(asyncio.Protocol):
    """See procd.Connection for what an app may use."""

    _begins = "connect"  # the event of its first handler

    def __init__(self, worker: Owner, number: int, send_buffer_bytes: int) -> None:
        self.id = number
        self.state: dict[object, object] = {}
        self.remote = self.local = ""
        self._worker = worker
        self._transport: asyncio.Transport | None = None
        self._limit = send_buffer_bytes
        self._unread = bytearray()
        self._is_handling = False
        self._is_closing = False
        self._is_paused = False  # not reading
        self._is_full = False  # the client does not take what was sent
        self._drains: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.remote}>"

    # For the app

    def send(self, data: bytes) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"send() takes bytes, not {type(data).__name__}")
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()
        if unsent > self._limit:  # as the transport has it: up to here drain() returns at once
            raise SendBufferFull(
                f"{self.remote} has {unsent} bytes unsent (send_buffer_bytes): await drain()"
            )
        transport.write(data)

    async def drain(self) -> None:
        if self._transport is None:
            raise ConnectionResetError(f"{self.remote} is gone")
        if self._is_full:
            future = asyncio.get_running_loop().create_future()
            self._drains.append(future)
            await future
        else:
            await asyncio.sleep(0)  # a loop that sends and drains lets others run

    def close(self) -> None:
        self._is_closing = True
        self._unread.clear()
        if self._transport is not None:
            self._transport.close()

    # From the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = stream = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        stream.set_write_buffer_limits(high=self._limit, low=self._limit // 4)
        self.remote = _text(transport.get_extra_info("peername"))
        self.local = _text(transport.get_extra_info("sockname"))
        self._call(self._begins)
        if self._unread:
            self._next()

    def data_received(self, data: bytes) -> None:
        if self._is_handling:
            self._unread += data
            if len(self._unread) >= READ_AHEAD:
                self._flow()
        elif not self._is_closing:
            self._receive(data)

    def eof_received(self) -> bool:
        # The client has said all; what it asked for is still answered.
        self._is_closing = True
        return self._is_handling

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._is_closing = True
        drains, self._drains = self._drains, []
        for future in drains:
            if not future.done():
                future.set_exception(ConnectionResetError(f"{self.remote} is gone"))
        if not self._is_handling:
            self._closed()

    def pause_writing(self) -> None:
        self._is_full = True
        self._flow()

    def resume_writing(self) -> None:
        self._is_full = False
        drains, self._drains = self._drains, []
        for future in drains:
            if not future.done():
                future.set_result(None)
        self._flow()

    def _flow(self) -> None:
        """Read on, or not, as things stand."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        pause = self._is_full or len(self._unread) >= READ_AHEAD
        if pause and not self._is_paused:
            transport.pause_reading()
        elif self._is_paused and not pause:
            transport.resume_reading()
        self._is_paused = pause

    # Handlers, one at a time

    def _receive(self, data: bytes) -> None:
        self._worker.count_request()
        self._call("receive", data)

    def _call(self, event: str, *args: object) -> None:
        handler = self._worker.host.handlers.get(event)
        if handler is None:
            return
        try:
            outcome = handler(self, *args)
        except HANDLER_ERRORS:
            self._failed(event)
            return
        if inspect.iscoroutine(outcome):
            self._is_handling = True
            self._worker.host.run(event, self._handle(event, outcome))

    async def _handle(self, event: str, outcome: Coroutine[Any, Any, object]) -> None:
        try:
            await outcome
        except HANDLER_ERRORS:
            self._failed(event)
        finally:
            self._is_handling = False
            self._next()

    def _next(self) -> None:
        """A handler has returned: on with what came meanwhile, here or where it moves to."""
        if self._is_closing or not self._unread or not self._worker.would_move(self):
            self.go_on()

    def go_on(self) -> None:
        """Handle what is unread."""
        while self._unread and not self._is_handling:
            data = bytes(self._unread)
            self._unread.clear()
            self._flow()
            self._receive(data)
        if self._is_handling or not self._is_closing:
            return
        if self._transport is None:
            self._closed()
        else:
            self._transport.close()

    def _failed(self, event: str) -> None:
        logs.log.exception("handler failed on=%s remote=%s", event, self.remote)
        self._unread.clear()
        self.close()

    def _closed(self) -> None:
        self._worker.forget(self)
        handler = self._worker.host.handlers.get("close")
        if handler is not None:
            self._worker.host.call("close", handler, self)

    # For a drain

    @property
    def occupation(self) -> str | None:
        """What goes on here; None between two messages, whatever is unread."""
        if self._is_handling:
            return HANDLING
        if self._transport is None or self._is_closing:
            return CLOSING
        return UNSENT if self._is_full or self._transport.get_write_buffer_size() else None

    @property
    def is_idle(self) -> bool:
        """After the last message: nothing is handled, unsent or unread, here or in the kernel."""
        if self._transport is None or self._unread or self.occupation is not None:
            return False
        sock = self._transport.get_extra_info("socket")
        waiting = fcntl.ioctl(sock.fileno(), termios.FIONREAD, struct.pack("i", 0))
        return waiting == b"\0\0\0\0"

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # For a move to another worker; only while occupation is None

    def inherit(self, state: Any, unread: bytes) -> None:  # noqa: ANN401 - the app's own
        """Go on as another worker's connection, from its state and what it had read."""
        self.state, self._begins = state, "resume"
        self._unread += unread

    @property
    def unread_bytes(self) -> int:
        return len(self._unread)

    def lend(self) -> tuple[asyncio.Transport, bytes]:
        """Neither read nor write any more; return the transport and what is unread."""
        transport, self._transport = cast("asyncio.Transport", self._transport), None
        transport.pause_reading()  # also drops what the loop was about to read
        unread, self._unread = bytes(self._unread), bytearray()
        return transport, unread

    def take_back(self, transport: asyncio.Transport, unread: bytes) -> None:
        """Read and write again."""
        self._transport = transport
        if self._is_closing:  # the app has closed it meanwhile
            transport.close()
            return
        self._unread += unread
        self._is_paused = True
        self._flow()
        self.go_on()


def _text(address: object) -> str:
    """Return an address as people write it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(address, bytes):
        return address.decode("utf-8", "backslashreplace")
    return address if isinstance(address, str) else ""


def unique_id(row_incarnation: int, count: int) -> int:
    """Return a connection id that no other connection of the service has."""
    return row_incarnation << 32 | count & 0xFFFFFFFF
