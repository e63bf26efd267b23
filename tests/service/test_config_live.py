"""An edit of the running service's config: by the watch and by `procd reload`, under load."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess

import pytest

from tests.service.edits import BOTH_WAYS, Begin, apply, loaded, restore, serves

LEVEL = "__import__('logging').getLogger('procd').level"
DEBUG, INFO = 10, 20


# ---------------------------------------------------------------- without a new generation


@BOTH_WAYS
@pytest.mark.parametrize("count", [1, 3])
def test_counts_go_up_and_down(begin: Begin, way: str, count: int) -> None:
    service = begin(way)
    with loaded(service):
        said = apply(
            *(service, way),
            lambda: len(service.pids("worker")) == count,
            worker_num=count,
        )
    assert ("worker_num='2 -> " if way == "watch" else "config: worker_num 2 -> ") in said
    status = service.status()
    assert status["reload"]["state"] == "ok"
    assert status["generation"] == (1 if way == "watch" else 2)


def test_count_of_the_file_and_count_by_hand(begin: Begin) -> None:
    service = begin("watch")
    service.ok("scale", "worker=3")
    apply(service, "watch", lambda: len(service.pids("task")) == 2, task_worker_num=2)
    assert len(service.pids("worker")) == 3
    apply(service, "watch", lambda: len(service.pids("worker")) == 1, worker_num=1)
    assert service.status()["generation"] == 1


def test_count_whose_processes_do_not_come_up_is_said_and_still_wanted(begin: Begin) -> None:
    service = begin("watch", boot_timeout=1.5)
    gate = service.root / "gate"
    service.edit(
        "def blocking(",
        "@server.on_worker_start\n"
        f"def wait() -> None:\n    os.path.exists({str(gate)!r}) and fail('gate')\n\n"
        "def blocking(",
    )
    service.wait_for(lambda: service.status()["generation"] == 2, 10)
    seats = service.seats()
    gate.touch()
    with loaded(service):
        service.configure(worker_num=3)
        service.wait_for(lambda: "not all processes are ready missing=1" in service.log(), 10)
        assert set(service.seats()) == set(seats)
        gate.unlink()
        service.wait_for(lambda: len(service.pids("worker")) == 3, 10)
    assert service.status()["generation"] == 2


@BOTH_WAYS
def test_log_level_reaches_every_process(begin: Begin, way: str) -> None:
    service = begin(way, worker_num=1)
    assert service.ask(LEVEL) == INFO
    with loaded(service):
        apply(service, way, lambda: service.ask(LEVEL) == DEBUG, log_level="debug")
    assert service.task(LEVEL) == DEBUG
    for role in ("template", "base"):  # and whoever is forked from now on
        (pid,) = service.pids(role)
        service.kill(pid)
        service.wait_for(lambda role=role, pid=pid: service.pids(role) not in ([], [pid]), 10)  # type: ignore[misc]
    for pid in service.seats():
        service.kill(pid)
    service.wait_for(lambda: len(service.seats()) == 2, 10)
    assert (service.ask(LEVEL), service.task(LEVEL)) == (DEBUG, DEBUG)


def test_limits_of_the_master_apply_at_once(begin: Begin) -> None:
    service = begin("watch", max_wait_time=60)
    with service.connect() as client:
        client.post("await slowly(30)")
        apply(service, "watch", lambda: True, max_wait_time=0.5)
        service.reload()
        assert client.is_closed(10)
    assert service.status()["generation"] == 2


@pytest.mark.skipif(shutil.which("ss") is None, reason="no ss here")
def test_backlog_is_changed_on_the_same_socket(begin: Begin) -> None:
    service = begin("watch")
    queue = ["ss", "-Hltn", f"sport = :{service.port}"]

    def backlog() -> str:
        return subprocess.run(queue, capture_output=True, text=True, check=True).stdout.split()[2]

    assert backlog() == "2048"
    with loaded(service):
        apply(service, "watch", lambda: backlog() == "17", backlog=17)
    assert service.status()["generation"] == 1


def test_watch_goes_off_and_comes_back(begin: Begin) -> None:
    service = begin("watch")
    with loaded(service):
        apply(service, "watch", lambda: True, watch_file=False)
        service.edit('VERSION = "1"', 'VERSION = "2"')
        service.configure(worker_num=3)
        service.ok("status")
        service.configure(watch_file=True)
        service.reload()
        assert service.ask("VERSION") == "2"
        service.edit('VERSION = "2"', 'VERSION = "3"')
        service.wait_for(lambda: service.ask("VERSION") == "3", 10)
    assert service.status()["generation"] == 3


def test_watch_extra_is_watched_from_its_edit_on(begin: Begin) -> None:
    service = begin("watch")
    page = service.root / "page.html"
    page.write_text("one")
    with loaded(service):
        apply(service, "watch", lambda: True, watch_extra=["*.html"])
        assert service.status()["generation"] == 1
        page.write_text("two")
        service.wait_for(lambda: service.status()["generation"] == 2, 10)


def test_comment_is_no_new_generation(begin: Begin) -> None:
    service = begin("watch")
    before = service.seats()
    service.config_path.write_text("# hello\n" + service.config_path.read_text())
    service.wait_for(lambda: "config unchanged" in service.log(), 5)
    assert service.seats() == before
    assert service.status()["reload"]["cause"] == ["start"]
    assert service.status()["generation"] == 1


# ---------------------------------------------------------------- a new generation


@BOTH_WAYS
def test_app_is_changed(begin: Begin, way: str) -> None:
    service = begin(way)
    text = service.app_path.read_text()
    (service.root / "other.py").write_text(text.replace('VERSION = "1"', 'VERSION = "other"'))
    with loaded(service):
        said = apply(*(service, way), lambda: service.ask("VERSION") == "other", app="other:server")
    assert "app:server -> other:server" in said
    assert service.task("VERSION") == "other"


@BOTH_WAYS
def test_env_is_changed_and_no_value_is_told(begin: Begin, way: str) -> None:
    service = begin(way)
    seen = "os.environ.get('COLOUR')"
    with loaded(service):
        said = apply(
            *(service, way), lambda: service.ask(seen) == "secret-red", env={"COLOUR": "secret-red"}
        )
    assert "+ COLOUR" in said
    assert "secret-red" not in said + service.log()
    assert service.task(seen) == "secret-red"


@BOTH_WAYS
def test_app_that_does_not_come_up_is_refused_until_it_is_taken_back(
    begin: Begin, way: str
) -> None:
    service = begin(way)
    good = service.config_path.read_text()
    seats = service.seats()
    with loaded(service):
        service.configure(app="nosuch:server", worker_num=3)
        if way == "reload":
            assert service.run("reload").returncode == 1
        service.wait_for(lambda: service.status()["reload"]["state"] == "refused", 10)
        assert "nosuch" in (service.status()["reload"]["error"] or "")
        assert service.seats() == seats
        restore(service, way, good)
    assert len(service.pids("worker")) == 2


@BOTH_WAYS
def test_what_needs_a_restart_is_named_and_the_rest_is_applied(begin: Begin, way: str) -> None:
    service = begin(way)
    with loaded(service):
        said = apply(
            *(service, way),
            lambda: len(service.pids("worker")) == 3,
            worker_num=3,
            task_slots=8192,
        )
    if way == "reload":
        assert "config: worker_num 2 -> 3; needs a restart: task_slots" in said
    service.wait_for(lambda: "config change needs a restart keys=task_slots" in service.log(), 5)
    assert "needs a restart: task_slots" in service.ok("status").stdout


# ---------------------------------------------------------------- what stays over an edit


def test_killed_processes_come_back_under_the_edited_config(begin: Begin) -> None:
    service = begin("watch")
    path = service.root / "app.sock"
    listen = [*service.config["listen"], f"unix://{path}"]
    apply(service, "watch", lambda: serves(str(path)), listen=listen, worker_num=1, env={"A": "b"})
    (template,) = service.pids("template")
    service.kill(template)
    for pid in service.seats():
        service.kill(pid)
    service.wait_for(lambda: len(service.seats()) == 2, 10)
    assert serves(str(path))
    assert service.ask("os.environ['A']") == "b"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_reload_by_a_signal_applies_an_edit_too(begin: Begin) -> None:
    service = begin("reload")
    service.configure(worker_num=3)
    os.kill(service.master, signal.SIGHUP)
    service.wait_for(lambda: len(service.pids("worker")) == 3, 10)
    service.wait_for(lambda: service.status()["generation"] == 2, 5)
    service.wait_for(lambda: "config applied worker_num='2 -> 3'" in service.log(), 5)
