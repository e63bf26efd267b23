"""`procd stop` and `restart`: what runs finishes, what waits is kept, nothing is left behind."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service, scaled


def test_stop_without_a_service_exits_3(make: Serve) -> None:
    service = make()
    for command in (["stop"], ["reload"], ["scale", "worker=1"], ["status"]):
        done = service.run(*command)
        assert done.returncode == 3, command
        assert "Traceback" not in done.stderr


@pytest.mark.short
def test_stop_returns_when_every_process_is_gone(service: Service) -> None:
    service.stop()
    assert service.alive() == set()
    assert service.run("status").returncode == 3
    leftovers.prove_nothing_left(service)


def test_stop_lets_a_request_finish(service: Service) -> None:
    with service.connect() as client:
        client.post("await slowly(1)")
        service.wait_for(lambda: sum(p["connections"] for p in service.processes("worker")), 5)
        service.stop()
        assert client.read_answer()["version"] == "1"


def test_stop_lets_a_running_task_finish(service: Service) -> None:
    service.ask("server.task('note(\"begun\") or blocking(1) and ran(1)').id")
    service.wait_for(lambda: service.ledger("begun"), 5)
    service.stop()
    assert service.runs() == {1: 1}


def test_stop_runs_what_is_queued_while_there_is_time(service: Service) -> None:
    assert service.ask("flood('blocking(0.05) and ran({})', 0, 20)") == 20
    service.stop()
    assert service.runs() == dict.fromkeys(range(20), 1)


def test_stop_kills_what_outlasts_max_wait_time(serve: Serve) -> None:
    service = serve(max_wait_time=1)
    with service.connect() as client:
        client.post("note('begun') or spin()")
        service.wait_for(lambda: service.ledger("begun"), 5)
        begun = time.monotonic()
        service.stop()
        assert time.monotonic() - begun < 2.5


def test_stop_timeout_shortens_the_wait(serve: Serve) -> None:
    service = serve(max_wait_time=30)
    with service.connect() as client:
        client.post("await slowly(60)")
        assert service.ask("VERSION") == "1"
        begun = time.monotonic()
        service.stop("--timeout", "0.5")
        assert time.monotonic() - begun < 2.5


def queue_more_than_can_run(service: Service, count: int) -> Path:
    """Hold both task workers until the stop is over, so that all of *count* tasks wait."""
    held = service.occupy(2)
    assert service.ask(f"flood('ran({{}})', 0, {count})", 60) == count
    return held


@pytest.mark.heavy
def test_stop_keeps_queued_tasks_for_the_next_start(serve: Serve) -> None:
    count = scaled(10_000)
    service = serve(max_wait_time=2, task_slots=16384)
    held = queue_more_than_can_run(service, count)
    begun = time.monotonic()
    done = service.stop()
    assert time.monotonic() - begun < 2 + 1 + 0.5  # and half a second for the interpreter
    kept = re.search(r"(\d+) tasks kept", done.stdout + done.stderr)
    assert kept
    assert int(kept[1]) == count + 2  # those that ran when the time was over are kept too
    held.unlink()
    service.start()
    service.wait_for(lambda: len(service.runs()) == count, 30)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 5)
    assert service.runs() == dict.fromkeys(range(count), 1)


def test_stop_discard_drops_what_is_queued(serve: Serve) -> None:
    service = serve(max_wait_time=1)
    held = queue_more_than_can_run(service, 50)
    done = service.stop("--discard")
    held.unlink()
    assert "kept" not in done.stdout
    leftovers.prove_nothing_left(service)
    service.start()
    assert service.task("ran('after')") == "after"
    assert service.runs() == {"after": 1}


def test_kept_tasks_keep_their_ids_apart_from_new_ones(serve: Serve) -> None:
    service = serve(max_wait_time=1)
    held = queue_more_than_can_run(service, 5)
    before = service.ask("server.task('note(\"id\", task.id)').id")
    service.stop()
    held.unlink()
    service.start()
    service.wait_for(lambda: service.ledger("id") == [[before]], 10)
    assert service.ask("[server.task('1').id for _ in range(200)]").count(before) == 0


def test_on_worker_stop_runs_in_every_worker(service: Service) -> None:
    service.stop()
    assert sorted(row[0] for row in service.ledger("stopped")) == [0, 1, 2, 3]


def test_restart_brings_a_new_master(service: Service) -> None:
    before = service.master
    service.ok("restart")
    assert service.master != before
    assert service.ask("VERSION") == "1"


def test_restart_into_a_bad_config_leaves_the_old_service(service: Service) -> None:
    before = service.master
    service.config_path.write_text("worker_num: many\n")
    done = service.run("restart")
    assert done.returncode == 2
    assert service.master == before
    assert service.ask("VERSION") == "1"


def test_restart_into_a_broken_app_leaves_the_old_service(service: Service) -> None:
    before = service.master
    service.edit('VERSION = "1"', "VERSION = ")
    done = service.run("restart")
    assert done.returncode != 0
    assert "SyntaxError" in done.stderr
    assert service.master == before
    assert service.ask("VERSION") == "1"


def test_stop_works_however_broken_the_config_is_by_now(service: Service) -> None:
    service.config_path.write_text("run_dir: [\x00\n  : elsewhere")
    assert service.run("status", "--json").returncode == 0
    assert service.run("stop").returncode == 0
    assert service.alive() == set()


def test_commands_work_without_the_control_socket(service: Service) -> None:
    sockets = [p for p in service.run_dir.iterdir() if p.is_socket()]
    assert len(sockets) == 1
    before = service.master
    sockets[0].unlink()
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.run("reload")
    service.wait_for(lambda: "generation=2" in service.log(), 10)
    done = service.run("stop")
    assert done.returncode == 0
    assert before not in service.alive()
