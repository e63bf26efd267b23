"""Delayed and cancelled tasks as the master has them: what it learns, forgets and puts right."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from procd.errors import TaskCancelled
from procd.ipc import terms, wire, words
from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Cell, Role
from procd.ipc.words import SlotState
from procd.linux import recordlock
from procd.master.cancelling import Cancelling
from procd.master.process import Process
from procd.master.states import Row, Seat, State
from procd.tasks.options import PLAIN
from tests.kernel.arenas import JUNK, Service, Someone, accepted, claim, serving
from tests.kernel.forked import Say, forked, wait_for_ever

S = SlotState
SOON = PLAIN.but({"delay": 0.02})
LATER = PLAIN.but({"delay": 3600})


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        yield service


@pytest.fixture(name="worker")
def a_worker(service: Service) -> Someone:
    return service.someone(Role.WORKER)


@pytest.fixture(name="tasker")
def a_task_worker(service: Service) -> Someone:
    return service.someone(Role.TASK)


def delayed(worker: Someone, options: object = SOON) -> int:
    return worker.dispatcher.dispatch(wire.pack("work"), options=options).id  # type: ignore[arg-type]


def let_time_pass(service: Service) -> None:
    """Do what the master does when the next task is due."""
    at = service.recovery.delays.next_look
    assert at is not None
    while time.monotonic() < at:
        os.sched_yield()
    service.recovery.tick(time.monotonic())


# ---------------------------------------------------------------- delays


def test_a_delayed_task_is_queued_when_it_is_due(service: Service, worker: Someone) -> None:
    told: list[object] = []
    worker.dispatcher.tell_master = lambda kind, body: told.append((kind, body))
    token = delayed(worker)
    assert told == [("delayed", {"id": token})]
    assert (service.state(token), service.queued()) == (S.DELAYED, [])
    service.recovery.delays.learn(token)
    let_time_pass(service)
    assert (service.state(token), service.queued()) == (S.QUEUED, [token])
    assert service.recovery.delays.next_look is None


def test_it_looks_at_the_clock_now_and_then_though_nothing_is_due(
    service: Service, worker: Someone
) -> None:
    """Somebody may have set it."""
    service.recovery.delays.learn(delayed(worker, LATER))
    at = service.recovery.delays.next_look
    assert at is not None
    assert at - time.monotonic() <= 60


def test_what_is_told_twice_or_is_no_delayed_task_changes_nothing(
    service: Service, worker: Someone
) -> None:
    token, queued = delayed(worker), accepted(service, worker)
    for each in (token, token, queued, 0, JUNK, 2**64 - 1, token + (1 << 20)):
        service.recovery.delays.learn(each)
    let_time_pass(service)
    assert service.queued() == [token]


def test_what_a_dead_dispatcher_had_not_told_is_found(service: Service, worker: Someone) -> None:
    token = delayed(worker)
    service.bury(worker)
    let_time_pass(service)
    assert service.queued() == [token]


def test_a_retry_that_a_dead_task_worker_had_not_told_is_found(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    claim(tasker, token)
    due = time.time() + 0.02
    tasker.arena.postpone(token, terms.Terms(due=due, failures=1))
    assert service.state(token) is S.DELAYED
    service.bury(tasker)
    assert service.queued() == []
    let_time_pass(service)
    assert service.queued() == [token]
    assert service.slot(token).attempt == 1


def test_delayed_tasks_are_kept_over_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        token = delayed(service.someone(Role.WORKER))
        assert service.stop() == 1
    with serving(tmp_path) as after:
        assert after.recovery.adopt(0.0) == 1
        let_time_pass(after)
        assert after.queued() == [token]
        assert after.stop(discard=True) == 0


def test_a_delayed_slot_that_somebody_looks_at_is_tried_again(
    service: Service, worker: Someone
) -> None:
    token = delayed(worker)

    def body(say: Say) -> None:
        recordlock.try_lock(service.file.fd, words.slot_of(token))
        wait_for_ever(say)

    service.recovery.delays.learn(token)
    with forked(body) as child:
        assert child.line() == "ready"
        let_time_pass(service)
        assert service.state(token) is S.DELAYED
        child.kill()
    let_time_pass(service)
    assert service.queued() == [token]


# ---------------------------------------------------------------- cancelling


def cancelling(service: Service, *rows: Process) -> Cancelling:
    table = {each.row.row: each for each in rows}
    recovery = service.recovery
    return Cancelling(service.file, recovery.endings, service.scoreboard, table)


def has_ended(pid: int) -> bool:
    """Wait for the end of a child, and leave it to be reaped."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], 5)[0])
    finally:
        os.close(pidfd)


