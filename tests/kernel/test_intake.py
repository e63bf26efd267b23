"""From the public queue to the store: past answers that nobody reads, and beside who reads them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from procd.ingress.intake import Intake
from procd.ipc import Queue
from procd.ipc.foreign.envelope import Reply
from procd.ipc.foreign.message import LARGEST_TASK_TYPE, Rules
from procd.ipc.tally import Tally
from procd.linux import sysvraw
from procd.linux.sysv import MessageQueue, QueueEmpty
from tests.kernel.forked import Say, forked
from tests.kernel.queues import no_queue_left

ANSWER = LARGEST_TASK_TYPE + 1
Taken = list[bytes]


@pytest.fixture
def queue() -> Iterator[Queue]:
    with no_queue_left():
        made = Queue.create()
        yield made
        made.remove()


@pytest.fixture
def handle(queue: Queue) -> MessageQueue:
    return MessageQueue.open(queue.key)


@pytest.fixture
def taken() -> Taken:
    return []


@pytest.fixture
def intake(taken: Taken) -> Intake:
    def store(payload: bytes, _mtype: int, _reply: Reply | None) -> None:
        taken.append(payload)

    return Intake(Rules("raw"), None, store, Tally())


def packed(number: int) -> bytes:
    return b"\xc4\x02%02d" % number  # MessagePack's bytes


def read_one_answer(queue: Queue) -> None:
    """By another process, as a program that has asked does."""

    def read(_: Say) -> str:
        queue.receive(ANSWER)
        return "read"

    with forked(read) as child:
        assert child.line() == "read"


def test_unread_answers_are_passed_once_a_turn_and_not_for_each_message(
    queue: Queue,
    handle: MessageQueue,
    intake: Intake,
    taken: Taken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    look = sysvraw.Window.look

    def counted(window: sysvraw.Window, index: int) -> tuple[bytes, int]:
        nonlocal looks
        looks += 1
        return look(window, index)

    monkeypatch.setattr(sysvraw.Window, "look", counted)
    for _ in range(200):
        queue.send(b"answer", ANSWER)
    for number in range(50):
        queue.send(b"%02d" % number, 1)
    intake.look_anew()
    for _ in range(50):
        intake.take(handle)
    assert taken == [packed(number) for number in range(50)]
    # Twice: who was the last to receive is only known after a message of our own.
    assert looks <= 2 * 200 + 50


def test_an_answer_that_is_read_meanwhile_changes_nothing_in_the_order(
    queue: Queue, handle: MessageQueue, intake: Intake, taken: Taken
) -> None:
    for number in range(20):
        queue.send(b"answer", ANSWER)
        queue.send(b"%02d" % number, 1)
    intake.look_anew()
    for number in range(20):
        if number % 5 == 3:
            read_one_answer(queue)
        intake.take(handle)
    assert taken == [packed(number) for number in range(20)]


def test_nothing_is_left_behind_wherever_answers_lie_and_whoever_reads_them(
    queue: Queue, handle: MessageQueue, intake: Intake, taken: Taken
) -> None:
    rng = random.Random(3)
    wanted: Taken = []
    for _ in range(2000):
        match rng.randrange(5):
            case 0:
                queue.send(b"answer", ANSWER)
            case 1:
                with suppress(QueueEmpty):
                    queue.receive(ANSWER, 0)  # from the same process, which nobody can tell
            case _ if len(wanted) < 100:
                wanted.append(packed(len(wanted)))
                queue.send(wanted[-1][2:], 1)
        if rng.randrange(3) == 0:
            intake.look_anew()
            with suppress(QueueEmpty):
                for _ in range(rng.randrange(4)):
                    intake.take(handle)
    intake.look_anew()
    with suppress(QueueEmpty):
        while True:
            intake.take(handle)
    assert taken == wanted
