"""Nothing that was asked for a task is lost with the processes that knew of it."""

from __future__ import annotations

import random
import re

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled


def kill_all(service: Service) -> None:
    """End the master by SIGKILL; its processes go with it."""
    service.kill(service.master)
    service.wait_for(lambda: not service.alive(), 5)


def send(service: Service, options: str, expression: str, count: int = 1) -> None:
    """Have a worker send the task `work`, numbered, and not wait for it."""
    one = f"work.options({options}).send({expression!r}.format(n)).id"
    service.ask(f"[{one} for n in range({count})] and 0")


def test_delayed_tasks_are_kept_over_a_stop_and_run_when_they_are_due(serve: Serve) -> None:
    service = serve()
    send(service, "delay=0.3", "ran({})", 10)
    send(service, "delay=3", "ran(10 + {})", 10)
    stopped = service.stop()
    kept = re.search(r"(\d+) tasks kept", stopped.stdout + stopped.stderr)
    assert kept
    assert int(kept[1]) in range(10, 21)  # on a slow machine the first have run by now
    pause(0.3)
    service.start()
    # Due while nothing ran: at once; the others not before they are.
    service.wait_for(lambda: len(service.runs()) >= 10, 10)
    service.wait_for(lambda: len(service.runs()) == 20, 15)
    assert set(service.runs().values()) == {1}
    service.wait_for(lambda: service.status()["tasks"]["delayed"] == 0, 5)


def test_a_stop_waits_for_no_delayed_task(serve: Serve) -> None:
    service = serve(max_wait_time=60)
    send(service, "delay=3600", "ran({})", 3)
    assert "3 tasks kept" in service.ok("stop", timeout=20).stdout
    service.start()
    assert service.status()["tasks"]["delayed"] == 3
    assert "kept" not in service.ok("stop", "--discard").stdout


def test_delayed_tasks_outlive_a_kill_of_the_master(service: Service) -> None:
    send(service, "delay=0.5", "ran({})", 20)
    kill_all(service)
    service.start()
    service.wait_for(lambda: len(service.runs()) >= 20, 10)


def test_delayed_tasks_of_a_killed_dispatcher_run(service: Service) -> None:
    with service.connect() as client:
        victim = client.ask("os.getpid()")
        # It dies before its loop turns once more.
        client.post(
            "[work.options(delay=0.2).send(f'ran({n})').id for n in range(50)]"
            " and os.kill(os.getpid(), 9)"
        )
        service.wait_for_end(victim, 5)
    service.wait_for(lambda: len(service.runs()) == 50, 10)
    assert service.runs() == dict.fromkeys(range(50), 1)
    service.wait_for(lambda: service.status()["tasks"]["delayed"] == 0, 5)


def test_a_retry_outlives_the_process_that_failed_and_the_master(service: Service) -> None:
    expression = "note('at', task.attempt) or (fail(1) if task.attempt < 3 else ran({}))"
    send(service, "retries=5, retry_delay=0.4", expression)
    service.wait_for(lambda: len(service.ledger("at")) == 1, 5)
    for pid in service.pids("task"):
        service.kill(pid)
    service.wait_for(lambda: len(service.ledger("at")) == 2, 10)
    kill_all(service)
    service.start()
    service.wait_for(lambda: service.runs() == {0: 1}, 10)
    assert [row[0] for row in service.ledger("at")] == [1, 2, 3]


def test_a_task_that_may_run_once_does_not_run_again_after_a_kill_of_the_master(
    service: Service,
) -> None:
    send(service, "delivery='at_most_once'", "note('at', 1) or blocking(600)")
    service.wait_for(lambda: service.ledger("at"), 5)
    kill_all(service)
    service.start()
    assert service.task("1") == 1
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    assert len(service.ledger("at")) == 1
    assert service.status()["tasks"]["dead"] == 1


def test_a_cancelled_task_stays_cancelled_when_the_master_is_killed(service: Service) -> None:
    held = service.occupy(2)
    with service.connect() as client:
        client.ask("conn.state.update(refs=[work.send(f'ran({n})') for n in range(20)])")
        client.ask("[ref.cancel() for ref in conn.state['refs']]")
    kill_all(service)
    held.unlink()
    service.start()
    assert service.task("1") == 1
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    assert service.runs() == {}


def test_a_timeout_kill_loses_none_of_the_other_tasks(serve: Serve) -> None:
    service = serve(task_max_attempts=1)
    send(service, "timeout=0.05", "spin()", 2)
    send(service, "", "ran({})", 200)
    service.wait_for(lambda: len(service.runs()) == 200, 30)
    assert service.runs() == dict.fromkeys(range(200), 1)
    service.wait_for(lambda: service.status()["tasks"]["dead"] == 2, 10)


@pytest.mark.heavy
def test_every_task_with_options_runs_while_processes_are_killed(serve: Serve) -> None:
    service = serve(task_max_attempts=50, worker_num=3, task_worker_num=3)
    rng = random.Random(11)
    accepted: list[int] = []
    for turn in range(scaled(400)):
        first = turn * 10
        # Every second one fails the first time.
        expression = "(fail(1) if task.attempt == 1 and {0} % 2 else ran({0}))"
        options = "priority=1 + n % 9, delay=(n % 3) / 20, retries=60, retry_delay=0.02, timeout=30"
        one = f"work.options({options}).send({expression!r}.format(n)).id"
        try:
            service.ask(f"[{one} for n in range({first}, {first + 10})] and 0", 5)
            accepted += range(first, first + 10)
        except (OSError, EOFError):
            pass  # its worker died before it could answer
        service.kill(rng.choice(service.wait_for(service.seats, 10)))
        pause(rng.random() / 10)
    service.wait_for(lambda: set(service.runs()) >= set(accepted), 60)
    service.wait_for(lambda: not left(service), 20)
    assert service.status()["tasks"]["dead"] == 0


def left(service: Service) -> int:
    tasks = service.status()["tasks"]
    return tasks["queued"] + tasks["running"] + tasks["delayed"]
