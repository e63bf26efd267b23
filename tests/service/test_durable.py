"""The durable tier: what was accepted runs, though everything is killed and the arena is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, pause, scaled
from tests.service.test_dead_letters import ledger_pid, shown, tasks


def cut_the_power(service: Service, *, loses_arena: bool = True) -> None:
    """Kill every process at once; what was not synced may be gone then."""
    # The master first: it would replace the others.
    for pid in (service.master, *service.alive()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    service.wait_for(lambda: not service.alive(), 10)
    if loses_arena:
        (service.root / "state" / "arena").unlink()


def drained(service: Service) -> bool:
    counts = service.status()["tasks"]
    return counts["queued"] == counts["running"] == 0


@pytest.fixture(name="service")
def a_service(serve: Serve) -> Service:
    service = serve()
    ledger_pid(service)
    return service


@pytest.mark.short
def test_a_durable_task_runs_and_is_history(service: Service) -> None:
    assert service.ask("await remember.send(7)") == 7
    assert service.runs() == {7: 1}
    (found,) = service.wait_for(lambda: tasks(service, "--state", "done"), 10)
    assert (found["name"], found["attempts"]) == ("app.remember", 1)
    service.wait_for(lambda: drained(service), 5)


def test_its_slots_come_back(serve: Serve) -> None:
    service = serve(task_slots=256)
    for turn in range(5):
        assert service.ask(f"await stored({turn * 200}, 200)", 30) == 200
        service.wait_for(lambda turn=turn: len(service.runs()) == (turn + 1) * 200, 30)  # type: ignore[misc]
        service.wait_for(lambda: drained(service), 10)
    assert set(service.runs().values()) == {1}


@pytest.mark.parametrize("loses_arena", [True, False])
def test_what_was_accepted_runs_after_everything_was_killed(
    service: Service, *, loses_arena: bool
) -> None:
    held = service.occupy(2)
    assert service.ask("await stored(0, 100)") == 100
    cut_the_power(service, loses_arena=loses_arena)
    held.unlink()
    assert service.runs() == {}
    service.start()
    service.wait_for(lambda: len(service.runs()) == 100, 20)
    service.wait_for(lambda: drained(service), 10)
    assert service.runs() == dict.fromkeys(range(100), 1)
    ids = [task["id"] for task in tasks(service, "--state", "done")]
    assert len(set(ids)) == 100


def test_large_data_is_as_durable(service: Service) -> None:
    held = service.occupy(2)
    service.ask("await remember.send(1, 0).accepted() and 0")
    size = 300_000
    text = f"await add.options(delivery='durable').send('x' * {size}, 'y' * {size}).accepted()"
    service.ask(f"{text} and 0")
    cut_the_power(service)
    held.unlink()
    service.start()
    service.wait_for(lambda: len(tasks(service, "--state", "done")) == 2, 20)
    assert list((service.root / "state" / "spool").iterdir()) == []


def test_what_a_stop_keeps_runs_once(service: Service) -> None:
    held = service.occupy(2)
    service.ask("await stored(0, 20)")
    assert "22 tasks kept" in service.stop("--timeout", "0").stdout
    assert len(tasks(service, "--state", "queued")) == 20
    held.unlink()
    service.start()
    service.wait_for(lambda: len(service.runs()) == 20, 20)
    service.wait_for(lambda: drained(service), 10)
    assert set(service.runs().values()) == {1}


def test_what_a_stop_discards_does_not_run(service: Service) -> None:
    held = service.occupy(2)
    service.ask("await stored(0, 20)")
    service.stop("--timeout", "0", "--discard")
    held.unlink()
    assert len(tasks(service, "--state", "cancelled")) == 20
    service.start()
    assert service.task("1") == 1
    assert service.runs() == {}


def test_a_plain_handler_waits_for_acceptance_in_its_call(service: Service) -> None:
    assert service.task("(remember.send(3).accepted(10), 'then')[1]") == "then"
    service.wait_for(lambda: service.runs() == {3: 1}, 10)


def test_a_durable_task_that_raises_is_told_with_its_traceback(service: Service) -> None:
    answer = service.ask("await outcome(remember.send('x', 'no seconds'))")
    assert answer["error"] == "TaskFailed"
    (found,) = service.wait_for(lambda: tasks(service, "--state", "failed"), 10)
    assert "TypeError" in shown(service, found["id"])["traceback"]


def test_a_durable_task_that_kills_its_process_is_a_letter_and_runs_when_retried(
    serve: Serve,
) -> None:
    service = serve(task_max_attempts=2)
    answer = service.ask("await outcome(fatal.send())", 30)
    assert answer["error"] == "TaskFailed"
    (letter,) = tasks(service, "--state", "dead")
    assert (letter["name"], letter["how"]) == ("app.fatal", "SIGKILL")
    service.edit("def fatal() -> int:\n    os.kill(os.getpid(), 9)\n", "def fatal() -> int:\n")
    service.reload()
    service.ok("task", "retry", "--all")
    (done,) = service.wait_for(lambda: tasks(service, "--state", "done"), 10)
    assert done["id"] == letter["id"]


def test_who_waits_is_told_by_the_next_ledger(service: Service) -> None:
    service.kill(ledger_pid(service), signal.SIGSTOP)
    with service.connect() as client:
        client.post("await stored(0, 5)")
        service.wait_for(lambda: service.status()["tasks"]["queued"] == 5, 5)
        assert service.runs() == {}  # it is on no disk yet
        service.kill(ledger_pid(service))
        assert client.read_answer(20) == 5
    service.wait_for(lambda: len(service.runs()) == 5, 10)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "procd", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_is_told_to_who_waits_and_recovers_by_itself(make: Serve) -> None:
    service = make(task_slots=64, state_dir="state")
    with small_disk(service.root / "state") as folder:
        service.start()
        assert service.ask("await stored(0, 1)") == 1
        room = os.statvfs(folder)
        (folder / "filler").write_bytes(bytes((room.f_bavail - 2) * room.f_bsize))
        refused = {"error": "?"}
        for number in range(1, 100):
            refused = service.ask(f"await stored({number}, 1)")
            if refused != 1:
                break
        assert refused["error"] == "TaskRejected"
        assert "free some space" in refused["text"]
        service.wait_for(lambda: service.status()["ledger"]["error"], 5)
        (folder / "filler").unlink()
        assert service.wait_for(lambda: service.ask("await stored(1000, 1)") == 1, 10)
        service.wait_for(lambda: 1000 in service.runs(), 10)
        assert service.status()["ledger"]["error"] is None
        service.close()


@pytest.mark.heavy
def test_no_accepted_task_is_lost_while_the_whole_tree_is_killed(serve: Serve) -> None:
    """Each time everything at once; every second time the arena is lost with it."""
    service = serve(worker_num=2, task_worker_num=2)
    rng = random.Random(11)
    accepted: set[int] = set()
    for turn in range(scaled(60)):
        ledger_pid(service)
        first = turn * 1000
        with service.connect() as client:
            for batch in range(rng.randrange(1, 6)):
                start = first + batch * 50
                client.post(f"await stored({start}, 50, 0.001)")
                client.read_answer(20)
                accepted |= set(range(start, start + 50))
            client.post(f"await stored({first + 900}, 50)")  # perhaps: nobody waited for it
            pause(rng.random() / 50)
        cut_the_power(service, loses_arena=bool(turn % 2))
        service.start()
    service.wait_for(lambda: set(service.runs()) >= accepted, 60)
    service.wait_for(lambda: drained(service), 20)
    runs = service.runs()
    again = sum(count - 1 for count in runs.values())
    # Only what ran or was about to be noted when the power went may run twice.
    assert again <= 60 * scaled(60), again
    history: list[dict[str, Any]] = json.loads(
        service.ok("task", "list", "--state", "done", "--limit", "20000", "--json").stdout
    )
    assert len({task["id"] for task in history}) == len(history)


@pytest.mark.heavy
def test_no_accepted_task_is_lost_while_single_processes_are_killed(serve: Serve) -> None:
    service = serve(task_max_attempts=50, worker_num=3, task_worker_num=3)
    rng = random.Random(5)
    accepted: set[int] = set()
    for turn in range(scaled(400)):
        try:
            assert service.ask(f"await stored({turn * 10}, 10, 0.005)", 20) == 10
            accepted |= set(range(turn * 10, turn * 10 + 10))
        except (OSError, EOFError):
            pass  # its worker died before it could answer
        victims = [*service.wait_for(service.seats, 10), *service.pids("ledger")]
        service.kill(rng.choice(victims))
        if turn % 5 == 0:
            for pid in service.pids("ledger"):
                service.kill(pid)
    service.wait_for(lambda: set(service.runs()) >= accepted, 60)
    service.wait_for(lambda: drained(service), 20)
    ledger_pid(service)  # a stop before it is back would leave the log of the one that was killed
