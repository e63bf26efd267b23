"""procd.Client while gate, master and service go: what was accepted runs, and nobody hangs."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest

from procd import Client, ConnectionLost, NotRunning, TaskQueueFull
from procd.client.sent import SentTask
from procd.ipc import frames, wire
from procd.ipc.frames import Kind
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled
from tests.service.test_client import SECONDS, hold, tasks
from tests.service.test_master_killed import kill_master

LOST = "was accepted and runs, but its result is not to be had"


def gate(service: Service) -> int:
    return service.wait_for(lambda: service.pids("gate"), SECONDS, "a gate")[0]


def high_water(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# ---------------------------------------------------------------- deaths


def test_a_gate_that_is_killed_loses_results_but_no_task(service: Service) -> None:
    held = service.occupy(2)
    with Client(service.config_path) as client:
        refs = [client.task(f"ran({n})") for n in range(100)]
        first = gate(service)
        service.kill(first)
        for ref in refs:
            with pytest.raises(ConnectionLost, match=LOST):
                ref.result(SECONDS)
        again = client.task("'again'")
        held.unlink()
        assert again.result(SECONDS) == "again"
        assert gate(service) != first
    service.wait_for(lambda: len(service.runs()) == 100, SECONDS)
    assert set(service.runs().values()) == {1}


@pytest.mark.heavy
def test_a_gate_that_is_killed_at_any_moment_loses_no_accepted_task(service: Service) -> None:
    kills, accepted, unknown = scaled(100), set(), set()
    is_over = threading.Event()

    def work(client: Client, number: int) -> None:
        while not is_over.is_set():
            number += 10
            try:
                client.task(f"ran({number})")
            except ConnectionLost:
                unknown.add(number)
            except TaskQueueFull:
                pause(0.01)
            else:
                accepted.add(number)

    with Client(service.config_path, connect_timeout=60) as client:
        threads = [threading.Thread(target=work, args=(client, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            victim = gate(service)
            count = len(accepted)
            service.wait_for(lambda count=count: len(accepted) > count + 20, 60)  # type: ignore[misc]
            service.kill(victim)
            service.wait_for_end(victim, SECONDS)
        is_over.set()
        for thread in threads:
            thread.join(60)
    service.wait_for(lambda: set(service.runs()) >= accepted, 60, "every accepted task")
    assert set(service.runs()) <= accepted | unknown
    assert len(unknown) <= 4 * kills  # those of the four threads that were on their way


def test_a_master_that_is_killed_is_told_of_and_its_tasks_run_later(service: Service) -> None:
    held = service.occupy(2)
    with Client(service.config_path) as client:
        refs = [client.task(f"ran({n})") for n in range(20)]
        kill_master(service)
        for ref in refs:
            with pytest.raises(ConnectionLost, match=LOST):
                ref.result(SECONDS)
        with pytest.raises(NotRunning):
            client.task("1")
        held.unlink()
        service.start()
        assert client.task("1").result(SECONDS) == 1
        service.wait_for(lambda: len(service.runs()) == 20, SECONDS)


def test_a_gate_does_not_mind_the_signals_that_are_the_masters(service: Service) -> None:
    with Client(service.config_path) as client:
        client.task("1")
        pid = gate(service)
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            service.kill(pid, signum)
        assert client.task("2").result(SECONDS) == 2
        assert gate(service) == pid


# ---------------------------------------------------------------- a stop


def is_refused(client: Client) -> bool:
    try:
        client.task("1")
    except NotRunning:
        return True
    return False


def test_a_stop_waits_for_the_results_that_a_client_waits_for(service: Service) -> None:
    held = hold(service)
    with Client(service.config_path) as client:
        ref = client.task(f"hold({str(held)!r})")
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        service.wait_for(lambda: is_refused(client), SECONDS)
        held.unlink()
        assert ref.result(SECONDS) == str(held)
        stopping.join(SECONDS)


def test_a_stop_that_cannot_wait_tells_so(service: Service) -> None:
    service.keeps_tasks = True
    held = hold(service)
    with Client(service.config_path) as client:
        refs = [client.task(f"hold({str(held)!r})") for _ in range(3)]
        assert "3 tasks kept" in service.stop("--timeout", "1").stdout
        for ref in refs:
            with pytest.raises(ConnectionLost, match="it runs at the next start"):
                ref.result(SECONDS)


# ---------------------------------------------------------------- clients that are no good


def connected(service: Service) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(service.run_dir / "ipc" / frames.SOCKET))
    sock.settimeout(SECONDS)
    size = frames.HEAD.unpack(sock.recv(frames.HEAD.size, socket.MSG_WAITALL))[2]
    sock.recv(size, socket.MSG_WAITALL)
    return sock


def test_what_is_no_frame_costs_its_own_connection(service: Service) -> None:
    with Client(service.config_path) as client:
        ref = client.task("1")
        for bad in (b"\xff" * 64, frames.head(Kind.RESULT, 1, 0), b"GET / HTTP/1.1\r\n\r\n" * 4):
            with connected(service) as sock:
                sock.sendall(bad)
                assert sock.recv(1) == b""
        with connected(service) as sock:  # what is no task fails as one
            sock.sendall(frames.head(Kind.NAMED, 7, 3) + b"\xc1\xc1\xc1")
            kinds = []
            for _ in range(2):
                head = sock.recv(frames.HEAD.size, socket.MSG_WAITALL)
                kind, ask, size = frames.HEAD.unpack(head)
                sock.recv(size, socket.MSG_WAITALL)
                kinds.append((kind, ask))
        assert kinds == [(Kind.ACCEPTED, 7), (Kind.FAILED, 7)]
        assert ref.result(SECONDS) == 1
        pid = gate(service)
        assert client.task("2").result(SECONDS) == 2
        assert gate(service) == pid


def test_a_length_is_a_claim_and_takes_no_memory(service: Service) -> None:
    with Client(service.config_path) as client, connected(service) as sock:
        client.task("1")
        before = high_water(gate(service))
        sock.sendall(frames.head(Kind.DATA, 1, 2**62) + b"x" * 1_000_000)
        with connected(service) as other:
            other.sendall(frames.head(Kind.DATA, 1, 60_000_000) + b"x" * 1000)
            assert client.task("2").result(SECONDS) == 2
        assert high_water(gate(service)) < before + 4_000_000


def test_results_that_a_client_does_not_read_take_no_memory(service: Service) -> None:
    with Client(service.config_path) as client, connected(service) as sock:
        client.task("1").result(SECONDS)
        pid = gate(service)
        before, done, held = high_water(pid), tasks(service)["done"], service.occupy(2)
        for n in range(200):
            data = wire.pack("'x' * 1_000_000" if n % 2 else "'x' * 60_000")
            sock.sendall(frames.head(Kind.DATA, n + 1, len(data)) + data)
        service.wait_for(lambda: tasks(service)["queued"] == 200, SECONDS)
        held.unlink()
        service.wait_for(lambda: tasks(service)["done"] >= done + 200, SECONDS)
        assert client.task("len('x' * 100_000)").result(SECONDS) == 100_000
        assert len(str(client.task("'y' * 1_000_000").result(SECONDS))) == 1_000_000
        assert gate(service) == pid
        assert high_water(pid) < before + 8_000_000
    service.wait_for(lambda: tasks(service)["unread"] >= 190, SECONDS)


def test_many_large_tasks_at_once_take_the_memory_of_one(serve: Serve) -> None:
    service = serve(task_max_bytes=40_000_000)
    size = 30_000_000
    with Client(service.config_path) as client:
        client.task("1").result(SECONDS)
        pid = gate(service)
        before = high_water(pid)
        found: list[object] = []

        def work() -> None:
            with Client(service.config_path) as own:
                ref: SentTask = own.task(f"len('{'x' * size}')")
                found.append(ref.result(60))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [size] * 6
        assert high_water(pid) < before + 40_000_000 + 10_000_000
