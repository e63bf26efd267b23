"""The doorbell: each ring wakes one, none is lost, and the kernel's surprise about the dead."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from procd.ipc.doorbell import Doorbell
from tests.kernel.forked import DEADLINE, Say, forked, outcome, wait_for_ever


@pytest.fixture(name="bell")
def a_doorbell() -> Iterator[Doorbell]:
    bell = Doorbell()
    yield bell
    os.close(bell.fd)


def answered(bell: Doorbell) -> int:
    count = 0
    while bell.answer():
        count += 1
    return count


def test_each_ring_is_answered_once(bell: Doorbell) -> None:
    assert not bell.answer()
    bell.ring()
    bell.ring(3)
    assert answered(bell) == 4


@pytest.mark.parametrize("times", [0, -1])
def test_no_ring_is_no_ring(bell: Doorbell, times: int) -> None:
    bell.ring(times)
    assert answered(bell) == 0


def test_a_ring_by_another_process_is_heard(bell: Doorbell) -> None:
    outcome(lambda: bell.ring(2))
    assert answered(bell) == 2


def test_it_is_not_inherited_over_exec(bell: Doorbell) -> None:
    assert not os.get_inheritable(bell.fd)


def waiting(bell: Doorbell, say: Say) -> bool:
    """Sleep until it rings, and answer."""
    epoll = select.epoll()
    bell.wait_in(epoll)
    say("waiting")
    epoll.poll()
    return bell.answer()


def test_all_rings_are_answered_among_several_who_wait(bell: Doorbell) -> None:
    def body(say: Say) -> None:
        epoll = select.epoll()
        bell.wait_in(epoll)
        say("waiting")
        while True:
            epoll.poll()
            while bell.answer():
                say("1")

    with forked(body) as one, forked(body) as two:
        assert one.line() == two.line() == "waiting"
        for _ in range(100):
            bell.ring()
        poll = select.poll()
        for child in (one, two):
            poll.register(child.said, select.POLLIN)
        children = {child.said: child for child in (one, two)}
        heard = 0
        while heard < 100:
            for fd, _ in poll.poll(20_000):
                heard += children[fd].line() == "1"
        assert answered(bell) == 0


def test_a_nested_epoll_is_readable_while_somebody_should_answer(bell: Doorbell) -> None:
    """EPOLLEXCLUSIVE cannot be given to an event loop: the epoll fd itself is watched."""
    with select.epoll() as epoll, select.epoll() as loop:
        bell.wait_in(epoll)
        loop.register(epoll.fileno(), select.EPOLLIN)
        assert loop.poll(0) == []
        bell.ring()
        assert loop.poll(0) == [(epoll.fileno(), select.EPOLLIN)]
        assert bell.answer()
        assert loop.poll(0) == []


def test_a_second_ring_wakes_another_one_when_the_woken_has_died(bell: Doorbell) -> None:
    """Woken and killed before it answered: the others may sleep on beside a readable eventfd."""

    def doomed(say: Say) -> None:
        epoll = select.epoll()
        bell.wait_in(epoll)
        say("waiting")
        epoll.poll()
        wait_for_ever(say)

    with forked(doomed) as first:
        assert first.line() == "waiting"
        with forked(lambda say: waiting(bell, say)) as second:
            assert second.line() == "waiting"
            bell.ring()
            if first.said in select.select([first.said, second.said], [], [], DEADLINE)[0]:
                assert first.line() == "ready"
                first.kill()
                bell.ring()  # what the master does after each death
            assert second.line() == "True"
