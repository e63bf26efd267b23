"""Answers in a real queue: half of its bytes, for a minute, and never in a request's way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from procd.ingress.answers import EXPIRY_SECONDS, LOOK_SECONDS, WAITING_MOST, Answers
from procd.ipc import Queue
from procd.ipc.foreign.envelope import Reply
from procd.ipc.tally import Count, Tally
from procd.linux.sysv import MessageQueue
from tests.kernel.queues import no_queue_left

A, B = 2**22 + 1, 2**31 + 5
NOW = 1000.0


@pytest.fixture
def queue() -> Iterator[Queue]:
    with no_queue_left():
        made = Queue.create()
        yield made
        made.remove()


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def answers(tally: Tally) -> Answers:
    return Answers(tally, NOW)


def handle(queue: Queue) -> MessageQueue:
    return MessageQueue.open(queue.key)


def send(answers: Answers, queue: Queue, text: str, mtype: int = A, now: float = NOW) -> None:
    answers.add(Reply(mtype, "text"), text, None)
    answers.send(handle(queue), now)


def lying(queue: Queue) -> list[str]:
    return [data.decode() for data, _ in queue.peek_all()]


def test_an_answer_has_its_type_and_its_format(queue: Queue, answers: Answers) -> None:
    to = partial(answers.add, failure=None)
    to(Reply(A, "php"), {"n": 7})
    to(Reply(A, "text"), {"n": 7})
    to(Reply(A, "raw"), b"\xff")
    answers.add(Reply(B, "json"), None, "ValueError: no")
    answers.add(Reply(B, "text"), None, "ValueError: no")
    answers.send(handle(queue), NOW)
    found = [queue.receive(A, 0)[0] for _ in range(3)] + [queue.receive(B, 0)[0] for _ in range(2)]
    assert found == [
        *(b'a:1:{s:1:"n";i:7;}', b'{"n":7}', b"\xff"),
        *(b'{"error":"ValueError: no"}', b"error: ValueError: no"),
    ]


def test_answers_take_half_of_the_queue_and_wait_for_more(queue: Queue, answers: Answers) -> None:
    for number in range(20):
        send(answers, queue, f"{number:1000d}")
    half = queue.bytes_max // 2
    assert half - 1000 < queue.stat().bytes <= half
    assert (answers.waiting, answers.is_stuck) == (20 - half // 1000, True)
    queue.send(b"x" * 1000, 1, 0)  # a request still finds room
    assert answers.due < NOW + 1
    for _ in range(3):
        queue.receive(A, 0)
    answers.look(handle(queue), NOW + 1)
    assert answers.waiting == 20 - half // 1000 - 3
    assert [int(text) for text in lying(queue) if text.strip().isdigit()][-1] == half // 1000 + 2


def test_beyond_what_may_wait_the_oldest_is_dropped(
    queue: Queue, answers: Answers, tally: Tally
) -> None:
    for number in range(8 + WAITING_MOST + 5):
        send(answers, queue, f"{number:1000d}")
    assert answers.waiting == WAITING_MOST
    assert tally.get(Count.DROPPED) == 5
    assert tally.get(Count.ANSWERS) == 8


def test_a_full_queue_is_not_waited_for(queue: Queue, answers: Answers) -> None:
    while queue.stat().bytes + 4000 <= queue.bytes_max:
        queue.send(b"x" * 4000, 1, 0)
    send(answers, queue, "y" * 4000)
    assert answers.waiting == 1
    queue.receive(1, 0)
    answers.look(handle(queue), NOW + 1)
    assert answers.waiting == 0


def test_what_nobody_reads_is_taken_off_whoever_sent_it(
    queue: Queue, answers: Answers, tally: Tally
) -> None:
    send(answers, queue, "old")
    queue.send(b"stranger", B, 0)
    queue.send(b"request", 5, 0)
    answers.look(handle(queue), NOW + 10)
    send(answers, queue, "young", now=NOW + 30)
    answers.look(handle(queue), NOW + EXPIRY_SECONDS + 1)
    assert lying(queue) == ["stranger", "request", "young"]
    answers.look(handle(queue), NOW + EXPIRY_SECONDS + 11)
    assert lying(queue) == ["request", "young"]
    answers.look(handle(queue), NOW + EXPIRY_SECONDS + 31)
    assert lying(queue) == ["request"]
    assert tally.get(Count.EXPIRED) == 3


def test_of_one_type_those_that_were_read_are_the_oldest(queue: Queue, answers: Answers) -> None:
    send(answers, queue, "same")
    send(answers, queue, "same", now=NOW + 50)
    queue.receive(A, 0)
    answers.look(handle(queue), NOW + EXPIRY_SECONDS + 1)
    assert lying(queue) == ["same"]
    answers.look(handle(queue), NOW + EXPIRY_SECONDS + 51)
    assert lying(queue) == []


def test_it_looks_now_and_then_also_where_it_sent_nothing(answers: Answers) -> None:
    assert answers.due == NOW + LOOK_SECONDS
    answers.put_off(NOW + LOOK_SECONDS)
    assert answers.due == NOW + 2 * LOOK_SECONDS


def test_a_result_that_fits_no_message_is_a_failure_that_says_so(
    queue: Queue, answers: Answers
) -> None:
    send(answers, queue, "x" * 9000)
    assert lying(queue) == [
        "error: the task's result is too large for a message: 9000 bytes of 8192"
    ]
