"""The arena cut short or removed under a running service: said, ended by itself, and kept."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service


def arena(service: Service) -> Path:
    return service.root / "state" / "arena"


def ended_and_said_why(service: Service) -> None:
    """It is gone by itself, each process had one death at most, and a start makes all well."""
    service.wait_for(lambda: not service.alive(), 15, "the end of every process")
    log = service.log()
    assert "task arena lost: the service ends" in log
    assert str(arena(service)) in log
    assert "bytes instead of" in log
    assert "start the service again" in log
    assert log.count("died") <= 12, "no loop of crashes"
    assert "fault in the master" not in log
    assert service.run("status").returncode == 3
    assert leftovers.queues() == service.queues_before
    assert list((service.root / "state").glob("arena.damaged-*"))
    service.start()
    assert service.task("6 * 7") == 42
    service.keeps_tasks = True  # what was set aside


@pytest.mark.parametrize("size", [0, 4096, 100_000])
def test_an_arena_cut_short_while_tasks_run_ends_the_service(service: Service, size: int) -> None:
    service.occupy(2)
    service.ask("flood('ran({})', 0, 20)")
    os.truncate(arena(service), size)
    with service.connect() as client:
        client.post("flood('1', 0, 4000)")  # touches what is gone
        ended_and_said_why(service)


def test_an_idle_service_notices_when_it_is_looked_at(service: Service) -> None:
    os.truncate(arena(service), 0)
    service.run("status")
    ended_and_said_why(service)


def test_a_task_worker_that_it_kills_is_enough(service: Service) -> None:
    service.task("1")
    (task, *_) = service.pids("task")
    os.truncate(arena(service), 0)
    service.kill(task, signal.SIGBUS)
    ended_and_said_why(service)


def test_in_the_foreground_the_status_tells_it(make: Serve) -> None:
    """So that systemd starts it again."""
    service = make()
    process = service.start_foreground()
    os.truncate(arena(service), 0)
    service.run("status")
    assert process.wait(15) == 1
    out = service.root / "foreground.out"
    service.wait_for(lambda: "task arena lost" in service.log() + out.read_text(), 5)
    service.start()  # and ends well, now
    service.stop()
    service.keeps_tasks = True


def test_a_removed_arena_is_there_again_after_a_stop_with_tasks(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('ran({})', 0, 50)")
    arena(service).unlink()
    service.stop("--timeout", "0.5")
    assert arena(service).exists()
    held.unlink()
    service.start()
    service.wait_for(lambda: len(service.runs()) == 50, 10)
    assert service.runs() == dict.fromkeys(range(50), 1)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
