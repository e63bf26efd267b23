"""procd.ipc.Queue in an event loop: it waits, the loop turns on, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from procd.ipc import Queue, QueueEmpty, QueueFull, QueueGone
from tests.kernel import queues


@pytest.fixture(name="queue")
def made_queue() -> Iterator[Queue]:
    with queues.no_queue_left():
        queue = Queue.create()
        yield queue
        queue.remove()


def test_a_reader_and_a_writer_of_one_loop_meet(queue: Queue) -> None:
    async def talk() -> list[tuple[bytes, int]]:
        reading = asyncio.create_task(queue.receive_async(-5, timeout=20))
        await asyncio.sleep(0)
        await queue.send_async(b"too high", 6)
        await queue.send_async(b"mine", 5)
        return [await reading, await queue.receive_async(excluding=5)]

    assert asyncio.run(talk()) == [(b"mine", 5), (b"too high", 6)]


def test_more_than_the_queue_holds_passes_through_one_loop(queue: Queue) -> None:
    async def talk() -> list[int]:
        async def write() -> None:
            for number in range(100):
                await queue.send_async(b"x" * 1000, number + 1, timeout=20)

        writing = asyncio.create_task(write())
        types = [(await queue.receive_async(timeout=20))[1] for _ in range(100)]
        await writing
        return types

    assert asyncio.run(talk()) == list(range(1, 101))


def test_a_timeout_is_an_error_by_name(queue: Queue) -> None:
    with pytest.raises(QueueEmpty):
        asyncio.run(queue.receive_async(timeout=0.01))
    queue.set(bytes_max=1)
    with pytest.raises(QueueFull):
        asyncio.run(_full(queue))


async def _full(queue: Queue) -> None:
    await queue.send_async(b"x")
    await queue.send_async(b"y", timeout=0.01)


def test_a_cancelled_reader_has_taken_nothing(queue: Queue) -> None:
    async def talk() -> int:
        for _ in range(200):
            reading = asyncio.create_task(queue.receive_async())
            await asyncio.sleep(0)
            queue.send(b"x")
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert queue.receive(timeout=0) == (b"x", 1)
        return queue.messages

    assert asyncio.run(talk()) == 0


def test_a_waiting_reader_learns_that_the_queue_is_gone(queue: Queue) -> None:
    async def talk() -> None:
        reading = asyncio.create_task(queue.receive_async())
        await asyncio.sleep(0)
        queue.remove()
        await reading

    with pytest.raises(QueueGone):
        asyncio.run(talk())
