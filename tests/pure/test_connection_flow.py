"""A connection's rules, with a transport and a worker that only write down what they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from procd.errors import SendBufferFull
from procd.worker.connection import READ_AHEAD, Connection

LIMIT = 1000


class Transport(asyncio.Transport):
    """Takes what is written until `takes` bytes are unsent."""

    def __init__(self) -> None:
        super().__init__({"peername": ("10.0.0.9", 5555), "sockname": ("10.0.0.1", 9000)})
        self.sent = bytearray()
        self.unsent = 0
        self.log: list[str] = []
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.log.append(f"limits {high} {low}")

    def pause_reading(self) -> None:
        self.log.append("pause")

    def resume_reading(self) -> None:
        self.log.append("resume")

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True
        self.log.append("close")

    def abort(self) -> None:
        self._is_closing = True
        self.log.append("abort")


class Host:
    """Drives async handlers by hand: step() lets all that wait for `go` go on."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., object]] = {}
        self.coroutines: list[Coroutine[Any, Any, object]] = []

    def run(self, _event: str, coroutine: Coroutine[Any, Any, object]) -> None:
        self.coroutines.append(coroutine)
        self._send(coroutine)

    def call(self, _event: str, handler: Callable[..., object], *args: object) -> None:
        handler(*args)

    def step(self) -> None:
        for coroutine in list(self.coroutines):
            self._send(coroutine)

    def _send(self, coroutine: Coroutine[Any, Any, object]) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            self.coroutines.remove(coroutine)


class Go:
    """Awaited once, until the next step()."""

    def __await__(self) -> Any:
        yield


class Service:
    """One connection, what its worker was told, and what its handlers were given."""

    def __init__(self, *, is_async: bool = True) -> None:
        self.host = Host()
        self.requests = 0
        self.forgotten = 0
        self.got: list[bytes] = []
        self.closed = 0
        self.transport = Transport()
        self.connection = Connection(cast("Any", self), 7, LIMIT)
        self.host.handlers["receive"] = self.receive_later if is_async else self.receive
        self.host.handlers["close"] = lambda _conn: setattr(self, "closed", self.closed + 1)

    def count_request(self) -> None:
        self.requests += 1

    def forget(self, _connection: Connection) -> None:
        self.forgotten += 1

    def would_move(self, _connection: Connection) -> bool:
        return False

    def receive(self, _conn: Connection, data: bytes) -> None:
        self.got.append(data)

    async def receive_later(self, _conn: Connection, data: bytes) -> None:
        self.got.append(data)
        await Go()

    def made(self) -> Service:
        self.connection.connection_made(self.transport)
        self.transport.log.clear()
        return self


@pytest.fixture(name="service")
def service_with_async_handlers() -> Service:
    return Service().made()


def test_it_tells_who_is_there() -> None:
    service = Service()
    service.connection.connection_made(service.transport)
    assert service.connection.remote == "10.0.0.9:5555"
    assert service.connection.local == "10.0.0.1:9000"
    assert service.transport.log == [f"limits {LIMIT} {LIMIT // 4}"]


def test_what_comes_while_a_handler_runs_is_given_to_the_next_as_one(service: Service) -> None:
    for data in (b"a", b"b", b"c"):
        service.connection.data_received(data)
    assert service.got == [b"a"]
    service.host.step()
    assert service.got == [b"a", b"bc"]
    assert service.requests == 2


def test_a_plain_handler_gets_everything_at_once() -> None:
    service = Service(is_async=False).made()
    service.connection.data_received(b"a")
    service.connection.data_received(b"b")
    assert service.got == [b"a", b"b"]


def test_nothing_is_received_before_an_async_on_connect_has_returned() -> None:
    service = Service()

    async def connect(_conn: Connection) -> None:
        await Go()

    service.host.handlers["connect"] = connect
    service.made()
    service.connection.data_received(b"early")
    assert service.got == []
    service.host.step()
    assert service.got == [b"early"]


