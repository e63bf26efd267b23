"""The store that systemd keeps listening sockets in: a process of its own plays systemd here."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Be a master that listens on the addresses given; say what happened, and end as if killed.
MASTER = """
import json, os, sys
from pathlib import Path
from procd.config.load import load
from procd.master.listening import Listening

# What systemd does between fork and exec.
os.environ["LISTEN_PID"] = str(os.getpid())
listening = Listening()
config = load(Path(sys.argv[1]))
listening.open(config.listen, 16)
print(json.dumps([os.fstat(one.socket.fileno()).st_ino for one in listening.serving]))
if sys.argv[2] == "stop":
    listening.close()
sys.stdout.flush()
os._exit(0)
"""

Start = Callable[..., list[int]]


class Store:
    """systemd's side: what it keeps, by name."""

    def __init__(self, folder: Path) -> None:
        self.fds: dict[str, int] = {}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.setblocking(False)

    def hear(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
            except BlockingIOError:
                return
            said = dict(line.split("=", 1) for line in data.decode().splitlines())
            if said.get("FDSTORE") == "1" and said["FDNAME"] not in self.fds:
                # Out of the way of 3, 4 ..., which the next master is given them as.
                self.fds[said["FDNAME"]] = fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, 100)
            for fd in (*fds, *([self.fds.pop(said["FDNAME"])] if "FDSTOREREMOVE" in said else ())):
                os.close(fd)

    def close(self) -> None:
        self.socket.close()
        for fd in self.fds.values():
            os.close(fd)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    kept = Store(tmp_path)
    yield kept
    kept.close()


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Start:
    """Be started by that systemd on some addresses; the inodes of the listening sockets."""

    def run(*listen: str, end: str = "kill", fdstore: str = "8") -> list[int]:
        config = tmp_path / "procd.yaml"
        config.write_text(f"app: app:server\nlisten: {json.dumps(listen)}\n")
        names, fds = list(store.fds), list(store.fds.values())
        environ = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "FDSTORE": fdstore,
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        moves = " ".join(f"{3 + n}<&{fd}" for n, fd in enumerate(fds))
        closes = " ".join(f"{fd}<&-" for fd in fds)
        shell = ["bash", "-c", f'exec "$@" {moves} {closes}', "bash"]
        done = subprocess.run(
            [*shell, sys.executable, "-c", MASTER, str(config), end],
            env=os.environ | environ,
            pass_fds=fds,
            capture_output=True,
            text=True,
            check=True,
        )
        store.hear()
        found: list[int] = json.loads(done.stdout.splitlines()[0])
        return found

    return run


def is_served(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        found: int = sock.getsockname()[1]
        return found


def test_next_master_listens_on_the_very_socket(start: Start, port: int) -> None:
    first = start(f"tcp://127.0.0.1:{port}")
    assert is_served(port), "whoever comes meanwhile waits"
    assert start(f"tcp://127.0.0.1:{port}") == first


def test_unix_socket_comes_back_with_its_path_and_mode(
    start: Start, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    first = start(f"unix://{path}?mode=0600")
    assert start(f"unix://{path}?mode=0666") == first
    assert path.stat().st_mode & 0o777 == 0o666
    path.unlink()
    again = start(f"unix://{path}")
    assert again != first
    assert len(store.fds) == 1
    assert start(f"unix://{path}") == again


def test_what_left_the_config_is_let_go(start: Start, store: Store, port: int) -> None:
    first = start(f"tcp://127.0.0.1:{port}", "tcp://[::1]:0")
    assert len(store.fds) == 2
    assert start(f"tcp://127.0.0.1:{port}") == first[:1]
    assert len(store.fds) == 1


def test_stop_keeps_a_port_for_a_restart_and_no_path(
    start: Start, store: Store, port: int, tmp_path: Path
) -> None:
    start(f"tcp://127.0.0.1:{port}", f"unix://{tmp_path}/app.sock", end="stop")
    assert len(store.fds) == 1
    assert is_served(port)
    assert not (tmp_path / "app.sock").exists()


def test_without_a_store_nothing_is_sent(start: Start, store: Store, port: int) -> None:
    start(f"tcp://127.0.0.1:{port}", fdstore="0")
    assert store.fds == {}
    assert not is_served(port)
