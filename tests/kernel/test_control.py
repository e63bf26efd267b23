"""The control socket under clients that send anything, too much, or do not read."""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from procd.errors import StartFailed
from procd.master.control import MAX_CLIENTS, MAX_REQUEST_BYTES, Control, Json, Reply
from procd.master.loop import Loop
from tests.kernel.forked import as_nobody, needs_root, outcome

TURNS = 500 if not os.environ.get("PROCD_TORTURE") else 10_000


class Master:
    """A loop and its control socket; answers `echo`, keeps `later`, floods at `flood`."""

    def __init__(self, path: Path) -> None:
        self.loop = Loop()
        self.waiting: list[Reply] = []
        self.served = 0
        self.control = Control(path, self.loop, self.serve)

    def serve(self, request: Json, reply: Reply) -> None:
        self.served += 1
        match request["command"]:
            case "later":
                self.waiting.append(reply)
            case "flood":
                reply({"x": "x" * 10_000_000})
            case _:
                reply({"ok": True, "echo": request})

    def turn(self) -> None:
        """Do what is due, without waiting."""
        while due := self.loop.wait(0)[1]:
            for callback in due:
                callback()

    def close(self) -> None:
        self.control.close()
        self.loop._selector.close()
        self.loop._signals.close()
        self.loop._writer.close()


@pytest.fixture(name="master")
def a_master(tmp_path: Path) -> Iterator[Master]:
    gc.collect()  # what an earlier test has left open is not this one's
    before = len(os.listdir("/proc/self/fd"))
    master = Master(tmp_path / "control.sock")
    yield master
    master.close()
    assert not (tmp_path / "control.sock").exists()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(name="client")
def a_client(master: Master) -> Iterator[socket.socket]:
    with connected(master) as client:
        yield client


def connected(master: Master) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(master.control.path))
    client.setblocking(False)
    master.turn()
    return client


def request(command: str, **more: object) -> bytes:
    return json.dumps({"command": command, **more}).encode() + b"\n"


def answers(master: Master, client: socket.socket) -> list[Any]:
    """What has been answered by now; ends with None if the connection is closed."""
    data = b""
    while True:
        master.turn()
        try:
            part = client.recv(1 << 20)
        except BlockingIOError:
            break
        except ConnectionResetError:
            part = b""
        if not part:
            return [*map(json.loads, data.splitlines()), None]
        data += part
    return [json.loads(line) for line in data.splitlines()]


def test_a_request_is_answered(master: Master, client: socket.socket) -> None:
    client.send(request("echo", n=1))
    assert answers(master, client) == [{"ok": True, "echo": {"command": "echo", "n": 1}}]


def test_requests_come_in_pieces_or_several_at_once(master: Master, client: socket.socket) -> None:
    data = request("echo", n=1) + request("echo", n=2)
    for byte in data:
        client.send(bytes([byte]))
        master.turn()
    client.send(data)
    assert [found["echo"]["n"] for found in answers(master, client)] == [1, 2, 1, 2]


def test_an_answer_may_come_later(master: Master, client: socket.socket) -> None:
    client.send(request("later"))
    assert answers(master, client) == []
    master.waiting.pop()({"done": True})
    assert answers(master, client) == [{"done": True}]


def test_who_has_gone_when_his_answer_comes_costs_nothing(
    master: Master, client: socket.socket
) -> None:
    client.send(request("later"))
    master.turn()
    client.close()
    master.turn()
    master.waiting.pop()({"done": True})
    assert not master.control._clients


BAD = [
    b"\n",
    b"status\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"[]\n",
    b"{}\n",
    b'{"command": 1}\n',
    b'{"command": ["status"]}\n',
    b"\xff\xfe\0\n",
    b"[" * 60_000 + b"\n",
    b"1" * 60_000 + b"\n",
    b'{"command": "\\ud800"\n',
]


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_what_is_no_request_is_said_and_ends_the_connection(
    master: Master, client: socket.socket, data: bytes
) -> None:
    client.send(data)
    refused = {"ok": False, "exit": 2, "error": "not a request of procd"}
    assert answers(master, client) == [refused, None]
    assert master.control.refused == 1
    assert master.served == 0


def test_a_line_without_an_end_is_cut_off(master: Master, client: socket.socket) -> None:
    sent = 0
    while sent <= MAX_REQUEST_BYTES:
        sent += client.send(b"x" * 10_000)
        master.turn()
    assert answers(master, client) == [None]
    assert master.control.refused == 1


