"""Sockets that systemd opened and passed to this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from procd.config import address
from procd.errors import StartFailed
from procd.master import listeners
from tests.kernel.forked import outcome


def passed(names: str, *sockets: socket.socket, pid: int | None = None) -> Callable[[str], object]:
    """As systemd starts a process: *sockets* from fd 3 on. For a child: it loses its other fds."""

    def bind(text: str) -> object:
        # Two steps, so that no number is overwritten before it was copied.
        high = [os.dup(sock.fileno()) for sock in sockets]
        for index, fd in enumerate(high):
            os.dup2(fd, 3 + index)
        os.environ.update(
            LISTEN_PID=str(pid or os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names
        )
        return listeners.bind(address.parse(text, "/"), 16).address

    return bind


def in_child(bind: Callable[[str], object], text: str) -> str:
    """What *bind* says in a child whose low fds nobody needs, its pipe included."""
    reader, writer = os.pipe()
    high = os.dup2(writer, 200)
    os.close(writer)

    def body() -> None:
        try:
            said = repr(bind(text))
        except StartFailed as error:
            said = str(error)
        os.write(high, said.encode())

    outcome(body)
    os.close(high)
    with open(reader, "rb") as file:
        return file.read().decode()


@pytest.fixture(name="web")
def listening_socket() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_socket_of_systemd_is_found_by_its_name(web: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(path))
        admin.listen()
        bind = passed("web:admin", web, admin)
        port = web.getsockname()[1]
        assert in_child(bind, "systemd://web") == repr(f"tcp://127.0.0.1:{port}")
        assert in_child(bind, "systemd://admin") == repr(f"unix://{path}")
        assert path.is_socket()


def test_closing_a_socket_of_systemd_leaves_it_to_come_back_to(web: socket.socket) -> None:
    bind = passed("web", web)

    def twice(text: str) -> object:
        bind(text)
        first = listeners.bind(address.parse(text, "/"), 16)
        first.close()
        return listeners.bind(address.parse(text, "/"), 16).socket.get_inheritable()

    assert in_child(twice, "systemd://web") == "False"


def test_a_name_that_systemd_did_not_pass_lists_those_that_it_did(web: socket.socket) -> None:
    said = in_child(passed("web:other", web, web), "systemd://admin")
    assert "systemd passed 0 sockets of that name, of ['web', 'other']" in said
    assert "FileDescriptorName=admin" in said


def test_one_name_for_two_sockets_is_refused(web: socket.socket) -> None:
    said = in_child(passed("web:web", web, web), "systemd://web")
    assert "passed 2 sockets of that name" in said


def test_sockets_for_another_process_are_not_taken(web: socket.socket) -> None:
    said = in_child(passed("web", web, pid=1), "systemd://web")
    assert "systemd passed this process no socket" in said


def test_a_socket_that_cannot_accept_is_refused(web: socket.socket) -> None:
    with socket.create_connection(web.getsockname()) as connected:
        assert "cannot accept" in in_child(passed("web", connected), "systemd://web")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        assert "cannot accept" in in_child(passed("web", datagrams), "systemd://web")
