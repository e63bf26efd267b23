"""Options of durable tasks, dead letters of what used up its retries, cancelling from a shell."""

from __future__ import annotations

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.test_dead_letters import ledger_pid, shown, tasks
from tests.service.test_durable import cut_the_power, drained

DURABLE = "delivery='durable'"


@pytest.fixture(name="service")
def a_service(serve: Serve) -> Service:
    service = serve()
    ledger_pid(service)
    return service


def accepted(service: Service, options: str, expression: str) -> None:
    """Let a worker send the durable task `work`; return when it is on the disk."""
    text = f"work.options({DURABLE}, {options}).send({expression!r})"
    assert service.ask(f"await {text}.accepted() or 'accepted'") == "accepted"


def is_over(service: Service) -> bool:
    return drained(service) and service.status()["tasks"]["delayed"] == 0


@pytest.mark.parametrize("loses_arena", [True, False])
def test_a_delay_outlives_a_power_cut(service: Service, *, loses_arena: bool) -> None:
    accepted(service, "delay=2", "tell('ran')")
    cut_the_power(service, loses_arena=loses_arena)
    service.start()
    ((_, at),) = service.wait_for(lambda: service.ledger("ran"), 20)
    (done,) = service.wait_for(lambda: tasks(service, "--state", "done"), 10)
    assert at >= done["accepted_at"] + 2
    service.wait_for(lambda: is_over(service), 10)
    assert len(service.ledger("ran")) == 1


@pytest.mark.parametrize("loses_arena", [True, False])
def test_a_delayed_task_is_cancelled_while_no_service_runs(
    service: Service, *, loses_arena: bool
) -> None:
    accepted(service, "delay=86400", "tell('ran')")
    cut_the_power(service, loses_arena=loses_arena)
    (waiting,) = tasks(service, "--state", "delayed")
    assert tasks(service, "--state", "queued") == []
    said = service.ok("task", "cancel", str(waiting["id"]))
    assert "1 task cancelled" in said.stdout
    service.start()
    ledger_pid(service)
    service.wait_for(lambda: is_over(service), 10)
    assert shown(service, waiting["id"])["state"] == "cancelled"
    assert service.ledger("ran") == []


def test_a_durable_task_is_tried_again_after_an_exception(service: Service) -> None:
    expression = "tell('ran') or 1 / (task.attempt - 1)"
    text = f"work.options({DURABLE}, retries=2, retry_delay=0.01).send({expression!r})"
    assert service.ask(f"await {text}") == 1
    assert [row[0] for row in service.ledger("ran")] == [1, 2]
    (done,) = service.wait_for(lambda: tasks(service, "--state", "done"), 10)
    assert done["attempts"] == 2


@pytest.mark.parametrize("delivery", ["at_least_once", "durable"])
def test_what_used_up_its_retries_is_a_dead_letter(service: Service, delivery: str) -> None:
    cure = service.root / "cured"
    expression = f"open({str(cure)!r}).close() or tell('ran')"
    options = f"delivery={delivery!r}, retries=2, retry_delay=0.01"
    answer = service.ask(f"await work.options({options}).send({expression!r})")
    assert answer["error"] == "TaskFailed"
    assert "FileNotFoundError" in answer["text"]
    (letter,) = tasks(service, "--state", "dead")
    assert (letter["attempts"], letter["how"]) == (3, "")
    assert "FileNotFoundError" in shown(service, letter["id"])["traceback"]
    cure.touch()
    service.ok("task", "retry", str(letter["id"]))
    assert service.wait_for(lambda: service.ledger("ran"), 10)[0][0] == 1
    service.wait_for(lambda: tasks(service) == [], 10)


def test_a_letter_whose_process_died_says_how_beside_its_timeout(service: Service) -> None:
    answer = service.ask("await work.options(timeout=0.1, max_attempts=1).send('spin()')", 30)
    assert answer["error"] == "TaskTimeout"
    (letter,) = tasks(service, "--state", "dead")
    assert letter["how"] == "SIGKILL"
    assert "longer than its timeout of 0.1 s" in letter["error"]


def test_tasks_are_cancelled_by_their_ids(service: Service) -> None:
    held = service.occupy(2)
    number = service.ask("work.send(\"tell('ran')\").id")
    running = [task["id"] for task in tasks(service, "--state", "running")]
    said = service.ok("task", "cancel", str(number), str(running[0]))
    assert "2 tasks cancelled" in said.stdout
    service.wait_for(lambda: service.status()["tasks"]["cancelled"] == 2, 10)
    held.unlink()
    service.wait_for(lambda: is_over(service), 10)
    assert service.ledger("ran") == []


def test_cancelling_what_is_no_task_or_is_over_says_so(service: Service) -> None:
    number = service.ask("[r := work.send('1'), await r][0].id")
    found = service.run("task", "cancel", str(number), "12345")
    assert found.returncode == 1
    assert f"no task that waits or runs: {number}, 12345" in found.stderr
