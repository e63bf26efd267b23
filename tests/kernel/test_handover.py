"""Connections between two workers, on either event loop: who serves, and who holds.

Both workers are in this process; the sockets, the pipe and the loops are real.
"""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
import uvloop

from procd.ipc.channel import Channel
from procd.worker.connection import HANDLING, UNSENT, Connection
from procd.worker.handover import WINDOW
from procd.worker.movable import holds, holds_of_nobody
from tests.kernel.couple import Body, Couple, said, until, with_couple

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SECONDS = 10.0

Run = Callable[[Body], None]


@pytest.fixture(name="run", params=LOOPS)
def on_a_loop(request: pytest.FixtureRequest) -> Run:
    """Run a body on the loop of that name, within the time, and see what it leaves open."""

    def run(body: Body) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.sleep(0))  # what libuv opens once for good
        gc.collect()  # what an earlier test let go of
        before = len(os.listdir("/proc/self/fd"))
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(body(), SECONDS))
        assert len(os.listdir("/proc/self/fd")) == before

    return run


def test_moved_connection_keeps_id_and_state_and_nobody_is_told(run: Run) -> None:
    async def body(couple: Couple) -> None:
        (client,) = await couple.clients_of_the_old(1)
        assert await said(client, b"one") == b"<one>"
        (connection,) = couple.old.connections
        connection.state["seen"] = 1
        couple.introduce()
        assert couple.giver.give(couple.old.offers()) == 1
        await until(lambda: couple.giver.moved)
        assert couple.old.connections == set()
        assert await said(client, b"two") == b"<two>"
        (moved,) = couple.new.connections
        assert (moved.id, moved.state) == (connection.id, {"seen": 1})
        assert couple.old.calls == ["connect", "one"]
        assert couple.new.calls == ["resume", "two"]
        connection.send(b"lost")
        with pytest.raises(ConnectionResetError):
            await connection.drain()

    run(with_couple(body))


def test_what_was_read_ahead_comes_first(run: Run) -> None:
    async def body(couple: Couple) -> None:
        (client,) = await couple.clients_of_the_old(1)
        couple.old.go.clear()
        couple.old.moves = True
        await asyncio.get_running_loop().sock_sendall(client, b"one")
        await until(lambda: "one" in couple.old.calls)
        (connection,) = couple.old.connections
        assert connection.occupation == HANDLING
        await asyncio.get_running_loop().sock_sendall(client, b"two")
        await until(lambda: connection.unread_bytes)
        couple.old.go.set()
        await until(lambda: connection.occupation is None)
        couple.introduce()
        couple.giver.give(couple.old.offers())
        assert await said(client) == b"<one>"
        await asyncio.get_running_loop().sock_sendall(client, b"three")
        answers = b""
        while not answers.endswith(b"three>"):
            answers += await said(client)
        assert couple.new.calls[:2] == ["resume", "two"]
        assert answers.replace(b"><", b"") == b"<twothree>"

    run(with_couple(body))


def test_heir_that_leaves_gives_back_what_it_has_not_answered(run: Run) -> None:
    async def body(couple: Couple) -> None:
        clients = await couple.clients_of_the_old(100)
        couple.introduce()
        assert couple.giver.give(couple.old.offers()) == WINDOW
        assert couple.giver.room == 0
        couple.heir.close()  # before the loop has let it read anything
        await until(lambda: not couple.giver.has_heir)
        assert couple.giver.moved == 0
        for client in clients:
            assert await said(client, b"x") == b"<x>"
        couple.introduce()
        while couple.old.connections:
            couple.giver.give(couple.old.offers()[: couple.giver.room])
            seen = couple.changes
            await until(lambda seen=seen: couple.changes > seen)  # type: ignore[misc]
        assert couple.giver.moved == 100
        for client in clients:
            assert await said(client, b"y") == b"<y>"
        assert couple.new.calls.count("resume") == 100

    run(with_couple(body))


def test_answers_of_an_heir_that_leaves_are_heard_to_the_last(run: Run) -> None:
    async def body(couple: Couple) -> None:
        await couple.clients_of_the_old(WINDOW)
        ours, theirs = Channel.pair()
        couple.giver.open(ours.socket.detach())
        couple.giver.give(couple.old.offers())
        first = theirs.receive()
        assert first is not None
        numbers = [number for number, _, _ in cast("list[Any]", first.body["items"])]
        theirs.send("adopted", {"taken": numbers[:20], "refused": []})
        theirs.send("adopted", {"taken": numbers[20:], "refused": []})
        for fd in first.fds:
            os.close(fd)
        theirs.close()  # with the second batch unread: that resets the pipe
        await until(lambda: not couple.giver.has_heir)
        assert couple.giver.moved == len(numbers)
        assert len(couple.old.connections) == WINDOW - len(numbers)

    run(with_couple(body))


def test_close_by_the_app_while_it_is_away_closes_it_when_it_is_back(run: Run) -> None:
    async def body(couple: Couple) -> None:
        (client,) = await couple.clients_of_the_old(1)
        couple.introduce()
        (connection,) = couple.old.connections
        couple.giver.give(couple.old.offers())
        connection.close()
        couple.heir.close()
        assert await said(client) == b""
        await until(lambda: "close" in couple.old.calls)

    run(with_couple(body))


def test_garbage_in_the_pipe_costs_the_pipe_only(run: Run) -> None:
    async def body(couple: Couple) -> None:
        for garbage in (b"\xc1", b"\x92\xa1x\x81\xa5items\x91\x01"):
            ours, theirs = Channel.pair()
            couple.heir.open(theirs.socket.detach())
            ours.socket.send(garbage)
            assert await asyncio.get_running_loop().sock_recv(ours.socket, 100) == b""
            ours.close()
        (client,) = await couple.clients_of_the_old(1)
        couple.introduce()
        couple.giver.give(couple.old.offers())
        assert await said(client, b"x") == b"<x>"

    run(with_couple(body))


def test_unsent_bytes_are_seen_at_once(run: Run) -> None:
    async def body(couple: Couple) -> None:
        (client,) = await couple.clients_of_the_old(1)
        (connection,) = couple.old.connections
        connection.send(b"x" * 5_000_000)
        assert connection.occupation == UNSENT
        received = 0
        while received < 5_000_000:
            received += len(await asyncio.get_running_loop().sock_recv(client, 1 << 20))
        await until(lambda: connection.occupation is None)

    run(with_couple(body))


def test_who_holds_a_connection_is_seen_and_nobody_as_well(run: Run) -> None:
    async def body(couple: Couple) -> None:
        nobody = await holds_of_nobody(cast("Any", couple.old))
        clients = await couple.clients_of_the_old(5)
        for client in clients:
            assert await said(client, b"one") == b"<one>"  # an async handler has run
        await until(lambda: not couple.old.tasks)

        def found() -> set[Any]:
            rests = list(couple.old.connections)
            return {holds(rests, index) for index in range(len(rests))}

        def one() -> Connection:
            return next(iter(couple.old.connections))

        assert found() == {nobody}
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()

        async def wait_with(connection: Connection) -> None:
            await waiting
            connection.send(b"")

        holders: list[Callable[[], object]] = [
            lambda: {one().id: one()},
            lambda: one().send,
            lambda: weakref.ref(one()),
            lambda: one().state,
            lambda: loop.call_soon(one().send, b""),
            lambda: asyncio.ensure_future(wait_with(one())),
        ]
        for hold in holders:
            held = hold()
            assert len(found()) == 2, held
            waiting.set_result(None)
            del held
            await until(lambda: found() == {nobody})
            waiting = loop.create_future()

    run(with_couple(body))
