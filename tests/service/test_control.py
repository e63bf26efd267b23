"""The control socket and the inboxes: for their owner only, and no bytes stop anybody."""

from __future__ import annotations

import os
import random
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


def control_socket(service: Service) -> Path:
    (path,) = [p for p in service.run_dir.iterdir() if p.is_socket()]
    return path


def inboxes(service: Service) -> list[Path]:
    found = (service.run_dir / "ipc").rglob("*")
    return [p for p in found if p.is_socket() and p.name != "gate.sock"]


@pytest.mark.short
def test_files_are_their_owners_only(service: Service) -> None:
    assert stat.S_IMODE(control_socket(service).stat().st_mode) == 0o600
    assert stat.S_IMODE(service.run_dir.stat().st_mode) == 0o711
    assert stat.S_IMODE((service.run_dir / "ipc").stat().st_mode) == 0o700
    for path in (service.root / "state").rglob("*"):
        assert not path.stat().st_mode & 0o077, path


# The interpreter itself may lie where only root can start it.
BECOME_NOBODY = """
import os, socket
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
client = socket.socket(socket.AF_UNIX)
client.settimeout(5)
client.connect({path!r})
for text in (b'stop', b'{{"command": "stop"}}', b'["stop"]'):
    client.sendall(text + b'\\n')
print("answer", client.recv(1000))
"""


def connect_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BECOME_NOBODY.format(path=str(path))],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_is_refused(service: Service) -> None:
    service.root.chmod(0o755)
    done = connect_as_nobody(control_socket(service))
    assert "PermissionError" in done.stderr
    assert service.is_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_is_refused_even_if_the_socket_lets_him_in(service: Service) -> None:
    service.root.chmod(0o755)
    path = control_socket(service)
    path.chmod(0o666)
    connect_as_nobody(path)
    path.chmod(0o600)
    assert service.ask("VERSION") == "1"
    assert service.is_running()


@pytest.mark.heavy
def test_random_bytes_to_the_control_socket_stop_nothing(service: Service) -> None:
    rng = random.Random(1)
    path = str(control_socket(service))
    before = len(os.listdir(f"/proc/{service.master}/fd"))
    for _ in range(scaled(10_000)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)  # without a timeout: that would be EAGAIN while others queue
            client.settimeout(5)
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(rng.randbytes(rng.choice([0, 1, 3, 40, 5000])))
    with service.connect() as client:
        assert client.ask("VERSION") == "1"
    assert service.is_running()
    service.wait_for(lambda: len(os.listdir(f"/proc/{service.master}/fd")) <= before, 15)


def test_endless_line_to_the_control_socket_is_cut(service: Service) -> None:
    rss = _rss(service.master)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(control_socket(service)))
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(2000):
                client.sendall(b"x" * 65536)
    assert _rss(service.master) < rss + 5_000_000
    assert service.is_running()


def test_silent_clients_of_the_control_socket_keep_nobody_waiting(service: Service) -> None:
    path = str(control_socket(service))
    silent = [socket.socket(socket.AF_UNIX) for _ in range(50)]
    try:
        for client in silent:
            client.settimeout(1)
            with suppress(BlockingIOError, TimeoutError, ConnectionError):
                client.connect(path)
        assert service.is_running()
        service.reload()
    finally:
        for client in silent:
            client.close()


def test_client_that_leaves_before_its_answer_is_no_harm(service: Service) -> None:
    for _ in range(5):
        command = subprocess.Popen(
            service.argv("reload"), env=service.environment(), stderr=subprocess.DEVNULL
        )
        with suppress(subprocess.TimeoutExpired):
            command.wait(0.15)
        command.kill()
        command.wait(5)
    service.reload()
    assert service.ask("VERSION") == "1"


@pytest.mark.heavy
def test_random_datagrams_to_the_inboxes_stop_nothing(service: Service) -> None:
    rng = random.Random(2)
    before = service.seats()
    paths = inboxes(service)
    assert len(paths) >= 4
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(5)
        for number in range(scaled(10_000)):
            size = rng.choice([0, 1, 7, 8, 9, 16, 100, 10_000])
            sender.sendto(rng.randbytes(size), str(paths[number % len(paths)]))
    assert service.task("6 * 7") == 42
    service.ask("[server.send_message('after', n) for n in range(4)]")
    service.wait_for(lambda: len(service.ledger("message")) == 4, 10)
    assert {row[2] for row in service.ledger("message")} == {"after"}
    assert service.seats() == before


def test_garbage_in_the_task_queue_stops_nothing(serve: Serve) -> None:
    service = serve()
    import sysv_ipc

    rng = random.Random(3)
    own = [q for q in _queue_ids() if q not in service.queues_before]
    assert own
    keys = {row[1]: row[0] for row in _queue_rows()}
    for queue_id in own:
        if keys[queue_id] == 0:
            continue  # a private queue: nobody outside can name it
        queue = sysv_ipc.MessageQueue(keys[queue_id])
        for _ in range(50):
            queue.send(rng.randbytes(rng.choice([1, 8, 100])), type=rng.randint(1, 9))
    assert service.task("6 * 7") == 42


def _queue_rows() -> list[list[int]]:
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    return [[int(word) for word in row.split()] for row in rows]


def _queue_ids() -> list[int]:
    return [row[1] for row in _queue_rows()]


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_status_for_a_person_names_what_matters(service: Service) -> None:
    text = service.ok("status").stdout
    for word in (str(service.master), "worker", "task", str(service.port), "generation"):
        assert word in text.lower() or word in text
    assert len(text.splitlines()) < 40


def test_status_never_fails_while_the_service_changes(service: Service) -> None:
    reload = subprocess.Popen(service.argv("reload"), env=service.environment())
    while reload.poll() is None:
        assert service.status()["state"] == "running"
    assert reload.returncode == 0
