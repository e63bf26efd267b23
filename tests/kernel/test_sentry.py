"""The sentry: told of a message that stays, of an empty one that is gone, of a queue that is."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from procd.ingress.sentry import Report, Sentry
from procd.ipc import Queue
from procd.linux import sysvraw
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueGone
from tests.kernel.queues import no_queue_left

SECONDS = 10.0
LARGEST = 2**22


@pytest.fixture
def queue() -> Iterator[Queue]:
    with no_queue_left():
        made = Queue.create()
        yield made
        made.remove()


@pytest.fixture
def sentry(queue: Queue) -> Sentry:
    """A sentry that waits for the queue's first message."""
    made = Sentry()
    made.arm(MessageQueue.open(queue.key))
    return made


def is_told(sentry: Sentry, seconds: float = 0) -> bool:
    return bool(select.select([sentry], [], [], seconds)[0])


def told(sentry: Sentry) -> Report:
    assert is_told(sentry, SECONDS)
    return sentry.report()


def test_a_message_is_told_of_and_stays(queue: Queue, sentry: Sentry) -> None:
    assert not is_told(sentry)
    queue.send(b"x", LARGEST)
    assert told(sentry) is None
    assert list(queue.peek_all()) == [(b"x", LARGEST)]
    assert not is_told(sentry)
    sentry.arm(MessageQueue.open(queue.key))
    assert told(sentry) is None


def test_an_answer_is_none_of_its_messages(queue: Queue, sentry: Sentry) -> None:
    queue.send(b"answer", LARGEST + 1)
    queue.send(b"task", 5)
    assert told(sentry) is None
    queue.receive(5, 0)
    sentry.arm(MessageQueue.open(queue.key))
    assert not is_told(sentry, 0.05)


def test_one_without_bytes_is_taken_off_and_told_by_its_type(queue: Queue, sentry: Sentry) -> None:
    queue.send(b"", 9)
    assert told(sentry) == 9
    assert queue.messages == 0


def test_the_end_of_the_queue_is_told(queue: Queue, sentry: Sentry) -> None:
    queue.remove()
    assert isinstance(told(sentry), QueueGone)


def test_a_window_sees_what_copy_sees(queue: Queue) -> None:
    handle = MessageQueue.open(queue.key)
    window = sysvraw.Window(handle)
    for data, mtype in ((b"a", 1), (b"x" * 8192, 2**40), (b"", 3)):
        queue.send(data, mtype, 0)
    for index in range(3):
        assert window.look(index) == sysvraw.copy(handle, index)
    with pytest.raises(QueueEmpty):
        window.look(3)
    queue.remove()
    with pytest.raises(QueueGone):
        window.look(0)
