"""`procd scale`, TTIN and TTOU: other counts, live."""

from __future__ import annotations

import signal

import pytest

from bench.load import Load, Plan
from tests.service.conftest import Serve
from tests.service.daemon import Service


def counts(service: Service) -> tuple[int, int]:
    return len(service.pids("worker")), len(service.pids("task"))


@pytest.mark.short
def test_scale_returns_when_the_new_count_is_ready(service: Service) -> None:
    service.ok("scale", "worker=3", "task=1")
    assert counts(service) == (3, 1)
    assert len(service.seats()) == 4


def test_scale_of_one_role_leaves_the_processes_of_the_other(service: Service) -> None:
    before = set(service.pids("worker"))
    service.ok("scale", "task=4")
    assert counts(service) == (2, 4)
    assert set(service.pids("worker")) == before


def test_scale_down_and_up_fails_no_request(service: Service) -> None:
    with Load(service.address, Plan(new=6, kept=3)) as load:
        for count in (1, 4, 2, 3):
            service.ok("scale", f"worker={count}")
            assert counts(service)[0] == count
    assert load.tally.failures == []


def test_scale_down_lets_running_tasks_finish(service: Service) -> None:
    service.ask("flood('note(\"begun\") or blocking(1) and ran({})', 0, 2)")
    service.wait_for(lambda: len(service.ledger("begun")) == 2, 5)
    service.ok("scale", "task=1")
    service.wait_for(lambda: len(service.runs()) == 2, 5)
    assert service.runs() == {0: 1, 1: 1}
    assert service.task("1") == 1


def test_ids_follow_the_counts_after_a_scale(service: Service) -> None:
    service.ok("scale", "worker=3")
    ids = [p["id"] for p in service.status()["processes"] if "id" in p and p["state"] == "ready"]
    assert sorted(ids) == [0, 1, 2, 3, 4]
    assert service.ask("await server.task('server.worker_id', 4)") == 4
    assert service.ask("await server.task('server.worker_id')") in {3, 4}


def test_scaled_counts_last_over_a_reload_and_end_with_a_restart(service: Service) -> None:
    service.ok("scale", "worker=3", "task=1")
    service.reload()
    assert counts(service) == (3, 1)
    service.ok("restart")
    assert counts(service) == (2, 2)


def test_edit_of_the_files_count_ends_the_scale(service: Service) -> None:
    service.ok("scale", "worker=3")
    service.configure(worker_num=4)
    service.reload()
    assert counts(service) == (4, 2)


def test_scale_that_makes_no_sense_is_a_usage_error(service: Service) -> None:
    for words in ([], ["worker"], ["worker=-1"], ["worker=many"], ["cook=3"]):
        done = service.run("scale", *words)
        assert done.returncode == 2, words
        assert "Traceback" not in done.stderr
    assert counts(service) == (2, 2)


def test_ttin_adds_a_worker_and_ttou_takes_one(service: Service) -> None:
    service.kill(service.master, signal.SIGTTIN)
    service.wait_for(lambda: counts(service) == (3, 2), 5)
    service.kill(service.master, signal.SIGTTOU)
    service.wait_for(lambda: counts(service) == (2, 2), 5)
    assert service.ask("VERSION") == "1"


def test_ttou_never_takes_the_last_worker(serve: Serve) -> None:
    service = serve(worker_num=1)
    service.kill(service.master, signal.SIGTTOU)
    service.kill(service.master, signal.SIGTTOU)
    assert service.ask("VERSION") == "1"
    assert counts(service) == (1, 2)


def test_scale_by_a_new_code_on_disk_still_uses_the_old(service: Service) -> None:
    service.app_path.write_text("half a fi")
    service.ok("scale", "worker=3")
    assert {service.ask("VERSION") for _ in range(10)} == {"1"}
