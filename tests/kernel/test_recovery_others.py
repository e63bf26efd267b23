"""What becomes of tasks when their dispatcher, their seat, the queue or the master goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.ipc import layout, wire, words
from procd.ipc.inbox import Addressed
from procd.ipc.scoreboard import TAKING, Cell, Role, Standing
from procd.ipc.words import SlotState
from procd.linux.sysv import MessageQueue, QueueGone
from tests.kernel.arenas import JUNK, Service, Someone, accepted, claim, finish, serving
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


def test_a_task_for_a_seat_that_is_no_more_goes_to_any(service: Service, worker: Someone) -> None:
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


def test_a_queue_that_somebody_removed_is_made_anew_and_refilled(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    waiting = worker.dispatcher.dispatch(wire.pack("work")).id
    old = service.queue.id
    service.queue.remove()
    missed: list[str] = []
    worker.shared.tokens.on_gone = lambda: missed.append("gone")
    unsent = worker.dispatcher.dispatch(wire.pack("work")).id
    assert len(worker.dispatcher.unsent) == 1
    assert missed
    service.recovery.queue_is_missed(1.0)
    assert service.tokens.queue.id != old
    worker.dispatcher.retry()
    assert worker.dispatcher.has_unsent is False
    received = {tasker.shared.tokens.receive() for _ in range(3)}  # one of them doubled
    assert received == {waiting, unsent}
    assert service.lease.queue == (0, 0)
    assert str(service.queue.id) in (service.folder / "lease").read_text()


def test_a_queue_that_is_not_missed_stays(service: Service) -> None:
    before = service.queue.id
    service.recovery.queue_is_missed(1.0)
    assert service.queue.id == before


def test_what_is_no_token_is_dropped_and_counted(service: Service, tasker: Someone) -> None:
    garbage: list[int] = []
    tasker.shared.tokens.on_garbage = lambda: garbage.append(1)
    for data in (b"", b"x" * 7, b"x" * 9, b"x" * 8000):
        service.queue.send(data, 1)
    service.queue.send(layout.WORD.pack(5), 9)
    assert tasker.shared.tokens.receive() == 5
    assert len(garbage) == 4


# ---------------------------------------------------------------- the next master


def test_what_a_killed_master_left_runs_again_over_a_new_queue(tmp_path: Path) -> None:
    with serving(tmp_path) as before:
        worker, tasker = before.someone(Role.WORKER), before.someone(Role.TASK)
        queued, running = accepted(before, worker), accepted(before, worker)
        addressed, done = accepted(before, worker, seat=0), accepted(before, worker)
        claim(tasker, running)
        finish(tasker, done)
        before.die()
        with serving(tmp_path) as after:
            with pytest.raises(QueueGone):
                MessageQueue.open(before.tokens.key)
            assert after.recovery.adopt(0.0) == 3
            assert sorted(after.queued()) == sorted([queued, running, addressed])
            assert (after.slot(running).attempt, after.slot(queued).attempt) == (1, 0)
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
