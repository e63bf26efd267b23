"""Results that stream in are looked for once a turn, and nobody need tell of them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from procd.ipc import hints, inbox, layout
from procd.ipc.inbox import Hint
from procd.ipc.scoreboard import Cell, Role
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.reading import STREAM, Reading
from tests.kernel.arenas import Service, Someone, accepted, finish, serving


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        yield service


@pytest.fixture(name="worker")
def a_worker(service: Service) -> Someone:
    return service.someone(Role.WORKER)


class Loop:
    """The worker's loop, turned by hand."""

    def __init__(self, worker: Someone) -> None:
        self.soon: list[Callable[[], None]] = []
        self.told: list[int] = []  # tokens of which somebody has told
        self._worker = worker
        self.reading = Reading(worker.dispatcher, worker.inbox, self._take, self.soon.append)

    def _take(self, datagram: memoryview) -> None:
        item = inbox.parse(datagram)
        assert isinstance(item, Hint)
        self.told.append(item.token)
        self._worker.dispatcher.take_hint(item.token)

    def turn(self) -> None:
        due, self.soon[:] = list(self.soon), []
        for call in due:
            call()


def done(service: Service, worker: Someone, tasker: Someone, count: int) -> list[int]:
    """That many tasks, run and told of as a task worker does."""
    tokens = [accepted(service, worker) for _ in range(count)]
    for token in tokens:
        finish(tasker, token)
        hints.tell(tasker.shared.post, service.scoreboard, *worker.seat[:2], token)
    return tokens


def test_a_single_result_is_told_of(service: Service, worker: Someone) -> None:
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    for _ in range(3):
        (token,) = done(service, worker, tasker, 1)
        loop.reading.read()
        assert (loop.told.pop(), loop.soon) == (token, [])
    assert len(worker.results) == 3


def test_results_that_stream_in_are_found_until_a_turn_brings_none(
    service: Service, worker: Someone
) -> None:
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    done(service, worker, tasker, STREAM)
    loop.reading.read()
    assert len(loop.told) == STREAM
    for _ in range(3):
        done(service, worker, tasker, 1)
        loop.turn()
    assert (len(loop.told), len(worker.results)) == (STREAM, STREAM + 3)
    loop.turn()
    assert (worker.cells[Cell.MISSED], loop.soon) == (0, [])
    (token,) = done(service, worker, tasker, 1)
    loop.reading.read()
    assert loop.told[STREAM:] == [token]


class Late(Dispatcher):
    """In whose second look a result is done a moment too late to be seen."""

    then: Callable[[], object] | None = None

    def look(self) -> int:
        found = super().look()
        then, self.then = self.then, None
        if then is not None:
            then()
        return found


def test_what_is_done_just_after_the_last_look_is_not_left_lying(
    service: Service, worker: Someone
) -> None:
    shared, results = worker.shared, worker.results
    late = Late(
        *(shared, worker.dispatcher.me, worker.cells),
        on_result=lambda ref, value, error: results.append((ref.id, value, error)),
        want_retry=lambda: None,
    )
    worker = replace(worker, dispatcher=late)
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    done(service, worker, tasker, STREAM)
    loop.reading.read()
    late.then = lambda: done(service, worker, tasker, 1)  # of which nobody tells
    loop.turn()
    assert len(worker.results) == STREAM + 1
    assert len(loop.told) == STREAM
    assert (worker.cells[Cell.MISSED], loop.soon) == (0, [])


def test_a_message_that_is_read_meanwhile_changes_nothing(
    service: Service, worker: Someone
) -> None:
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    done(service, worker, tasker, STREAM)
    loop.reading.read()
    loop.reading.read()  # the loop has seen the inbox readable
    assert len(loop.soon) == 1
    done(service, worker, tasker, 1)
    loop.turn()
    assert len(worker.results) == STREAM + 1
    loop.turn()
    assert (worker.cells[Cell.MISSED], loop.soon) == (0, [])


def test_who_leaves_in_the_midst_of_a_stream_reads_no_more(
    service: Service, worker: Someone
) -> None:
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    done(service, worker, tasker, STREAM)
    loop.reading.read()
    loop.reading.end()
    worker.inbox.close()
    loop.turn()
    assert loop.soon == []


def test_nobody_looks_while_the_ledger_is_to_speak(service: Service, worker: Someone) -> None:
    loop, tasker = Loop(worker), service.someone(Role.TASK)
    worker.dispatcher.dispatch(b"\xc0", flags=layout.DURABLE)
    done(service, worker, tasker, STREAM)
    loop.reading.read()
    assert (worker.cells[Cell.MISSED], loop.soon) == (0, [])
