"""The arena among processes that race, die and read each other's words."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from procd.app import Server
from procd.ipc import inbox, layout, wire, words
from procd.ipc.inbox import Hint
from procd.ipc.layout import Damaged
from procd.ipc.scoreboard import Role
from procd.ipc.words import SlotState
from procd.linux import recordlock
from procd.tasks.reading import Reading
from procd.taskworker.runner import Runner
from tests.kernel.arenas import JUNK, Service, Someone, serving
from tests.kernel.forked import Child, Say, forked, outcome, wait_for_ever

RACERS = 3


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, slots=1024) as service:
        yield service


@pytest.fixture(name="worker")
def a_worker(service: Service) -> Someone:
    return service.someone(Role.WORKER)


@pytest.fixture(name="tasker")
def a_task_worker(service: Service) -> Someone:
    return service.someone(Role.TASK)


def accept(worker: Someone, slot: int, data: object = "work", dst: int = -1) -> int:
    packed = wire.pack(data)
    me = worker.arena.row, worker.arena.incarnation
    meta = (*me, 0, dst, 0, 5, len(packed), time.time(), 0)
    return worker.arena.accept(
        slot, packed, meta, SlotState.QUEUED if dst < 0 else SlotState.ADDRESSED
    )


def racing(stack: ExitStack, service: Service, race: object) -> list[Child]:
    """Processes of their own rows that begin race(someone) together, and then stand."""
    go, start = os.pipe()
    stack.callback(os.close, go)

    def racer(someone: Someone, say: Say) -> None:
        os.close(start)
        os.read(go, 1)  # EOF: all stand
        assert callable(race)
        say(" ".join(map(str, race(someone))))
        wait_for_ever(say)  # keeps its locks until all have raced

    children = []
    for _ in range(RACERS):
        someone = service.someone(Role.TASK)
        children.append(stack.enter_context(forked(partial(racer, someone))))
    os.close(start)
    return children


def lines(children: list[Child]) -> list[list[int]]:
    return [[int(number) for number in child.line().split()] for child in children]


# ---------------------------------------------------------------- one task


@pytest.mark.parametrize("failed", [False, True])
def test_a_task_goes_there_and_its_result_comes_back(
    service: Service,
    worker: Someone,
    tasker: Someone,
    failed: bool,  # noqa: FBT001 - a case
) -> None:
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot, {"n": 7})
    assert service.state(token) is SlotState.QUEUED
    claimed = tasker.arena.claim(token)
    assert claimed is not None
    attempt, meta, payload = claimed
    assert (attempt, wire.unpack(payload)) == (0, {"n": 7})
    assert (meta.src_row, meta.src_incarnation) == worker.seat[:2]
    assert service.slot(token).row == tasker.seat.row
    assert not worker.arena.is_done(token)
    tasker.arena.finish(token, b"result", failed=failed)
    assert worker.arena.is_done(token)
    assert worker.arena.result(token) == (b"result", failed)
    worker.arena.free(token)
    assert service.state(token) is SlotState.FREE


def test_the_next_use_of_a_slot_is_another_task(worker: Someone, tasker: Someone) -> None:
    (slot, *_) = worker.arena.lease()
    first = accept(worker, slot)
    tasker.arena.claim(first)
    tasker.arena.finish(first, b"1", failed=True)
    worker.arena.free(first)
    second = accept(worker, slot)
    assert second != first
    assert not worker.arena.is_done(first)
    assert tasker.arena.claim(first) is None
    assert tasker.arena.claim(second) is not None
    tasker.arena.finish(second, b"22", failed=False)
    assert worker.arena.result(second) == (b"22", False)


@pytest.mark.parametrize("token", [0, 1, JUNK, 2**64 - 1, words.token(5, 999)])
def test_a_token_that_names_nothing_is_dropped(tasker: Someone, token: int) -> None:
    assert tasker.arena.claim(token) is None


def test_a_payload_whose_length_cannot_be_is_damaged(worker: Someone, tasker: Someone) -> None:
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot)
    at = worker.arena.layout.body_at(slot)
    worker.arena.map[at : at + layout.META_BYTES] = b"\xff" * layout.META_BYTES
    with pytest.raises(Damaged):
        tasker.arena.claim(token)
    with pytest.raises(Damaged):
        worker.arena.result(token)


# ---------------------------------------------------------------- races


def test_of_doubled_tokens_each_has_exactly_one_winner(service: Service, worker: Someone) -> None:
    slots = [slot for _ in range(250) for slot in worker.arena.lease()]
    tokens = [accept(worker, slot) for slot in slots]

    def race(someone: Someone) -> list[int]:
        return [t for _ in range(4) for t in tokens if someone.arena.claim(t) is not None]

    with ExitStack() as stack:
        won = lines(racing(stack, service, race))
    assert len(tokens) == 1000
    assert sorted(token for tokens in won for token in tokens) == sorted(tokens)


def test_no_chunk_is_leased_twice(service: Service) -> None:
    def race(someone: Someone) -> list[int]:
        # All begin at the same chunk; by their own rows they would hardly meet.
        someone.arena.become(someone.seat.row * service.file.layout.chunks, 1)
        found: list[int] = []
        while leased := someone.arena.lease():
            found += leased
        return found

    with ExitStack() as stack:
        leased = lines(racing(stack, service, race))
    every = sorted(slot for slots in leased for slot in slots)
    assert every == list(range(service.file.layout.slots))
    assert layout.NOBODY not in service.file.owners()


def test_a_chunk_that_is_given_back_can_be_leased_again(service: Service, worker: Someone) -> None:
    while worker.arena.lease():
        pass
    worker.arena.give_back(3)
    other = service.someone(Role.WORKER)
    size = service.file.layout.chunk_slots
    assert other.arena.lease() == list(range(3 * size, 4 * size))
    assert other.arena.lease() == []


def test_kill_9_of_the_claimer_frees_the_lock_and_leaves_the_word_for_the_master(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot)

    def body(say: Say) -> None:
        assert tasker.arena.claim(token) is not None
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert recordlock.holder(service.file.fd, slot) == child.pid
        child.kill()
    assert recordlock.holder(service.file.fd, slot) == 0
    assert service.slot(token)[1:4] == (SlotState.RUNNING, 0, tasker.seat.row)


def test_a_task_whose_slot_is_still_looked_at_is_claimed_once_that_is_over(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    """By who has just finished the one before it there: this task has no other token."""
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot)
    assert recordlock.try_lock(service.file.fd, slot)
    real = recordlock.try_lock

    def body(say: Say) -> object:
        def telling(fd: int, offset: int) -> bool:
            is_mine = real(fd, offset)
            if not is_mine:
                say("locked")
            return is_mine

        pytest.MonkeyPatch().setattr(recordlock, "try_lock", telling)
        return tasker.arena.claim(token) is not None

    with forked(body) as child:
        assert child.line() == "locked"
        recordlock.unlock(service.file.fd, slot)
        while (line := child.line()) == "locked":
            pass
        assert line == "True"


def test_a_task_that_somebody_runs_is_not_claimed(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot)

    def body(say: Say) -> None:
        tasker.arena.claim(token)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert outcome(lambda: service.someone(Role.TASK).arena.claim(token)) == "None"


def test_finish_lets_go_of_the_slot(service: Service, worker: Someone, tasker: Someone) -> None:
    (slot, *_) = worker.arena.lease()
    token = accept(worker, slot)

    def body(say: Say) -> None:
        assert tasker.arena.claim(token) is not None
        tasker.arena.finish(token, b"", failed=False)
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert recordlock.holder(service.file.fd, slot) == 0


# ---------------------------------------------------------------- order


def test_when_the_hint_comes_the_result_stands_and_nothing_is_written_late(
    service: Service, worker: Someone, tasker: Someone
) -> None:
    """The slot is used again the moment its hint comes; a late DONE would land in the new use."""
    server = Server()
    server.on_task(lambda task: task.data)
    dispatcher = worker.dispatcher
    count = 1500

    def body(say: Say) -> None:
        runner = Runner(tasker.shared, server, tasker.cells)
        say("ready")
        while True:
            for token in service.queued():
                assert runner.run(token) is None

    def take(datagram: memoryview) -> None:
        item = inbox.parse(datagram)
        assert isinstance(item, Hint)
        assert item.token not in dispatcher.pending or worker.arena.is_done(item.token)
        dispatcher.take_hint(item.token)

    reading = Reading(dispatcher, worker.inbox, take)
    sent: dict[int, int] = {}
    with forked(body) as child:
        assert child.line() == "ready"
        while len(worker.results) < count:
            for number in range(len(sent), len(sent) + 4 - len(dispatcher.pending)):
                sent[dispatcher.dispatch(wire.pack(number)).id] = number
            reading.read()
    assert all(sent[token] == value and error is None for token, value, error in worker.results)


def test_a_word_is_never_seen_half_written(service: Service, worker: Someone) -> None:
    slot = service.file.layout.slots - 1
    one = words.pack(SlotState.QUEUED, 0, 0, 1)
    other = words.pack(SlotState.DONE, 63, 4095, words.MAX_EPOCH)
    worker.arena._set_word(slot, one)

    def body(say: Say) -> None:
        say("ready")
        write = worker.arena._set_word
        while True:
            write(slot, other)
            write(slot, one)

    read = worker.arena.word
    with forked(body) as child:
        assert child.line() == "ready"
        seen = {read(slot) for _ in range(1_000_000)}
    assert seen == {one, other}
