"""`procd queue status`, `clean` and `peek` without a key: the queues that are procd's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from procd.ipc import Queue
from procd.linux import sysv
from tests.kernel.queues import free_key
from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.ingress import Foreign
from tests.service.test_master_killed import kill_master


def page(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(service.ok("queue", "status", "--json").stdout)
    return found


def cleaned(service: Service, *options: str) -> dict[str, str]:
    """What of this service was found, each with why it was kept."""
    found = json.loads(service.ok("queue", "clean", "--json", *options).stdout)
    mine = [one for one in found if str(service.root) in one["config_path"]]
    return {one["kind"]: one["kept"] for one in mine}


def test_status_shows_queue_and_slots_by_state(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('1', 0, 5)")
    service.ask("work.options(delay=100).send('1').id")
    found = page(service)
    assert found["queue"]["messages"] == 5
    assert found["queue"]["bytes"] == 40
    assert found["queue"]["bytes_max"] >= 16384
    assert found["public_queue"] is None
    slots = found["slots"]
    assert (slots["queued"], slots["running"], slots["delayed"]) == (5, 2, 1)
    assert sum(slots.values()) == 4096
    text = service.ok("queue", "status").stdout
    assert "5 messages, 40 of" in text
    assert "5 queued" in text
    held.unlink()


def test_status_shows_the_public_queue(foreign: Foreign) -> None:
    service, queue = foreign()
    assert page(service)["public_queue"]["key"] == sysv.label(queue.key)


def test_status_of_a_service_that_does_not_run_shows_what_it_keeps(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('1', 0, 5)")
    service.stop("--timeout", "0")
    found = page(service)
    assert found["queue"] is None
    assert found["slots"]["queued"] == 7
    held.unlink()
    service.start()
    service.stop()
    assert page(service)["slots"] is None
    assert "no arena" in service.ok("queue", "status").stdout


def test_peek_without_a_key_shows_the_tasks_that_wait(service: Service) -> None:
    held = service.occupy(2)
    number = service.ask("work.options(priority=3).send('1').id")
    done = service.ok("queue", "peek", "--json")
    assert json.loads(done.stdout) == {"type": 3, "bytes": 8, "task": number}
    assert f"#0 priority 3: task {number}" in service.ok("queue", "peek").stdout
    held.unlink()
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    done = service.run("queue", "peek")
    assert (done.returncode, "no task waits" in done.stderr) == (1, True)
    service.stop()
    assert service.run("queue", "peek").returncode == 3


def test_clean_touches_nothing_of_a_service_that_runs(service: Service) -> None:
    before = leftovers.queues()
    assert cleaned(service) == {}
    assert leftovers.queues() == before
    assert service.task("6 * 7") == 42


def test_clean_removes_what_a_killed_master_left(service: Service) -> None:
    kill_master(service)
    wanted = {"queue": "", "arena": "", "record": ""}
    assert cleaned(service, "--dry-run") == wanted
    assert leftovers.queues() != service.queues_before
    assert cleaned(service, "--dry-run") == wanted
    assert cleaned(service) == wanted
    assert leftovers.queues() == service.queues_before
    assert leftovers.records(service.root) == []
    assert leftovers.arenas(service.root / "state") == []
    assert cleaned(service) == {}
    service.start()
    assert service.task("6 * 7") == 42


def test_clean_keeps_tasks_and_what_was_set_aside_and_says_what_to_do(service: Service) -> None:
    held = service.occupy(2)
    service.ask("flood('ran({})', 0, 5)")
    kill_master(service)
    aside = service.root / "state" / "arena.damaged-1"
    aside.write_text("something")
    kept = cleaned(service)
    assert "7 tasks are in it: procd -c" in kept["arena"]
    assert "rm it when you have" in kept["set aside"]
    assert (kept["queue"], kept["record"]) == ("", "")
    assert aside.exists()
    held.unlink()
    service.start()
    service.wait_for(lambda: len(service.runs()) == 5, 10)
    aside.unlink()


@pytest.mark.parametrize("count", [0, 2])
def test_clean_keeps_a_public_queue_with_messages(serve: Serve, count: int) -> None:
    key = free_key()
    service = serve("foreign.py", message_queue_key=key)
    kill_master(service)
    queue = Queue.open(key)
    for _ in range(count):
        queue.send(b"x")
    kept = cleaned(service)["public queue"]
    assert kept == (f"{count} messages are in it: procd start takes them" if count else "")
    service.start()
    service.wait_for(lambda: Queue.open(key).stat().messages == 0, 10)


def test_clean_believes_no_lease_that_names_another_queue(service: Service) -> None:
    """A queue is taken away only if its key and its id are those of the lease."""
    kill_master(service)
    other = Queue.create(free_key())
    try:
        lease = service.root / "state" / "lease"
        was = lease.read_text()
        pid, start, *_ = was.split()
        for name in (f"{other.key} 999999", f"{free_key()} 0", "x y"):
            lease.write_text(f"{pid} {start} {name}\n")
            assert "queue" not in cleaned(service, "--dry-run")
        other.send(b"still there")
        lease.write_text(was)
    finally:
        other.remove()
    service.start()
