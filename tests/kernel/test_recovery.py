"""What becomes of tasks when a task worker dies, one kind of death after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.ipc import layout, wire, words
from procd.ipc.inbox import Hint
from procd.ipc.scoreboard import TAKING, Cell, Role
from procd.ipc.words import SlotState
from procd.linux import recordlock
from procd.tasks.reading import Reading
from tests.kernel.arenas import (
    ATTEMPTS,
    JUNK,
    Service,
    Someone,
    accepted,
    claim,
    finish,
    serving,
)
from tests.kernel.forked import Say, forked, wait_for_ever

S = SlotState


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


def test_one_killed_with_a_running_task_frees_its_lock_and_the_task_runs_again(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)

    def body(say: Say) -> None:
        claim(tasker, token)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert recordlock.holder(service.file.fd, words.slot_of(token)) == child.pid
        child.kill()
    assert recordlock.holder(service.file.fd, words.slot_of(token)) == 0
    assert service.state(token) is S.RUNNING
    service.bury(tasker)
    assert (service.slot(token).state, service.slot(token).attempt) == (S.QUEUED, 1)
    assert service.queued() == [token]
    assert service.rings() >= 1
    assert service.recovery.totals.retried == 1


def test_one_killed_between_queue_and_arena_loses_no_task(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    """It had the token, had written it down, and not claimed yet."""
    token = accepted(service, worker)
    tasker.cells[Cell.CURRENT] = token
    service.bury(tasker)
    assert service.queued() == [token]
    assert service.slot(token).attempt == 0


def test_one_killed_while_it_takes_a_token_has_all_of_them_told_again(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    tokens = [accepted(service, worker) for _ in range(3)]
    tasker.cells[Cell.CURRENT] = TAKING
    service.bury(tasker)
    assert sorted(service.queued()) == sorted(tokens)
    assert service.rings() >= 3


def test_one_killed_before_it_told_of_a_result_has_it_told_by_the_master(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    finish(tasker, token)
    service.bury(tasker)
    assert worker.mail() == [Hint(token)]
    worker.dispatcher.take_hint(token)
    assert worker.results == [(token, "result", None)]


def test_a_result_for_a_full_inbox_is_found_by_the_missed_flag(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    finish(tasker, token)
    service.fill_inbox(worker)
    service.bury(tasker)
    assert worker.cells[Cell.MISSED] == 1
    assert Hint(token) not in worker.mail()
    Reading(worker.dispatcher, worker.inbox, lambda _: None).read()
    assert worker.results == [(token, "result", None)]
    assert worker.cells[Cell.MISSED] == 0


def test_a_task_that_kills_its_process_each_time_fails_with_the_reason(
    service: Service, worker: Someone
) -> None:
    token = accepted(service, worker)
    for attempt in range(ATTEMPTS):
        assert service.slot(token).attempt == attempt
        tasker = service.someone(Role.TASK)
        claim(tasker, token)
        service.bury(tasker, "SIGSEGV")
    assert service.state(token) is S.DEAD
    assert service.ledger.answer()
    assert worker.mail() == []  # nobody is told before it lies where a person finds it
    ((entry, ending),) = service.lay_down()
    assert (entry.id, entry.data) == (token, wire.pack("work"))
    assert (ending.state, ending.attempts, ending.how) == ("dead", ATTEMPTS, "SIGSEGV")
    assert worker.mail() == [Hint(token)]
    worker.dispatcher.take_hint(token)
    (done,) = worker.results
    assert done[:2] == (token, None)
    why = f"given up after {ATTEMPTS} attempts (task_max_attempts), the last: SIGSEGV"
    assert done[2] is not None
    assert (str(done[2]), done[2].traceback) == (why, "")
    assert service.recovery.totals.retried == ATTEMPTS - 1
    assert service.state(token) is S.FREE


def test_a_task_whose_slot_somebody_still_holds_is_queued_once_they_let_go(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    """The master waits for nobody: it comes back to the slot."""
    token = accepted(service, worker)

    def body(say: Say) -> None:
        claim(tasker, token)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert not service.file.requeue(service.slot(token), 1)
        service.bury(tasker)
        assert service.state(token) is S.RUNNING
        assert service.recovery.next_retry is not None
    service.recovery.tick(service.recovery.next_retry)
    assert (service.slot(token).state, service.slot(token).attempt) == (S.QUEUED, 1)
    assert service.queued() == [token]
    assert service.recovery.next_retry is None


def test_a_task_is_never_given_up_for_being_killed_at_a_stop(
    service: Service, worker: Someone
) -> None:
    token = accepted(service, worker)
    for _ in range(ATTEMPTS + 1):
        tasker = service.someone(Role.TASK)
        claim(tasker, token)
        service.bury(tasker, blame=False)
    assert (service.slot(token).state, service.slot(token).attempt) == (S.QUEUED, ATTEMPTS + 1)


def test_a_task_that_another_process_has_by_now_is_left_to_it(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    other = service.someone(Role.TASK, 1)
    claim(other, token)
    tasker.cells[Cell.CURRENT] = token  # a doubled token, not claimed
    service.bury(tasker)
    assert service.slot(token).row == other.seat.row
    assert service.state(token) is S.RUNNING
    assert service.queued() == []


@pytest.mark.parametrize("current", [JUNK, 2**64 - 1, 2, 0])
def test_whatever_a_dead_process_left_in_its_row_is_no_fault(
    service: Service, worker: Someone, tasker: Someone, current: int
) -> None:
    token = accepted(service, worker)
    tasker.cells[Cell.CURRENT] = current
    service.bury(tasker)
    assert service.state(token) is S.QUEUED


def test_a_dead_one_may_have_eaten_the_ring_of_another_token(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    worker.dispatcher.dispatch(wire.pack(1))
    worker.dispatcher.dispatch(wire.pack(2))
    assert service.rings() == 2
    service.bury(tasker)
    assert service.rings() >= 2


def test_counters_outlive_their_process(service: Service, tasker: Someone) -> None:
    tasker.cells[Cell.DONE], tasker.cells[Cell.FAILED], tasker.cells[Cell.REFUSED] = 5, 2, 1
    service.bury(tasker)
    totals = service.recovery.totals
    assert (totals.done, totals.failed, totals.refused) == (5, 2, 1)


def test_a_damaged_slot_is_given_up_and_costs_nobody_else(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token, other = accepted(service, worker), accepted(service, worker)
    claim(tasker, token)
    at = service.file.layout.body_at(words.slot_of(token))
    worker.arena.map[at : at + layout.META_BYTES] = b"\xff" * layout.META_BYTES
    service.recovery.max_attempts = 1
    service.bury(tasker)
    assert service.state(other) is S.QUEUED


def test_a_slot_that_is_damaged_while_it_runs_comes_to_an_end(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    claim(tasker, token)
    at = service.file.layout.body_at(words.slot_of(token))
    worker.arena.map[at : at + layout.META_BYTES] = b"\xff" * layout.META_BYTES
    service.recovery.max_attempts = 1
    service.bury(tasker)
    ((entry, ending),) = service.lay_down()
    assert (entry.id, entry.data) == (2**63 - 1, b"")
    assert "its data is damaged" in str(ending.error)
    assert service.state(token) is S.DONE
