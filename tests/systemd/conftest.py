"""A machine with a real systemd, and services of procd's on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.systemd.machine import CannotBoot, Machine

APP = """
    import asyncio
    from procd import Connection, Server

    server = Server()


    @server.on_receive
    async def receive(conn: Connection, data: bytes) -> None:
        if data.startswith(b"slow"):
            await asyncio.sleep(float(data.split()[1]))
        conn.send(b"hello one\\n")
"""
CONFIG = """
    app: app:server
    chdir: /srv/{name}
    listen: {listen}
    run_dir: /run/procd/{name}
    state_dir: /var/lib/procd/{name}
    master_pid_file: null
    worker_pid_file: null
    log_file: null
    watch_file: false
    max_wait_time: {max_wait_time}
"""
# One connection after the other, until told to stop; what befell them, as JSON.
LOAD = """
    import collections, json, signal, socket, sys
    seen, ends = collections.Counter(), []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    while not ends:
        where, family = sys.argv[1], socket.AF_UNIX
        if where.isdecimal():
            where, family = ("127.0.0.1", int(where)), socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(20)
            try:
                client.connect(where)
                client.sendall(b"x")
                answer = client.recv(100)
                seen["answered" if answer == b"hello one\\n" else "cut"] += 1
            except (ConnectionRefusedError, FileNotFoundError):
                seen["refused"] += 1
            except ConnectionError:
                seen["cut"] += 1
        if seen["answered"] == 20:
            print("under way", flush=True)
    print(json.dumps(seen))
"""
ASK = """
    import socket, sys
    client = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
    client.sendall(sys.argv[2].encode())
    print(client.makefile().readline(), end="")
"""

Setup = Callable[..., str]


@pytest.fixture(scope="session")
def booted() -> Iterator[Machine]:
    """One machine for all tests."""
    try:
        machine = Machine()
    except CannotBoot as why:
        pytest.skip(str(why))
    machine.write("/srv/load.py", LOAD)
    machine.write("/srv/ask.py", ASK)
    yield machine
    machine.close()


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine, on which nothing of procd runs before the test and nothing is left after it."""
    yield booted
    booted.run("systemctl", "stop", "procd@*", "shop")
    booted.ok("systemctl", "reset-failed")
    assert (booted.processes_of("procd"), booted.queues()) == ([], [])


@pytest.fixture
def service(machine: Machine) -> Setup:
    """Write app and config of a service; return its unit."""

    def write(name: str, listen: str = "[tcp://127.0.0.1:9000]", max_wait_time: int = 8) -> str:
        text = CONFIG.format(name=name, listen=listen, max_wait_time=max_wait_time)
        machine.write(f"/etc/procd/{name}.yaml", text)
        machine.write(f"/srv/{name}/app.py", APP)
        return f"procd@{name}.service"

    return write
