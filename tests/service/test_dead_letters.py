"""A task that used up its attempts rests where a person finds it, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled

SEGFAULT = "os.kill(os.getpid(), 11)"
# Kills its process until the file is there.
FICKLE = "(os.path.exists({!r}) or os.kill(os.getpid(), 11))"


def tasks(service: Service, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(service.ok("task", "list", "--json", *options).stdout)
    return found


def shown(service: Service, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.ok("task", "show", str(number), "--json").stdout)
    return found


def ledger_pid(service: Service) -> int:
    return service.wait_for(lambda: service.pids("ledger"), 10)[0]


def die(service: Service, expression: str = SEGFAULT) -> None:
    """Have a task die until it is dead; return when its sender knows."""
    answer = service.ask(f"await server.task({expression!r})", 30)
    assert answer["error"] == "TaskFailed"


@pytest.fixture(name="service")
def a_service(serve: Serve) -> Service:
    return serve(task_max_attempts=2)


@pytest.mark.short
def test_a_dead_task_is_listed_with_the_signal_that_ended_it(service: Service) -> None:
    die(service)
    (letter,) = tasks(service, "--state", "dead")
    assert (letter["state"], letter["how"], letter["attempts"]) == ("dead", "SIGSEGV", 2)
    assert service.status()["tasks"]["dead"] == 1
    assert SEGFAULT in service.ok("task", "show", str(letter["id"])).stdout
    assert shown(service, letter["id"])["data"] == SEGFAULT


def test_a_letter_that_is_retried_runs_under_its_id(service: Service) -> None:
    cure = service.root / "cured"
    expression = FICKLE.format(str(cure)) + " and note('at', task.id, task.attempt)"
    die(service, expression)
    (letter,) = tasks(service)
    cure.touch()
    service.ok("task", "retry", str(letter["id"]))
    assert service.wait_for(lambda: service.ledger("at"), 10) == [[letter["id"], 1]]
    service.wait_for(lambda: tasks(service) == [], 5)
    assert service.status()["tasks"]["dead"] == 0
    assert shown(service, letter["id"])["state"] == "done"


def test_a_letter_that_dies_again_is_one_letter(service: Service) -> None:
    die(service)
    (before,) = tasks(service)
    service.ok("task", "retry", "--all")
    service.wait_for(lambda: service.log().count("task dead") == 2, 30)
    (after,) = service.wait_for(lambda: tasks(service, "--state", "dead"), 10)
    assert after["id"] == before["id"]
    assert after["finished_at"] > before["finished_at"]
    assert service.task("1", 30) == 1


def test_purged_letters_are_gone_and_the_file_with_them(service: Service) -> None:
    die(service)
    assert "1 task forgotten" in service.ok("task", "purge").stdout
    assert tasks(service) == []
    assert service.status()["tasks"]["dead"] == 0
    service.stop()
    assert not (service.root / "state" / "ledger.sqlite").exists()


def test_large_data_of_a_dead_task_is_kept_and_leaves_the_spool(service: Service) -> None:
    die(service, f"{'x' * 200_000!r} and {SEGFAULT}")
    (letter,) = tasks(service)
    assert letter["data_bytes"] > 200_000
    assert list((service.root / "state" / "spool").iterdir()) == []
    assert shown(service, letter["id"])["data"]["of_bytes"] == letter["data_bytes"]


def test_letters_outlive_a_stop_and_are_read_while_nobody_runs(service: Service) -> None:
    die(service)
    service.stop()
    (letter,) = tasks(service)
    assert letter["how"] == "SIGSEGV"
    assert service.run("task", "show", "5").returncode == 1
    service.start()
    assert service.status()["tasks"]["dead"] == service.wait_for(lambda: len(tasks(service)), 10)


def test_what_is_retried_while_nobody_runs_runs_at_the_next_start(service: Service) -> None:
    cure = service.root / "cured"
    die(service, FICKLE.format(str(cure)) + " and note('at', task.id)")
    service.stop()
    (letter,) = tasks(service)
    cure.touch()
    service.ok("task", "retry", str(letter["id"]))
    service.start()
    assert service.wait_for(lambda: service.ledger("at"), 10) == [[letter["id"]]]


def test_retrying_what_is_no_letter_says_so(service: Service) -> None:
    done = service.run("task", "retry", "77")
    assert done.returncode == 1
    assert "no dead letter: 77" in done.stderr
    assert service.run("task", "retry").returncode == 2


def test_a_dead_task_waits_for_its_ledger(serve: Serve) -> None:
    """The ledger stands still: nobody is told that the task is dead before it lies there."""
    service = serve(task_max_attempts=1)
    pid = ledger_pid(service)
    service.kill(pid, signal.SIGSTOP)
    with service.connect() as client:
        client.post(f"await server.task({SEGFAULT!r})")
        service.wait_for(lambda: service.status()["tasks"]["dead"] == 1, 10)
        service.kill(pid)
        assert client.read_answer(20)["error"] == "TaskFailed"
    assert [letter["how"] for letter in tasks(service)] == ["SIGSEGV"]


@pytest.mark.heavy
def test_no_letter_is_lost_while_the_ledger_is_killed(serve: Serve) -> None:
    service = serve(task_max_attempts=1, task_worker_num=3)
    count = scaled(200)
    for turn in range(count):
        service.ask(f"server.task('{SEGFAULT} or {turn}') and 0")
        if turn % 3 == 0:
            for pid in service.pids("ledger"):
                service.kill(pid)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 60 + count)
    service.wait_for(lambda: len(tasks(service, "--limit", "1000")) == count, 60)
    assert service.status()["tasks"]["dead"] == count


def test_a_dead_task_of_a_killed_master_is_buried_by_the_next(serve: Serve) -> None:
    service = serve(task_max_attempts=1)
    service.kill(ledger_pid(service), signal.SIGSTOP)
    service.ask(f"server.task({SEGFAULT!r}) and 0")
    service.wait_for(lambda: service.status()["tasks"]["dead"] == 1, 10)
    master = service.master
    service.kill(master)
    service.wait_for_end(master, 5)
    service.wait_for(lambda: not service.alive(), 5)
    service.start()
    (letter,) = service.wait_for(lambda: tasks(service), 10)
    assert letter["how"] == "SIGSEGV"


def test_queued_and_running_tasks_are_listed(service: Service) -> None:
    held = service.occupy(2)
    service.ask("server.task('1') and 0")
    states = [task["state"] for task in tasks(service)]
    assert sorted(states) == ["queued", "running", "running"]
    (queued,) = tasks(service, "--state", "queued")
    assert shown(service, queued["id"])["data"] == "1"
    held.unlink()
    service.wait_for(lambda: tasks(service) == [], 5)


def test_the_ledger_survives_reloads_and_is_replaced_when_it_dies(service: Service) -> None:
    pid = ledger_pid(service)
    service.reload()
    assert service.pids("ledger") == [pid]
    service.kill(pid)
    service.wait_for(lambda: service.pids("ledger") not in ([], [pid]), 10)
    die(service)
    assert len(tasks(service)) == 1


def test_a_ledger_of_a_newer_procd_is_said_and_the_rest_serves(make: Serve) -> None:
    service = make()
    state = service.root / "state"
    state.mkdir(mode=0o700)
    newer = "PRAGMA application_id = 1886544740; PRAGMA user_version = 99;"
    program = f"import sqlite3; sqlite3.connect('ledger.sqlite').executescript({newer!r})"
    subprocess.run([sys.executable, "-c", program], cwd=state, check=True)
    service.start()
    assert service.task("1") == 1
    service.wait_for(lambda: "this procd reads" in service.log(), 10)
    refused = service.run("task", "list")
    assert refused.returncode == 1
    assert "version 99" in refused.stderr
    assert service.status()["ledger"]["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the user")
def test_the_apps_user_cannot_open_the_file(make: Serve) -> None:
    service = make(user="nobody", task_max_attempts=1)
    service.root.chmod(0o755)
    service.ledger_path.touch()
    service.ledger_path.chmod(0o666)
    service.start()
    die(service)
    path = service.root / "state" / "ledger.sqlite"
    assert path.stat().st_uid == 0
    status = Path(f"/proc/{ledger_pid(service)}/status").read_text()
    assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    assert service.ask(f"attempt(open, {str(path)!r})")["error"] == "PermissionError"
    assert len(tasks(service)) == 1