def test_a_client_that_sends_more_than_the_handler_takes_is_not_read(service: Service) -> None:
    service.connection.data_received(b"a")
    service.connection.data_received(b"x" * (READ_AHEAD - 1))
    assert service.transport.log == []
    service.connection.data_received(b"x")
    service.connection.data_received(b"x")
    assert service.transport.log == ["pause"]
    service.host.step()
    assert service.transport.log == ["pause", "resume"]
    assert service.got == [b"a", b"x" * (READ_AHEAD + 1)]


def test_a_client_that_does_not_take_its_answers_is_not_read(service: Service) -> None:
    service.connection.pause_writing()
    assert service.transport.log == ["pause"]
    service.connection.resume_writing()
    assert service.transport.log == ["pause", "resume"]


def test_both_reasons_to_pause_must_end_before_it_reads_on(service: Service) -> None:
    service.connection.data_received(b"a")
    service.connection.data_received(b"x" * READ_AHEAD)
    service.connection.pause_writing()
    service.host.step()
    assert service.transport.log == ["pause"]
    service.connection.resume_writing()
    assert service.transport.log == ["pause", "resume"]


def test_a_full_buffer_refuses_what_is_sent(service: Service) -> None:
    service.transport.unsent = LIMIT
    service.connection.send(b"x" * 5000)  # larger than the rest of the room: taken whole
    service.transport.unsent = LIMIT + 1
    with pytest.raises(SendBufferFull, match=r"10\.0\.0\.9:5555 has 1001 bytes unsent"):
        service.connection.send(b"y")
    assert service.transport.sent == b"x" * 5000


@pytest.mark.parametrize("data", ["text", 1, None])
def test_only_bytes_are_sent(service: Service, data: Any) -> None:
    with pytest.raises(TypeError, match="send\\(\\) takes bytes"):
        service.connection.send(data)


def test_what_is_sent_to_who_has_gone_is_dropped(service: Service) -> None:
    service.connection.connection_lost(None)
    service.connection.send(b"x")
    assert service.transport.sent == b""


def test_what_was_asked_before_the_client_shut_its_side_is_answered(service: Service) -> None:
    service.connection.data_received(b"a")
    service.connection.data_received(b"b")
    assert service.connection.eof_received() is True
    service.host.step()
    assert service.got == [b"a", b"b"]
    assert service.transport.log == []
    service.host.step()
    assert service.transport.log == ["close"]


def test_an_idle_connection_ends_with_its_client(service: Service) -> None:
    assert service.connection.eof_received() is False


def test_on_close_comes_once_and_after_the_handler(service: Service) -> None:
    service.connection.data_received(b"a")
    service.connection.data_received(b"b")
    service.connection.connection_lost(None)
    assert (service.forgotten, service.closed) == (0, 0)
    service.host.step()
    assert service.got == [b"a", b"b"]
    service.host.step()
    assert (service.forgotten, service.closed) == (1, 1)


def test_a_handler_that_raises_costs_its_own_connection(service: Service) -> None:
    def broken(_conn: Connection, _data: bytes) -> None:
        raise ZeroDivisionError

    service.host.handlers["receive"] = broken
    service.connection.data_received(b"a")
    assert service.transport.log == ["close"]
    service.connection.data_received(b"b")
    assert service.requests == 1


def test_after_close_nothing_more_is_received(service: Service) -> None:
    async def last(conn: Connection, data: bytes) -> None:
        service.got.append(data)
        await Go()
        conn.close()

    service.host.handlers["receive"] = last
    service.connection.data_received(b"bye")
    service.connection.data_received(b"more")
    service.host.step()
    assert service.got == [b"bye"]


def test_drain_waits_for_room_and_learns_that_the_client_went() -> None:
    async def wait(*, is_lost: bool) -> str:
        service = Service().made()
        service.connection.pause_writing()
        drain = asyncio.ensure_future(service.connection.drain())
        await asyncio.sleep(0)
        assert not drain.done()
        if is_lost:
            service.connection.connection_lost(None)
        else:
            service.connection.resume_writing()
        try:
            await drain
        except ConnectionResetError as error:
            return str(error)
        return "drained"

    assert asyncio.run(wait(is_lost=False)) == "drained"
    assert asyncio.run(wait(is_lost=True)) == "10.0.0.9:5555 is gone"