def process_of(tasker: Someone, pid: int) -> Process:
    seat = Seat(Role.TASK, 0, 1)
    row = Row(tasker.seat.row, tasker.seat.incarnation, seat, State.SERVING, 0.0, pid=pid)
    ours, theirs = Channel.pair()
    theirs.close()
    ours.close()
    return Process(row, ours)


@pytest.mark.parametrize("kind", ["queued", "addressed", "delayed"])
def test_what_has_not_begun_ends_at_once_and_its_sender_is_told(
    service: Service, worker: Someone, tasker: Someone, kind: str
) -> None:
    token = delayed(worker, LATER) if kind == "delayed" else 0
    token = token or accepted(service, worker, seat=0 if kind == "addressed" else -1)
    assert worker.dispatcher.cancel(token)
    cancelling(service).cancel(token, 0.0)
    assert service.state(token) is S.DONE
    worker.dispatcher.take_hint(token)
    ((_, _, error),) = worker.results
    assert isinstance(error, TaskCancelled)
    assert worker.dispatcher.cancel(token) is False
    assert tasker.arena.claim(token) is None
    assert service.recovery.totals.cancelled == 1


def test_what_somebody_begins_at_that_moment_is_nudged_and_then_killed(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)

    def body(say: Say) -> None:
        signal.signal(terms.NUDGE, lambda *_: say("nudged"))
        claim(tasker, token)
        say("claimed")
        while True:
            signal.pause()

    with forked(body) as child:
        assert child.line() == "claimed"
        process = process_of(tasker, child.pid)
        cancels = cancelling(service, process)
        cancels.cancel(token, 5.0)
        assert tasker.arena.is_cancelled(token)
        assert child.line() == "nudged"
        assert cancels.due() == [5.0 + terms.CANCEL_GRACE]
        cancels.tick(5.0 + terms.CANCEL_GRACE)
        assert has_ended(child.pid)
        assert cancels.due() == []
    service.bury(tasker)
    assert service.state(token) is S.DONE
    worker.dispatcher.take_hint(token)
    assert isinstance(worker.results[0][2], TaskCancelled)


def test_a_task_worker_that_does_something_else_by_then_is_spared(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    claim(tasker, token)
    process = process_of(tasker, os.getpid())
    cancels = cancelling(service, process)
    tasker.cells[Cell.CURRENT] = token + 1
    cancels.cancel(token, 5.0)  # a signal would end this test
    tasker.arena.finish(token, wire.pack(1), failed=False)
    cancels.tick(100.0)
    assert cancels.due() == []


def test_what_is_no_task_is_not_cancelled(service: Service, worker: Someone) -> None:
    token = accepted(service, worker)
    cancels = cancelling(service)
    for each in (0, JUNK, 2**64 - 1, token + (1 << 20)):
        cancels.cancel(each, 0.0)
        assert worker.arena.cancel(each) is False
    assert service.state(token) is S.QUEUED
    assert cancels.due() == []


def test_the_mark_of_a_cancelled_task_means_nothing_to_the_next_in_its_slot(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    first = accepted(service, worker)
    slot = words.slot_of(first)
    worker.arena.cancel(first)
    cancelling(service).cancel(first, 0.0)
    worker.dispatcher.take_hint(first)
    second = accepted(service, worker)
    while words.slot_of(second) != slot:
        second = accepted(service, worker)
    assert not tasker.arena.is_cancelled(second)
    assert replace(service.recovery.totals).cancelled == 1
