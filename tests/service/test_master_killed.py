"""kill -9 of the master: nothing survives it, nothing accepted is lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service, pause

SPINS = "__import__('re').match('(a+)+$', 'a' * 64 + 'b')"


def kill_master(service: Service, within: float = 1.0) -> None:
    """Kill it and assert that all others are gone within a second."""
    master = service.master
    service.kill(master)
    begun = time.monotonic()
    service.wait_for(lambda: not service.alive(), within, "the end of every process")
    assert time.monotonic() - begun < within


@pytest.mark.short
def test_children_are_gone_and_the_next_start_serves_at_once(service: Service) -> None:
    kill_master(service)
    assert service.run("status").returncode == 3
    assert service.run("stop").returncode == 3
    service.start()
    assert service.ask("VERSION") == "1"
    assert service.task("6 * 7") == 42


@pytest.mark.parametrize("call", ["spin()", SPINS, "time.sleep(600)"])
def test_worker_and_task_worker_in_a_long_c_call_are_gone_too(service: Service, call: str) -> None:
    service.ask(f"server.task({call!r}).id")
    with service.connect() as client:
        client.post(call)
        service.wait_for(lambda: service.status()["tasks"]["running"] == 1, 5)
        pause(0.2)
        kill_master(service)
    service.start()


def test_accepted_tasks_run_after_the_next_start(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('ran({})', 0, 100)")
    kill_master(service)
    held.unlink()
    service.start()
    service.wait_for(lambda: len(service.runs()) == 100, 10)
    assert service.runs() == dict.fromkeys(range(100), 1)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)


def test_running_task_runs_again_after_the_next_start(service: Service) -> None:
    service.ask("server.task('note(\"at\", task.attempt) or blocking(1) and ran(5)').id")
    service.wait_for(lambda: service.ledger("at"), 5)
    kill_master(service)
    service.start()
    service.wait_for(lambda: service.runs() == {5: 1}, 10)
    assert [row[0] for row in service.ledger("at")] == [1, 2]


def test_master_killed_again_and_again_loses_nothing(service: Service) -> None:
    service.ask("flood('blocking(0.02) and ran({})', 0, 100)")
    for _ in range(4):
        pause(0.3)
        kill_master(service)
        service.start()
    service.wait_for(lambda: len(service.runs()) == 100, 20)
    assert sum(service.runs().values()) <= 100 + 4 * 2  # twice only what ran at a kill


def test_queue_of_the_killed_master_is_cleared(service: Service) -> None:
    kill_master(service)
    service.start()
    assert len(leftovers.queues() - service.queues_before) <= 1
    service.stop()
    leftovers.prove_nothing_left(service)


def test_damaged_arena_is_set_aside_and_never_trusted(service: Service) -> None:
    service.occupy(2)
    service.ask("flood('ran({})', 0, 10)")
    kill_master(service)
    (arena,) = leftovers.arenas(service.root / "state")
    with arena.open("r+b") as file:
        file.write(b"\xff" * 64)
    done = service.ok("start")
    assert service.task("6 * 7") == 42
    set_aside = [p for p in Path(service.root / "state").rglob("*") if p.is_file()]
    assert len(set_aside) >= 2, "a damaged arena is never deleted"
    service.wait_for(lambda: "arena" in (done.stderr + service.log()).lower(), 5)
    service.keeps_tasks = True  # the one that was set aside


def test_truncated_arena_is_set_aside_too(service: Service) -> None:
    kill_master(service)
    for arena in leftovers.arenas(service.root / "state"):
        with arena.open("r+b") as file:
            file.truncate(1000)
    service.start()
    assert service.task("6 * 7") == 42
    service.keeps_tasks = True


def test_other_task_slots_after_a_kill_lose_no_task(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('ran({})', 0, 30)")
    kill_master(service)
    held.unlink()
    service.configure(task_slots=8192)
    service.run("start")
    service.wait_for(lambda: len(service.runs()) == 30, 10)
    assert service.runs() == dict.fromkeys(range(30), 1)


def test_commands_after_the_kill_leave_no_trace(serve: Serve) -> None:
    service = serve()
    kill_master(service)
    service.start()
    service.stop()
    leftovers.prove_nothing_left(service)
