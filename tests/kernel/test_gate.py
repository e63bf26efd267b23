"""A gate as its master sees it: it says that nobody uses it, and leaves who is too slow."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from procd.config.load import load
from procd.gate import desk
from procd.gate.gate import Gate
from procd.ipc import frames
from procd.ipc.channel import Channel, Packet
from procd.ipc.frames import Kind
from procd.ipc.scoreboard import Role, Seat, Standing
from procd.spawn import child
from procd.spawn.context import Origin
from tests.kernel.arenas import Service

SECONDS = 10.0
ROW, INCARNATION = 9, 900


class Master:
    """The master's end of one gate, which is a real process."""

    def __init__(self, folder: Path, stack: ExitStack, unused_seconds: float) -> None:
        service = Service(folder, stack, 64)
        seat = Seat(ROW, INCARNATION, 0, 0, Role.GATE, 0, Standing.BOOTING)
        service.scoreboard.seat(seat)
        origin = Origin(
            *(os.getpid(), service.ipc, service.file.fd, service.file.layout, service.file.spool),
            *(
                service.tokens.key,
                service.doorbell,
                service.scoreboard,
                service.lease.fd,
                service.ledger,
            ),
        )
        config = folder / "procd.yaml"
        config.write_text("app: app:server\ntask_max_bytes: 1M\n")
        self.path = service.ipc / frames.SOCKET
        self.listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.listener.bind(str(self.path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.channel, theirs = Channel.pair()
        stack.callback(self.channel.close)
        gate = Gate(origin, theirs, self.listener, ROW, INCARNATION, unused_seconds)
        keep = {*origin.fds, theirs.fileno(), self.listener.fileno()}

        def body() -> int:
            logging.disable()  # pytest's stderr is a descriptor that is closed here
            return gate.run(load(config))

        self.pid = child.fork(body, keep)
        stack.callback(self.end)
        theirs.close()

    def end(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()

    def reap(self) -> int:
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        return status

    def hears(self) -> Packet:
        assert select.select([self.channel], [], [], SECONDS)[0], "the gate says nothing"
        packet = self.channel.receive()
        assert packet is not None
        return packet

    def serve(self) -> None:
        assert self.hears().kind == "ready"
        self.channel.send("serve")
        assert self.hears().kind == "serving"

    def knock(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(str(self.path))
        return sock


@contextmanager
def gate_of(folder: Path, unused_seconds: float) -> Iterator[Master]:
    with ExitStack() as stack:
        yield Master(folder, stack, unused_seconds)


def greeting(sock: socket.socket) -> int:
    kind, _, size = frames.HEAD.unpack(sock.recv(frames.HEAD.size, socket.MSG_WAITALL))
    assert kind == Kind.HELLO
    return frames.read_hello(sock.recv(size, socket.MSG_WAITALL))


def test_who_is_not_used_says_so_and_lets_nobody_in_from_then_on(tmp_path: Path) -> None:
    with gate_of(tmp_path, 0.2) as master:
        master.serve()
        with master.knock() as sock:
            assert greeting(sock) == 1 << 20
            assert not select.select([master.channel], [], [], 0.5)[0]  # it is used
        assert master.hears().kind == "unused"
        with master.knock():  # is the next one's
            master.channel.send("drain", {"deadline": 0.0})
            assert master.reap() == 0
            assert select.select([master.listener], [], [], SECONDS)[0]


def test_half_a_large_task_is_not_waited_for_while_others_want_to_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "seconds_for", lambda _: 0.3)
    size = 1 << 20
    with gate_of(tmp_path, 60) as master:
        master.serve()
        with master.knock() as slow, master.knock() as other:
            slow.sendall(frames.head(Kind.DATA, 1, size) + b"x" * 100_000)
            greeting(slow)
            other.sendall(frames.head(Kind.DATA, 1, size) + b"x" * size)
            greeting(other)
            answer = other.recv(frames.HEAD.size, socket.MSG_WAITALL)
            assert frames.HEAD.unpack(answer)[0] == Kind.ACCEPTED
            assert slow.recv(1) == b""


def test_no_more_programs_than_it_can_hold_are_let_in_and_the_rest_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "MAX_SESSIONS", 3)
    with gate_of(tmp_path, 60) as master, ExitStack() as stack:
        master.serve()
        for _ in range(3):
            greeting(stack.enter_context(master.knock()))
        with master.knock() as fourth:
            kind, ask, size = frames.HEAD.unpack(fourth.recv(frames.HEAD.size))
            assert (kind, ask) == (Kind.REFUSED, 0)
            assert b"no more may" in fourth.recv(size)
            assert fourth.recv(1) == b""
