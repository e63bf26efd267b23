"""Nobody grows without bound and nobody waits for a slow one but who talks to him."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from bench.load import Load, Plan
from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause

BLOCK = 65536


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_slow_client_pauses_its_own_sender_only(serve: Serve) -> None:
    service = serve(worker_num=1, send_buffer_bytes="256K")
    worker = service.seats()[0]
    with service.connect() as slow:
        slow.post("await stream(conn, 2000)")  # 131 MB
        pause(0.5)
        before = rss_bytes(worker)
        for _ in range(20):
            assert service.ask("VERSION", 2) == "1"
        assert rss_bytes(worker) < before + 20_000_000
        assert rss_bytes(worker) < 120_000_000


@pytest.mark.short
def test_everything_that_was_sent_arrives_in_order(service: Service) -> None:
    with service.connect() as client:
        client.post("await stream(conn, 300)")
        line = client.read_line(30)
        assert line == b"x" * (300 * BLOCK) + b"300"


def test_send_without_waiting_is_refused_at_the_bound(serve: Serve) -> None:
    service = serve(worker_num=1, send_buffer_bytes="256K")
    with service.connect() as client:
        client.post("[attempt(conn.send, b'x' * 65536) for _ in range(1000)]")
        pause(0.3)
        assert rss_bytes(service.seats()[0]) < 100_000_000
    assert service.ask("VERSION") == "1"


def test_client_that_sends_while_its_handler_waits_is_paused(serve: Serve) -> None:
    service = serve(worker_num=1)
    worker = service.seats()[0]
    with service.connect() as client:
        client.post("await slowly(2)")
        pause(0.2)
        before = rss_bytes(worker)
        client.socket.settimeout(0.5)
        sent = 0
        try:
            while sent < 200_000_000:
                sent += client.socket.send(b"#" * BLOCK)
        except TimeoutError:
            pass
        assert sent < 200_000_000
        assert rss_bytes(worker) < before + 30_000_000
        assert service.ask("VERSION") == "1"


def test_connections_beyond_the_limit_wait_until_one_ends(serve: Serve) -> None:
    service = serve(worker_num=1, max_conn=3)
    kept = [service.connect() for _ in range(3)]
    try:
        assert [client.ask("VERSION") for client in kept] == ["1", "1", "1"]
        with service.connect() as waiting:
            waiting.post("VERSION")
            with pytest.raises(TimeoutError):
                waiting.read_line(0.5)
            kept[0].socket.close()
            assert waiting.read_answer() == "1"
    finally:
        for client in kept:
            client.socket.close()


def test_close_sends_first_what_was_sent_before_it(service: Service) -> None:
    with service.connect() as client:
        client.post("[conn.send(b'x' * 500_000 + b'\\n'), conn.close()]")
        assert len(client.read_line()) == 500_000
        assert client.is_closed(5)


def test_client_that_shuts_its_side_still_gets_its_answer(service: Service) -> None:
    with service.connect() as client:
        client.post("await slowly(0.2)")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read_answer()["version"] == "1"


def test_close_handler_runs_once_for_each_connection(serve: Serve) -> None:
    service = serve(worker_num=1)
    with service.connect() as watcher:
        for number in range(10):
            client = service.connect()
            client.ask("VERSION")
            if number % 2:  # half of them by a reset
                client.socket.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            client.socket.close()
        service.wait_for(lambda: watcher.ask("counts['closed']") == 10, 5)
        assert watcher.ask("counts['connected']") == 11
        assert service.processes("worker")[0]["connections"] == 1


def test_await_ends_when_its_client_has_gone(serve: Serve) -> None:
    service = serve(worker_num=1, send_buffer_bytes="256K")
    with service.connect() as slow:
        slow.post("await stream(conn, 2000)")
        pause(0.2)
    service.wait_for(lambda: service.processes("worker")[0]["connections"] == 0, 5)
    assert service.ask("VERSION") == "1"


def test_many_clients_at_once_are_all_served(service: Service) -> None:
    clients = [Client(service.address) for _ in range(300)]
    try:
        for client in clients:
            client.post("VERSION")
        assert {client.read_answer() for client in clients} == {"1"}
    finally:
        for client in clients:
            client.socket.close()


def test_load_of_twenty_clients_fails_nothing(service: Service) -> None:
    with Load(service.address, Plan(rest=0.0)) as load:
        service.wait_for(lambda: load.tally.ok > 3000, 20)
    assert load.tally.failures == []
