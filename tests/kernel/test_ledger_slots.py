"""The slots that wait for the ledger: who may run, free or answer for them, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import TaskRejected, TaskTimeout
from procd.ipc import layout, wire
from procd.ipc.doorbell import Bell
from procd.ipc.scoreboard import Role
from procd.ipc.words import IllegalChange, SlotState
from procd.ledger.schema import State
from procd.ledger.slots import LedgerArena
from procd.tasks import failure
from tests.kernel.arenas import Service, Someone, claim, serving

S = SlotState
NAMED = wire.pack(["app.add", [1], {}])


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path) as service:
        yield service


@pytest.fixture(name="worker")
def a_worker(service: Service) -> Someone:
    return service.someone(Role.WORKER)


@pytest.fixture(name="ledger")
def a_ledger(service: Service) -> LedgerArena:
    return LedgerArena(service.file.fd, service.file.layout, service.file.spool)


DURABLE_NAMED = layout.NAMED | layout.DURABLE


def sent(worker: Someone) -> int:
    """A durable task that was just sent."""
    return worker.dispatcher.dispatch(NAMED, flags=DURABLE_NAMED).id


def run(service: Service, token: int, *, failed: bool = False) -> None:
    tasker = service.someone(Role.TASK)
    claim(tasker, token)
    packed = failure.pack("ValueError: no", "line 1", 200) if failed else wire.pack(3)
    tasker.arena.finish(token, packed, failed=failed)


def test_a_durable_task_is_held_back_and_rings_for_the_ledger(
    service: Service, worker: Someone, ledger: LedgerArena
) -> None:
    token = sent(worker)
    assert service.state(token) is S.HELD
    assert service.queued() == []
    assert service.ledger.answer()
    assert ledger.look() == ([token], [], [])
    assert service.someone(Role.TASK).arena.claim(token) is None
    entry = ledger.entry(token)
    assert (entry.id, entry.name, entry.data) == (token, "app.add", NAMED)


def test_an_admitted_task_runs_and_its_slot_waits_for_the_note_that_it_is_over(
    service: Service, worker: Someone, ledger: LedgerArena
) -> None:
    token = sent(worker)
    ledger.admit(token)
    run(service, token)
    worker.dispatcher.take_hint(token)
    assert worker.results == [(token, 3, None)]
    assert service.state(token) is S.DONE
    assert ledger.look() == ([], [], [token])
    assert ledger.ending(token).state is State.DONE
    ledger.settle(token)
    worker.dispatcher.take_hint(token)
    assert service.state(token) is S.FREE
    assert len(worker.results) == 1


def test_the_slot_of_a_dead_dispatcher_waits_for_that_note_as_well(
    service: Service, worker: Someone, ledger: LedgerArena
) -> None:
    token = sent(worker)
    ledger.admit(token)
    run(service, token, failed=True)
    service.bury(worker)
    service.recovery.sweep(0.0)
    assert service.state(token) is S.DONE
    ending = ledger.ending(token)
    assert (ending.state, ending.error, ending.traceback) == (
        *(State.FAILED, "ValueError: no"),
        "line 1",
    )
    ledger.settle(token)
    service.recovery.sweep(0.0)
    assert service.state(token) is S.FREE


def test_a_task_that_is_put_in_again_keeps_its_id_and_is_not_held(
    service: Service, worker: Someone, ledger: LedgerArena
) -> None:
    told = (0, -1, DURABLE_NAMED, 5, len(NAMED), time.time(), 77)
    worker.dispatcher.put(NAMED, told, 0.0, b"")
    (token,) = worker.dispatcher.pending
    assert service.state(token) is S.QUEUED
    assert ledger.entry(token).id == 77
    assert worker.dispatcher.pending[token].id == 77


def test_who_waits_for_acceptance_is_woken_or_told_that_there_is_no_room(
    worker: Someone, ledger: LedgerArena
) -> None:
    async def wait(token: int, *, refused: bool) -> None:
        ref = worker.dispatcher.pending[token]
        assert ref.acceptance is not None
        waiter = asyncio.create_task(ref.acceptance.wait())
        await asyncio.sleep(0)
        assert not waiter.done()
        if refused:
            ledger.refuse(token, failure.pack("the disk is full", "", 200))
        else:
            ledger.admit(token)
        worker.dispatcher.take_hint(token)
        await waiter

    asyncio.run(wait(sent(worker), refused=False))
    with pytest.raises(TaskRejected, match="the disk is full"):
        asyncio.run(wait(sent(worker), refused=True))


def test_without_a_loop_the_call_itself_waits(worker: Someone, ledger: LedgerArena) -> None:
    token = sent(worker)
    ref = worker.dispatcher.pending[token]
    with pytest.raises(TaskTimeout, match="not accepted within"):
        ref.accepted(0.01)
    ledger.admit(token)
    ref.accepted(0.01)


def test_a_refused_task_gives_its_slot_free(
    service: Service, worker: Someone, ledger: LedgerArena
) -> None:
    token = sent(worker)
    ledger.refuse(token, failure.pack("the disk is full", "", 200))
    worker.dispatcher.take_hint(token)
    assert service.state(token) is S.FREE
    ((_, _, error),) = worker.results
    assert "the disk is full" in str(error)


def test_the_ledger_lets_nothing_run_that_is_not_held(worker: Someone, ledger: LedgerArena) -> None:
    token = sent(worker)
    ledger.admit(token)
    with pytest.raises(IllegalChange):
        ledger.admit(token)


def test_a_bell_that_was_rung_often_is_answered_once() -> None:
    bell = Bell()
    assert not bell.answer()
    for _ in range(3):
        bell.ring()
    assert (bell.answer(), bell.answer()) == (True, False)


def test_a_task_that_moves_on_while_the_ledger_looks_is_still_seen(
    service: Service, worker: Someone, ledger: LedgerArena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missed by a new ledger it would be put in once more, and run twice though nobody died."""
    tokens = [sent(worker) for _ in range(3)]
    for token in tokens:
        ledger.admit(token)
    seen = ledger._states(0, ledger.layout.slots)
    tasker = service.someone(Role.TASK)
    claim(tasker, tokens[0])
    run(service, tokens[1])
    monkeypatch.setattr(ledger, "_states", lambda *_: seen)
    found = {token: state for token, state, _, _ in ledger.live()}
    assert found == {tokens[0]: S.RUNNING, tokens[2]: S.QUEUED}
    monkeypatch.undo()
    assert ledger.look().over == [tokens[1]]
