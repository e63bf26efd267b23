"""What a handler is cut short by, at the moments that a whole service meets once in a million."""

from __future__ import annotations

import asyncio
import signal
from asyncio import events
from collections.abc import Iterator
from pathlib import Path

import pytest

from procd.errors import TaskCancelled
from procd.ipc import terms
from procd.ipc.scoreboard import Role
from procd.tasks.limits import Limits
from tests.kernel.arenas import Service, accepted, claim, serving


@pytest.fixture(name="service")
def service_in_tmp(tmp_path: Path) -> Iterator[Service]:
    before = signal.getsignal(terms.NUDGE)
    with serving(tmp_path) as service:
        yield service
    signal.signal(terms.NUDGE, before)


def begun(service: Service) -> tuple[Limits, int]:
    """A task that is about to run here."""
    worker, tasker = service.someone(Role.WORKER), service.someone(Role.TASK)
    token = accepted(service, worker)
    claim(tasker, token)
    limits = Limits(tasker.arena, tasker.cells)
    limits.begin(token, 0)
    return limits, token


def nudge() -> None:
    signal.raise_signal(terms.NUDGE)


def test_a_nudge_of_one_who_has_no_task_in_hand_does_nothing(service: Service) -> None:
    limits, token = begun(service)
    nudge()
    limits.end()
    service.someone(Role.WORKER).arena.cancel(token)
    nudge()
    assert limits.raised is None


def test_a_task_that_was_cancelled_before_its_handler_is_called_is_not_begun(
    service: Service,
) -> None:
    limits, token = begun(service)
    service.someone(Role.WORKER).arena.cancel(token)
    nudge()  # too early: it raises nowhere
    ran: list[int] = []
    with pytest.raises(TaskCancelled):
        limits.call(lambda: ran.append(1))
    assert ran == []
    limits.end()


def test_an_error_is_put_into_a_handler_once(service: Service) -> None:
    limits, token = begun(service)
    other = service.someone(Role.WORKER).arena

    def handler() -> str:
        other.cancel(token)
        with pytest.raises(TaskCancelled):
            nudge()
        nudge()
        return "tidied up"

    assert limits.call(handler) == "tidied up"
    assert limits.kind == "cancelled"
    nudge()
    limits.end()


def test_the_loop_runs_again_though_an_error_came_where_it_was_put_back(service: Service) -> None:
    async def task_worker() -> bool:
        limits, _ = begun(service)
        loop = asyncio.get_running_loop()
        limits.raised = TaskCancelled("while the loop was put back")
        events._set_running_loop(None)  # as it stands then
        limits.end()
        return asyncio.get_running_loop() is loop

    assert asyncio.run(task_worker())
