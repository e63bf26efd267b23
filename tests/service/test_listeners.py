"""Listeners: tcp over IPv4 and IPv6, unix with mode and take-over, sockets handed in."""

from __future__ import annotations

import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.service.client import Client
from tests.service.conftest import Serve
from tests.service.daemon import Service


@pytest.mark.short
def test_unix_listener_has_its_mode_and_goes_at_the_stop(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    service.configure(listen=[f"unix://{path}?mode=0660"])
    service.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert service.ask("VERSION") == "1"
    service.stop()
    assert not path.exists()


def test_stale_unix_socket_is_taken_over(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    service.configure(listen=[f"unix://{path}"])
    service.start()
    assert service.ask("VERSION") == "1"


def test_unix_socket_of_a_living_server_is_left_to_it(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        service.configure(listen=[f"unix://{path}"])
        done = service.run("start")
        assert done.returncode == 1
        assert str(path) in done.stderr
        assert path.exists()
        Client(str(path)).socket.close()
    path.unlink()


def test_file_in_the_place_of_a_unix_socket_is_not_deleted(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    path.write_text("precious")
    service.configure(listen=[f"unix://{path}"])
    done = service.run("start")
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert path.read_text() == "precious"


def test_ipv6_listener_serves(serve: Serve) -> None:
    service = serve(listen=["tcp://[::1]:0"])
    assert service.status()["listeners"][0].startswith("tcp://[::1]:")
    assert service.ask("VERSION") == "1"


def test_several_listeners_serve_side_by_side(make: Serve) -> None:
    service = make()
    path = f"unix://{service.root}/app.sock"
    service.configure(listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0", path])
    service.start()
    listeners = service.status()["listeners"]
    assert len(listeners) == len(set(listeners)) == 3
    for listener in listeners:
        with service.connect(Client.address_of(listener)) as client:
            assert client.ask("VERSION") == "1"


def test_connection_knows_its_ends(service: Service) -> None:
    with service.connect() as client:
        local, remote = client.ask("[conn.local, conn.remote]")
        assert str(client.socket.getsockname()[1]) in remote
        assert str(service.port) in local


def test_listener_survives_a_reload(make: Serve) -> None:
    service = make()
    path = service.root / "app.sock"
    service.configure(listen=[f"unix://{path}", "tcp://127.0.0.1:0"])
    service.start()
    before = service.status()["listeners"]
    for _ in range(2):
        service.reload()
    assert service.status()["listeners"] == before
    for listener in before:
        with service.connect(Client.address_of(listener)) as client:
            assert client.ask("server.generation") == 3


def test_socket_of_the_service_manager_serves(make: Serve, tmp_path: Path) -> None:
    service = make(listen=["systemd://web"])
    with socket.create_server(("127.0.0.1", 0)) as handed:
        port = handed.getsockname()[1]
        script = f'exec 3<&{handed.fileno()}; export LISTEN_PID=$$; exec "$@"'
        with (tmp_path / "out").open("wb") as out:
            service.foreground = subprocess.Popen(
                ["bash", "-c", script, "bash", *service.argv("start", "--foreground")],
                env=service.environment() | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
                pass_fds=[handed.fileno()],
                stdout=out,
                stderr=out,
            )
        service.wait_for(service.is_running, 10)
        with Client(("127.0.0.1", port)) as client:
            assert client.ask("VERSION") == "1"
        service.stop()
        # The service manager keeps its socket: a client may connect while nobody serves.
        Client(("127.0.0.1", port)).socket.close()