def random_message(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        good = bytearray(request("echo", text="x" * rng.randrange(50)))
        for _ in range(rng.randrange(1, 4)):
            good[rng.randrange(len(good))] = rng.randrange(256)
        return bytes(good)
    if kind == 2:
        return request("echo") * rng.randrange(1, 50)
    if kind == 3:
        return request("later")
    if kind == 4:
        values: list[object] = [None, True, -1, 1e308, "x", [], {"command": "echo"}]
        return json.dumps(rng.choice(values)).encode() + b"\n"
    return json.dumps({"command": rng.choice(["", "echo", "\0", "\ud800"])}).encode() + b"\n"


def test_random_messages_end_at_most_their_own_connection(master: Master) -> None:
    rng = random.Random(4)
    with connected(master) as other:
        for _ in range(TURNS):
            with connected(master) as client:
                for _ in range(rng.randrange(1, 4)):
                    try:
                        client.send(random_message(rng))
                    except (BrokenPipeError, ConnectionResetError, BlockingIOError):
                        break
                    master.turn()
                if rng.random() < 0.5:
                    answers(master, client)
            master.turn()
            for reply in master.waiting:
                reply({"late": True})
            master.waiting.clear()
        other.send(request("echo", still="here"))
        assert answers(master, other)[0]["echo"]["still"] == "here"
    master.turn()
    assert not master.control._clients


def test_who_does_not_read_his_answer_holds_nobody_up(master: Master) -> None:
    with connected(master) as deaf, connected(master) as other:
        deaf.send(request("flood"))
        for number in range(20):
            other.send(request("echo", n=number))
            assert [found["echo"]["n"] for found in answers(master, other)] == [number]
        assert len(answers(master, deaf)[0]["x"]) == 10_000_000
        deaf.send(request("echo", n=1))
        assert answers(master, deaf)[0]["echo"]["n"] == 1


def test_who_does_not_read_is_not_read_from(master: Master) -> None:
    """Else his answers would fill the master's memory."""
    with connected(master) as deaf:
        deaf.send(request("flood"))
        master.turn()
        served = master.served
        for _ in range(100):
            try:
                deaf.send(request("echo") * 100)
            except BlockingIOError:
                break
            master.turn()
        assert master.served == served
        deaf.close()
        master.turn()


def test_more_clients_than_allowed_are_refused_until_others_go(master: Master) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(master)) for _ in range(MAX_CLIENTS)]
        with connected(master) as late:
            assert answers(master, late) == [None]
        clients.pop().close()
        master.turn()
        again = stack.enter_context(connected(master))
        again.send(request("echo"))
        assert len(answers(master, again)) == 1


@needs_root
def test_another_user_is_refused_whatever_the_mode(master: Master) -> None:
    path = master.control.path
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    path.parent.chmod(0o755)

    def connect() -> object:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))
            client.sendall(request("echo"))
        return "sent"

    outcome(as_nobody(connect))
    master.turn()
    assert master.control.refused == 1
    assert master.served == 0


def test_a_socket_left_behind_is_replaced_and_a_folder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with closing(socket.socket(socket.AF_UNIX)) as old:
        old.bind(str(path))
    master = Master(path)
    master.close()
    path.mkdir()
    loop = Loop()
    with pytest.raises(StartFailed, match="cannot make the control socket"):
        Control(path, loop, lambda _request, _reply: None)
    for each in (loop._selector, loop._signals, loop._writer):
        each.close()


# ---------------------------------------------------------------- the loop below it


def test_a_signal_wakes_the_loop_and_none_is_lost(master: Master) -> None:
    caught = {signal.SIGUSR1, signal.SIGUSR2}
    old = {signum: signal.getsignal(signum) for signum in caught}
    try:
        master.loop.catch(caught)
        for signum in caught:
            signal.raise_signal(signum)
        assert master.loop.wait(20)[0] == caught
        assert master.loop.wait(0) == (set(), [])
    finally:
        signal.set_wakeup_fd(-1)
        for signum, handler in old.items():
            signal.signal(signum, handler)


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 0.001, 1e6, float("inf")])
def test_the_loop_waits_for_any_time(master: Master, seconds: float) -> None:
    master.loop._writer.send(struct.pack("B", signal.SIGUSR1))
    assert master.loop.wait(seconds)[0] == {signal.SIGUSR1}
    assert select.select([master.loop._signals], [], [], 0)[0] == []


def test_the_loop_waits_for_as_long_as_a_config_may_say(master: Master) -> None:
    """max_wait_time: 30d is valid (a year is the limit); epoll takes 2**31 ms."""
    master.loop._writer.send(struct.pack("B", signal.SIGUSR1))
    assert master.loop.wait(30 * 86400.0)[0] == {signal.SIGUSR1}
