"""Pid files: true while the service lives, no obstacle when it does not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service


@pytest.fixture
def service(shared: Service) -> Service:
    return shared


@pytest.mark.short
def test_pid_files_name_master_and_workers_in_the_order_of_ids(service: Service) -> None:
    status = service.status()
    assert (service.run_dir / "master.pid").read_text().split() == [str(status["pid"])]
    by_id = sorted((p["id"], p["pid"]) for p in status["processes"] if "id" in p)
    assert service.seats() == [pid for _, pid in by_id]


def test_worker_pid_file_stays_true(serve: Serve) -> None:
    service = serve()
    service.reload()
    service.wait_for(lambda: service.seats() == ready_by_id(service), 2)
    service.kill(service.seats()[1])
    service.wait_for(lambda: len(ready_by_id(service)) == 4, 5)
    service.wait_for(lambda: service.seats() == ready_by_id(service), 2)
    service.ok("scale", "worker=1")
    service.wait_for(lambda: len(service.seats()) == 3, 5)
    assert service.seats() == ready_by_id(service)


def ready_by_id(service: Service) -> list[int]:
    rows = [p for p in service.status()["processes"] if p["state"] == "ready"]
    return [pid for _, pid in sorted((p["id"], p["pid"]) for p in rows if "id" in p)]


def test_worker_pid_file_is_never_half_written(service: Service) -> None:
    command = subprocess.Popen(service.argv("reload"), env=service.environment())
    seen = set()
    while command.poll() is None:
        text = (service.run_dir / "worker.pid").read_text()
        assert text == "" or text.endswith("\n")
        seen.add(len(text.split()))
    assert min(seen) >= 4  # a reload never leaves fewer ready than before
    assert command.returncode == 0


@pytest.mark.parametrize("content", ["", "no pid\n", "-1\n", "99999999999999\n", "\0" * 100])
def test_garbage_in_the_master_pid_file_is_overwritten(make: Serve, content: str) -> None:
    service = make()
    service.run_dir.mkdir()
    (service.run_dir / "master.pid").write_text(content)
    service.start()
    assert service.ask("VERSION") == "1"
    assert (service.run_dir / "master.pid").read_text().split() == [str(service.master)]


def test_pid_file_of_a_dead_process_is_stale(make: Serve) -> None:
    service = make()
    dead = subprocess.Popen(["true"])
    dead.wait()
    service.run_dir.mkdir()
    (service.run_dir / "master.pid").write_text(f"{dead.pid}\n")
    assert service.run("status").returncode == 3
    assert service.run("stop").returncode == 3
    service.start()
    assert service.ask("VERSION") == "1"


def test_pid_file_that_names_a_stranger_harms_nobody(make: Serve) -> None:
    # A reused pid: kill(pid, 0) says it lives, and it is not ours.
    service = make()
    service.run_dir.mkdir()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (service.run_dir / "master.pid").write_text(f"{stranger.pid}\n")
        for command in ("stop", "reload", "status"):
            assert service.run(command).returncode == 3, command
        service.start()
        assert service.ask("VERSION") == "1"
        service.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


def test_pid_file_of_another_service_is_respected(make: Serve, serve: Serve) -> None:
    first = serve()
    second = make(master_pid_file=str(first.run_dir / "master.pid"))
    done = second.run("start")
    assert done.returncode == 1
    assert str(first.master) in done.stderr
    assert first.ask("VERSION") == "1"
    assert (first.run_dir / "master.pid").read_text().split() == [str(first.master)]


def test_run_dir_of_another_service_is_respected(make: Serve, serve: Serve) -> None:
    first = serve()
    second = make(run_dir=str(first.run_dir), state_dir=str(first.root / "state"))
    done = second.run("start")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert first.ask("VERSION") == "1"
    assert first.task("6 * 7") == 42


def test_workers_do_not_hold_the_lock_of_the_master(service: Service) -> None:
    name = str(service.run_dir / "master.pid")
    for pid in service.seats():
        held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert name not in held


def test_pid_files_may_be_left_out(serve: Serve) -> None:
    service = serve(master_pid_file=None, worker_pid_file=None)
    assert service.ask("VERSION") == "1"
    assert list(service.run_dir.rglob("*.pid")) == []
    assert service.run("start").returncode == 1
    service.stop()


def test_pid_files_are_not_for_others_to_write(service: Service) -> None:
    for name in ("master.pid", "worker.pid"):
        mode = stat.S_IMODE((service.run_dir / name).stat().st_mode)
        assert not mode & 0o022


def test_deleted_pid_file_is_no_second_service(serve: Serve) -> None:
    service = serve()
    (service.run_dir / "master.pid").unlink()
    done = service.run("start")
    assert done.returncode == 1
    assert service.ask("VERSION") == "1"
    assert service.run("stop").returncode == 0
