"""A reload is a transaction: whatever the new code does, the old generation never notices."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from bench.load import Load, Plan
from tests.service import leftovers
from tests.service.daemon import Service, pause, serving

LINE = "def blocking(seconds: float)"  # below what the faults use and override
# What is put into the app, and the word by which a person recognises the reason.
FAULTS = {
    "syntax error": ("def (:\n", "SyntaxError"),
    "import error": ("import no_such_module_here\n", "no_such_module_here"),
    "exception in on_worker_start": (
        "@server.on_worker_start\ndef refuse() -> None: raise ValueError('no database')\n",
        "no database",
    ),
    "os._exit": ("os._exit(3)\n", "3"),
    "sys.exit": ("import sys; sys.exit()\n", "exit"),
    "segfault": ("import ctypes; ctypes.string_at(0)\n", "SIGSEGV"),
    "infinite loop": ("while True: pass\n", "boot_timeout"),
    # Beyond the seven of the issue: what only happens in the processes of the generation.
    "exit in on_worker_start": (
        "@server.on_worker_start\ndef refuse() -> None: os._exit(7)\n",
        "7",
    ),
    "hang in on_worker_start": (
        "@server.on_worker_start\ndef refuse() -> None: time.sleep(3600)\n",
        "boot_timeout",
    ),
    "exception in task workers only": (
        "@server.on_worker_start\ndef refuse(): server.is_task_worker and fail('no queue')\n",
        "no queue",
    ),
    "no server any more": ("del server\n", "server"),
}


@pytest.fixture(scope="module")
def impatient() -> Iterator[Service]:
    with serving(boot_timeout=1.5) as service:
        yield service


@pytest.mark.parametrize("fault", FAULTS)
def test_refused_with_its_reason_and_the_next_good_save_serves(
    impatient: Service, fault: str
) -> None:
    service = impatient
    source, reason = FAULTS[fault]
    version = service.ask("VERSION")
    seats = service.seats()
    with Load(service.address, Plan(new=4, kept=2)) as load:
        service.edit(LINE, source + LINE)
        done = service.run("reload")
        assert done.returncode == 1
        assert reason in done.stderr, done.stderr
        status = service.status()
        assert status["state"] == "running"
        assert status["reload"]["state"] == "refused"
        assert reason in (status["reload"]["error"] or "")
        assert service.seats() == seats
        service.edit(source + LINE, LINE)
        service.edit(f'VERSION = "{version}"', f'VERSION = "{version}1"')
        service.reload()
        assert service.ask("VERSION") == f"{version}1"
    assert load.tally.failures == []
    assert service.status()["reload"]["state"] == "ok"
    assert leftovers.zombies(service.master) == set()


@pytest.mark.short
def test_refused_reload_shows_the_line_of_the_fault(service: Service) -> None:
    service.edit(LINE, "x = undefined_name\n" + LINE)
    done = service.run("reload")
    assert done.returncode == 1
    assert "app.py" in done.stderr
    assert "undefined_name" in done.stderr
    assert service.ask("VERSION") == "1"


def test_refused_generation_leaves_no_process(service: Service) -> None:
    service.wait_for(lambda: service.pids("spare"), 5)  # forked once all is quiet
    before = len(service.alive())
    for _ in range(3):
        service.edit(LINE, "import no_such_module_here\n" + LINE)
        assert service.run("reload").returncode == 1
    service.wait_for(lambda: len(service.alive()) == before, 3)


def test_crash_after_a_refused_reload_is_replaced_from_known_good_code(service: Service) -> None:
    service.edit(LINE, "import no_such_module_here\n" + LINE)
    assert service.run("reload").returncode == 1
    for pid in service.seats():
        service.kill(pid)
        service.wait_for_end(pid, 2)
    service.wait_for(lambda: len(service.seats()) == 4, 10)
    assert service.ask("VERSION") == "1"
    assert service.task("VERSION") == "1"


def test_refused_reload_of_tasks_leaves_the_task_workers(service: Service) -> None:
    before = service.pids("task")
    service.edit(LINE, "import no_such_module_here\n" + LINE)
    done = service.run("reload", "--tasks")
    assert done.returncode == 1
    assert "no_such_module_here" in done.stderr
    assert service.pids("task") == before
    assert service.task("VERSION") == "1"


def test_reload_by_signal_into_broken_code_is_refused_too(service: Service) -> None:
    service.edit(LINE, "import no_such_module_here\n" + LINE)
    service.kill(service.master, signal.SIGHUP)
    service.wait_for(lambda: service.status()["reload"]["state"] == "refused", 10)
    pause(0.1)
    assert service.ask("VERSION") == "1"
