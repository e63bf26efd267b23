"""Two workers in one process and connections between them; sockets, pipe and loop are real."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from procd.ipc.channel import Channel
from procd.worker.connection import Connection
from procd.worker.handover import Giver, Heir, Offer
from procd.worker.movable import packed

Body = Callable[[], Coroutine[Any, Any, None]]


class Worker:
    """A worker as its connections see it: it echoes lines, and notes what its handlers got."""

    def __init__(self) -> None:
        self.host = cast("Any", self)
        self.handlers: dict[str, Callable[..., object]] = {
            name: self.noting(name) for name in ("connect", "resume", "close")
        }
        self.handlers["receive"] = self.receive
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[object]] = set()
        self.calls: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.moves = False

    def noting(self, name: str) -> Callable[[Connection], None]:
        return lambda _conn: self.calls.append(name)

    async def receive(self, conn: Connection, data: bytes) -> None:
        self.calls.append(data.decode())
        await self.go.wait()
        conn.send(b"<" + data + b">")

    def run(self, _event: str, coroutine: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def call(self, _event: str, handler: Callable[..., object], *args: object) -> None:
        handler(*args)

    def count_request(self) -> None: ...

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def would_move(self, _connection: Connection) -> bool:
        return self.moves

    async def open(self, sock: socket.socket, connection: Connection | None = None) -> None:
        sock.setblocking(False)
        made = connection or Connection(cast("Any", self), len(self.connections), 1 << 20)
        self.connections.add(made)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: made, sock)

    def adopt(self, number: int, state: object, unread: bytes, sock: socket.socket) -> None:
        connection = Connection(cast("Any", self), number, 1 << 20)
        connection.inherit(state, unread)
        self.run("accept", self.open(sock, connection))

    async def close(self) -> None:
        for connection in list(self.connections):
            connection.abort()
        await until(lambda: not self.connections)

    def offers(self) -> list[Offer]:
        return [
            Offer(each, packed(each.state)) for each in self.connections if each.occupation is None
        ]


class Couple:
    """An old and a new worker, a pipe between them, and clients of the old one."""

    def __init__(self) -> None:
        self.old, self.new = Worker(), Worker()
        self.changes = 0
        self.giver = Giver(self.old.forget, self._changed)
        self.heir = Heir(self.new.adopt)
        self.clients: list[socket.socket] = []

    def _changed(self) -> None:
        self.changes += 1

    async def clients_of_the_old(self, count: int) -> list[socket.socket]:
        for _ in range(count):
            client, served = socket.socketpair()
            client.setblocking(False)
            self.clients.append(client)
            await self.old.open(served)
        return self.clients

    def introduce(self) -> None:
        ours, theirs = Channel.pair()
        self.giver.open(ours.socket.detach())
        self.heir.open(theirs.socket.detach())

    async def close(self) -> None:
        self.heir.close()
        await until(lambda: not self.giver.has_heir)
        for client in self.clients:
            client.close()
        await self.old.close()
        await self.new.close()


async def until(predicate: Callable[[], object]) -> None:
    while not predicate():  # noqa: ASYNC110 - what it waits for sets no event
        await asyncio.sleep(0.001)


async def said(client: socket.socket, data: bytes = b"") -> bytes:
    """Say something, and return what is answered."""
    loop = asyncio.get_running_loop()
    if data:
        await loop.sock_sendall(client, data)
    return await loop.sock_recv(client, 1000)


def with_couple(body: Callable[[Couple], Awaitable[None]]) -> Body:
    async def main() -> None:
        couple = Couple()
        try:
            await body(couple)
        finally:
            await couple.close()

    return main
