"""How a service ends: who goes when, and what is still run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import Share, Want
from procd.master.states import Row, Seat, State, ingress_seat
from procd.master.stopping import LOOK_SECONDS, Stopping
from tests.pure.world import row

NOW = 10.0
WORKERS = Share(Role.WORKER, 1, 2, serves=True)
TASKS = Share(Role.TASK, 1, 2, serves=True)
BOOTING = (Share(Role.WORKER, 2, 2, serves=False), Share(Role.TASK, 2, 2, serves=False))
SERVING = Want((WORKERS, TASKS), 3)
NOTHING = Want((), 3)

worker = row(1, Seat(Role.WORKER, 0, 1), State.DRAINING, NOW + 30)
task = row(2, Seat(Role.TASK, 0, 1), State.SERVING)


def asked(*, discard: bool = False, seconds: float = 30.0) -> Stopping:
    stopping = Stopping()
    stopping.ask(NOW + seconds, discard=discard)
    return stopping


def tasks(queued: int, running: int = 0) -> Callable[[], tuple[int, int]]:
    return lambda: (queued, running)


def after(
    stopping: Stopping,
    rows: list[Row],
    queued: int = 5,
    now: float = NOW,
    serving: Want = SERVING,
) -> Want:
    stopping.advance(rows, serving, tasks(queued), now)
    return stopping.want(serving)


def test_workers_go_first_and_task_workers_stay_for_them() -> None:
    assert asked().want(SERVING).shares == (TASKS,)
    assert after(asked(), [worker, task], queued=0).shares == (TASKS,)


def test_a_generation_that_boots_is_not_wanted_any_more() -> None:
    assert asked().want(Want((WORKERS, TASKS, *BOOTING), 2)) == Want((TASKS,), 2)


def test_without_workers_what_is_queued_still_runs() -> None:
    stopping = asked()
    assert after(stopping, [task], queued=1).shares == (TASKS,)
    stopping.advance([task], SERVING, tasks(0, 1), NOW)
    assert stopping.want(SERVING).shares == (TASKS,)
    assert after(stopping, [task], queued=0) == NOTHING


def test_at_the_deadline_everybody_goes() -> None:
    assert after(asked(), [worker, task], now=NOW + 29.9).shares == (TASKS,)
    assert after(asked(), [worker, task], now=NOW + 30) == NOTHING


def test_a_stop_that_discards_waits_for_workers_but_for_no_task() -> None:
    assert after(asked(discard=True), [worker, task]).shares == (TASKS,)
    assert after(asked(discard=True), [task]) == NOTHING


@pytest.mark.parametrize("serving", [(WORKERS,), (WORKERS, replace(TASKS, count=0)), BOOTING])
def test_without_task_workers_nobody_waits_for_tasks_that_cannot_run(
    serving: tuple[Share, ...],
) -> None:
    assert after(asked(), [], serving=Want(serving, 3)) == NOTHING


def test_workers_are_waited_for_also_where_no_task_can_run() -> None:
    stopping, alone = asked(), Want((WORKERS,), 3)
    stopping.advance([worker], alone, tasks(0), NOW)
    assert stopping.due(NOW) == NOW + LOOK_SECONDS
    stopping.advance([], alone, tasks(0), NOW)
    assert stopping.due(NOW) == inf


def test_a_task_worker_that_is_being_replaced_is_waited_for() -> None:
    """The only one crashed during the stop; its successor boots and could run what is queued."""
    booting = row(3, Seat(Role.TASK, 0, 1), State.BOOTING, NOW + 30)
    assert after(asked(), [booting]).shares == (TASKS,)
    assert after(asked(), []).shares == (TASKS,)  # between the one and the other


def test_once_the_task_workers_may_go_they_are_not_called_back() -> None:
    stopping = asked()
    assert after(stopping, [task], queued=0) == NOTHING
    assert after(stopping, [task], queued=5) == NOTHING


def test_asking_again_can_only_hurry() -> None:
    stopping = asked()
    stopping.ask(NOW + 99, discard=False)
    assert stopping.deadline == NOW + 30
    stopping.ask(NOW, discard=True)
    assert stopping.deadline == NOW
    stopping.ask(NOW + 5, discard=False)
    assert (stopping.deadline, stopping.discards) == (NOW, True)


def test_it_looks_again_soon_until_the_task_workers_may_go() -> None:
    assert Stopping().due(NOW) == inf
    stopping = asked()
    assert stopping.due(NOW) == NOW + LOOK_SECONDS
    assert asked(seconds=0.01).due(NOW) == NOW + 0.01
    after(stopping, [], queued=0)
    assert stopping.due(NOW) == inf


def test_task_workers_stay_for_an_ingress_that_owes_answers() -> None:
    ingress = row(3, ingress_seat(0), State.DRAINING, NOW + 30)
    assert after(asked(), [ingress, task], queued=0).shares == (TASKS,)
    assert after(asked(seconds=0), [ingress, task], queued=0) == NOTHING
