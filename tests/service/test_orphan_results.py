"""`orphan_results: deliver`: on_finish of a dead worker's successor hears of its tasks' results."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.test_task_options_survive import kill_all

NOTES = "finished.append((task_id, result))"


@pytest.fixture(name="service")
def a_service(make: Serve) -> Service:
    """One whose on_finish notes in the ledger what it hears of, and who it is."""
    service = make(orphan_results="deliver", worker_num=1)
    service.edit(NOTES, "note('heard', task_id, result, os.getpid())")
    return service.start()


def send(service: Service, count: int, expression: str = "ran({})") -> list[int]:
    """Let a worker send tasks and wait for none; return their ids."""
    ids: list[int] = service.ask(
        f"[server.task({expression!r}.format(n)).id for n in range({count})]"
    )
    return ids


def heard(service: Service) -> dict[int, int]:
    """Which results on_finish has heard of, by their ids."""
    return {row[0]: row[1] for row in service.ledger("heard")}


def release(service: Service, held: Path, ids: list[int]) -> None:
    """Let the tasks run, and wait until all is heard of and nothing is left."""
    held.unlink()
    service.wait_for(lambda: set(heard(service)) >= set(ids), 20)
    assert [heard(service)[number] for number in ids] == list(range(len(ids)))
    service.wait_for(lambda: service.status()["tasks"]["running"] == 0, 5)
    assert service.status()["tasks"]["unread"] == 0


def test_results_of_a_killed_worker_reach_on_finish_of_its_successor(service: Service) -> None:
    held = service.occupy(2)
    ids = send(service, 200)
    (victim,) = service.pids("worker")
    service.kill(victim)
    service.wait_for(lambda: service.pids("worker") not in ([], [victim]), 10)
    release(service, held, ids)
    assert victim not in {row[2] for row in service.ledger("heard")}
    assert len(service.runs()) == 200


def test_results_are_heard_of_although_worker_after_worker_is_killed(service: Service) -> None:
    held = service.occupy(2)
    ids = send(service, 200)
    held.unlink()
    for _ in range(5):
        seen = len(service.ledger("heard"))
        service.kill(service.wait_for(lambda: service.pids("worker"), 10)[0])
        service.wait_for(partial(has_gone_on, service, seen, ids), 10)
    service.wait_for(lambda: set(heard(service)) >= set(ids), 20)


def has_gone_on(service: Service, seen: int, ids: list[int]) -> bool:
    return len(service.ledger("heard")) > seen or set(heard(service)) >= set(ids)


def test_results_that_come_after_the_drain_reach_the_next_generation(service: Service) -> None:
    held = service.occupy(2)
    ids = send(service, 20, f"hold({str(held)!r}) and ran({{}})")
    (old,) = service.pids("worker")
    service.configure(max_wait_time=1)
    service.reload()
    service.wait_for_end(old, 15)
    release(service, held, ids)
    assert {row[2] for row in service.ledger("heard") if row[0] in ids} == set(
        service.pids("worker")
    )


def test_results_outlive_a_kill_of_the_master(service: Service) -> None:
    held = service.occupy(2)
    ids = send(service, 20)
    kill_all(service)
    service.start()
    release(service, held, ids)


def test_an_async_on_finish_is_waited_for(make: Serve) -> None:
    service = make(orphan_results="deliver", worker_num=1)
    service.edit("@server.on_finish\ndef finish(", "@server.on_finish\nasync def finish(")
    service.edit(NOTES, "await asyncio.sleep(0.01) or note('heard', task_id, result, os.getpid())")
    service.start()
    held = service.occupy(2)
    ids = send(service, 30)
    service.kill(service.pids("worker")[0])
    release(service, held, ids)


def test_a_result_that_ends_whoever_hears_of_it_is_given_up(make: Serve) -> None:
    service = make(orphan_results="deliver", worker_num=1)
    service.edit(NOTES, "result == 7 and os._exit(9)")
    service.start()
    send(service, 1, "3 + 4")
    service.wait_for(lambda: service.status()["tasks"]["unread"] == 1, 30)
    service.wait_for(lambda: "result given up: who hears of it dies" in service.log(), 5)
    assert service.task("1") == 1


def test_failures_are_not_heard_of_and_who_has_no_on_finish_has_results_counted(
    make: Serve,
) -> None:
    service = make(orphan_results="deliver", worker_num=1)
    service.edit("@server.on_finish\n", "")
    service.start()
    held = service.occupy(2)
    send(service, 5)
    send(service, 5, "fail({})")
    service.kill(service.pids("worker")[0])
    held.unlink()
    service.wait_for(lambda: service.status()["tasks"]["unread"] == 12, 15)  # the holders' too


@pytest.mark.parametrize("was", ["deliver", "count"])
def test_the_config_key_is_live(make: Serve, was: str) -> None:
    service = make(orphan_results=was, worker_num=1)
    service.edit(NOTES, "note('heard', task_id, result, os.getpid())")
    service.start()
    held = service.occupy(2)
    ids = send(service, 5, f"hold({str(held)!r}) and ran({{}})")
    service.configure(orphan_results="count" if was == "deliver" else "deliver")
    (old,) = service.pids("worker")
    service.reload()
    service.kill(old)
    held.unlink()
    if was == "count":
        service.wait_for(lambda: set(heard(service)) >= set(ids), 15)
    else:
        service.wait_for(lambda: service.status()["tasks"]["unread"] >= 5, 15)
        assert heard(service) == {}
