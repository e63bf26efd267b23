"""What becomes of tasks when processes die, one kind of death after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.ipc import layout, wire, words
from procd.ipc.inbox import Addressed, Hint
from procd.ipc.scoreboard import TAKING, Cell, Role, Standing
from procd.ipc.words import SlotState
from procd.linux import recordlock
from procd.linux.sysv import MessageQueue, QueueGone
from tests.kernel.arenas import ATTEMPTS, JUNK, Service, Someone, serving
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


def accepted(service: Service, worker: Someone, *, seat: int = -1) -> int:
    """A task in the arena, its token out of the queue: somebody has it in hand."""
    token = worker.dispatcher.dispatch(wire.pack("work"), seat=seat).id
    service.queued()
    service.rings()
    return token


def claim(tasker: Someone, token: int) -> None:
    tasker.cells[Cell.CURRENT] = token
    assert tasker.arena.claim(token) is not None


def finish(tasker: Someone, token: int) -> None:
    tasker.cells[Cell.CURRENT] = token
    assert tasker.arena.claim(token) is not None
    tasker.arena.finish(token, wire.pack("result"), failed=False)


# ---------------------------------------------------------------- a task worker dies


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
    worker.dispatcher.take_missed()
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
    assert service.state(token) is S.DONE
    assert worker.mail() == [Hint(token)]
    worker.dispatcher.take_hint(token)
    (done,) = worker.results
    assert done[:2] == (token, None)
    assert "died 3 times (task_max_attempts); last SIGSEGV" in str(done[2])
    totals = service.recovery.totals
    assert (totals.retried, totals.dead) == (ATTEMPTS - 1, 1)


def test_who_is_killed_at_a_stop_costs_its_task_no_attempt(
    service: Service, worker: Someone
) -> None:
    token = accepted(service, worker)
    for _ in range(ATTEMPTS + 1):
        tasker = service.someone(Role.TASK)
        claim(tasker, token)
        service.bury(tasker, blame=False)
    assert (service.slot(token).state, service.slot(token).attempt) == (S.QUEUED, 0)


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


@pytest.mark.xfail(reason="FAULT: RUNNING for ever, kept by every stop, awaited for ever")
def test_a_slot_that_is_damaged_while_it_runs_comes_to_an_end(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    claim(tasker, token)
    at = service.file.layout.body_at(words.slot_of(token))
    worker.arena.map[at : at + layout.META_BYTES] = b"\xff" * layout.META_BYTES
    service.recovery.max_attempts = 1
    service.bury(tasker)
    assert service.state(token) in (S.DONE, S.FREE)


# ---------------------------------------------------------------- a dispatcher dies


def test_the_tasks_of_a_dead_dispatcher_run_and_then_its_slots_return(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    waiting, done = accepted(service, worker), accepted(service, worker)
    finish(tasker, done)
    service.bury(worker)
    assert service.queued() == [waiting]
    assert service.state(done) is S.FREE
    assert service.recovery.totals.unread == 1
    assert list(service.file.owners()).count(layout.ORPHAN) == 1
    assert service.recovery.next_sweep is not None

    finish(tasker, waiting)
    service.recovery.tick(service.recovery.next_sweep)
    assert set(service.file.owners()) == {layout.NOBODY}
    assert service.recovery.totals.unread == 2
    assert service.recovery.next_sweep is None


def test_a_chunk_of_a_dead_dispatcher_is_leased_by_nobody_while_its_tasks_are_in_it(
    service: Service, worker: Someone
) -> None:
    token = accepted(service, worker)
    service.bury(worker)
    other = service.someone(Role.WORKER, 1)
    leased = {slot for _ in range(service.file.layout.chunks) for slot in other.arena.lease()}
    assert words.slot_of(token) not in leased
    assert len(leased) == service.file.layout.slots - service.file.layout.chunk_slots


def test_the_chunks_of_others_stay_theirs(service: Service, worker: Someone) -> None:
    other = service.someone(Role.WORKER, 1)
    token = accepted(service, other)
    service.bury(worker)
    assert service.state(token) is S.QUEUED
    assert layout.owner_word(other.seat.row, other.seat.incarnation) in service.file.owners()


# ---------------------------------------------------------------- addressed tasks


def test_what_a_seats_process_had_not_begun_goes_to_its_successor(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker, seat=0)
    assert tasker.mail() == [Addressed(token)]
    successor = service.someone(Role.TASK, 0)
    service.bury(tasker)
    assert successor.mail() == [Addressed(token)]
    assert service.state(token) is S.ADDRESSED


@pytest.mark.xfail(
    raises=ValueError, reason="FAULT: a row once emptied is Role(0) for who looks at all seats"
)
def test_an_addressed_task_waits_until_somebody_sits_there(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker, seat=0)
    service.bury(tasker)
    successor = service.someone(Role.TASK, 0, standing=Standing.BOOTING)
    assert service.recovery.next_retry is not None
    service.scoreboard.stand(successor.seat.row, successor.seat.pid, Standing.SERVING)
    service.recovery.tick(service.recovery.next_retry)
    assert successor.mail() == [Addressed(token)]
    assert service.recovery.next_retry is None


def test_a_task_for_a_seat_that_is_no_more_goes_to_any(
    service: Service, worker: Someone
) -> None:
    last = service.someone(Role.TASK, 1)
    token = accepted(service, worker, seat=1)
    service.scoreboard.set_counts(2, 1)
    service.bury(last)
    service.recovery.retry(1.0)
    assert service.state(token) is S.QUEUED
    assert service.queued() == [token]


def test_an_addressed_task_that_runs_is_not_taken_away(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker, seat=0)

    def body(say: Say) -> None:
        claim(tasker, token)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        before = service.slot(token)._replace(state=S.ADDRESSED, row=0)
        assert not service.file.unaddress(before)
        assert service.state(token) is S.RUNNING


@pytest.mark.xfail(
    reason="FAULT: accepted and lost: nobody tells the seat if the dispatcher dies before it did"
)
def test_a_dispatcher_killed_before_it_told_the_seat_loses_no_addressed_task(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    service.fill_inbox(tasker)  # so that it could not tell; or it was killed one line earlier
    token = worker.dispatcher.dispatch(wire.pack("work"), seat=0).id
    assert Addressed(token) not in tasker.mail()
    service.bury(worker)
    service.recovery.retry(1.0)
    assert tasker.mail() == [Addressed(token)]


# ---------------------------------------------------------------- the queue


def test_tokens_wait_for_room_in_a_full_queue(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    tokens = [accepted(service, worker) for _ in range(5)]
    tasker.cells[Cell.CURRENT] = TAKING
    full = service.fill_queue()
    assert full > 1000
    service.bury(tasker)
    assert service.recovery.next_retry is not None
    assert service.queued() == [JUNK] * full
    service.recovery.tick(service.recovery.next_retry)
    assert sorted(service.queued()) == sorted(tokens)
    assert service.recovery.next_retry is None


def test_a_token_that_is_claimed_meanwhile_is_not_sent_any_more(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    token = accepted(service, worker)
    service.fill_queue()
    tasker.cells[Cell.CURRENT] = token
    service.bury(tasker)
    other = service.someone(Role.TASK, 1)
    finish(other, token)
    service.queued()
    service.recovery.retry(1.0)
    assert service.queued() == []
    assert service.recovery.next_retry is None


def test_a_queue_that_somebody_removed_is_no_fault(service: Service, worker: Someone) -> None:
    service.queue.remove()
    token = worker.dispatcher.dispatch(wire.pack("work")).id
    service.bury(worker)
    assert service.state(token) is S.QUEUED
    assert service.recovery.next_retry is not None


# ---------------------------------------------------------------- the next master


def test_what_a_killed_master_left_runs_again_over_a_new_queue(tmp_path: Path) -> None:
    with serving(tmp_path) as before:
        worker, tasker = before.someone(Role.WORKER), before.someone(Role.TASK)
        queued, running = accepted(before, worker), accepted(before, worker)
        addressed, done = accepted(before, worker, seat=0), accepted(before, worker)
        claim(tasker, running)
        finish(tasker, done)
        with serving(tmp_path) as after:
            with pytest.raises(QueueGone):
                MessageQueue.open(before.queue.key)
            assert after.recovery.adopt(0.0) == 3
            assert sorted(after.queued()) == sorted([queued, running, addressed])
            assert after.slot(running).attempt == 0
            assert after.state(done) is S.FREE
            assert {*after.file.owners()} == {layout.ORPHAN, layout.NOBODY}


def test_a_stop_keeps_and_counts_what_is_left(service: Service, worker: Someone) -> None:
    for _ in range(4):
        accepted(service, worker)
    assert service.stop() == 4
    with serving(service.folder) as after:
        assert after.recovery.adopt(0.0) == 4
        assert after.stop(discard=True) == 0
    assert not service.path.exists()
