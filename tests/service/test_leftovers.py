"""Subprocesses that the app left behind: shown while they live, ended with the service."""

from __future__ import annotations

import signal

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.shape import Leftover

LEAVE = "__import__('subprocess').Popen(['sleep', '1000'], stdout=-3, stderr=-3).pid"
DAEMONISE = "__import__('subprocess').run(['sh', '-c', 'sleep 1000 >/dev/null 2>&1 &']).returncode"


def left(service: Service) -> list[Leftover]:
    return service.status()["leftovers"]


@pytest.fixture
def lone(serve: Serve) -> Service:
    return serve(worker_num=1, task_worker_num=1)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_child_of_a_worker_that_is_gone_is_shown_with_who_left_it(
    lone: Service, signum: int
) -> None:
    worker = lone.ask("os.getpid()")
    child = lone.ask(LEAVE)
    assert left(lone) == []  # it has a parent
    lone.kill(worker, signum)
    lone.wait_for(lambda: worker not in lone.alive(), 10)
    found = lone.wait_for(lambda: left(lone), 5)
    assert found == [{"pid": child, "of": f"worker 0 pid {worker}", "command": "sleep 1000"}]
    assert f"left behind by worker 0 pid {worker}: pid {child}" in lone.ok("status").stdout
    lone.wait_for(lambda: f"left behind pid={child} of='worker 0 pid {worker}'" in lone.log(), 5)
    assert lone.ask("VERSION") == "1"
    lone.stop()
    assert child not in lone.alive()


def test_child_of_a_task_worker_is_shown_until_it_ends(lone: Service) -> None:
    child = lone.task(LEAVE)
    lone.reload()
    found = lone.wait_for(lambda: left(lone), 10)
    ((pid, of),) = [(one["pid"], one["of"] or "") for one in found]
    assert pid == child
    assert "task 1 pid" in of  # perhaps with who went at the same moment
    lone.kill(child)
    lone.wait_for(lambda: not left(lone), 5)


def test_what_daemonises_under_a_living_worker_is_shown_without_a_name(lone: Service) -> None:
    assert lone.ask(DAEMONISE) == 0
    (found,) = lone.wait_for(lambda: left(lone), 5)
    assert (found["of"], found["command"]) == (None, "sleep 1000")
    assert found["pid"] in lone.alive()
    lone.stop()
    assert found["pid"] not in lone.alive()


def test_no_process_of_procd_is_ever_taken_for_one(serve: Serve) -> None:
    service = serve(watch_file=True)
    for number in range(5):
        service.edit(f'VERSION = "{number or 1}"', f'VERSION = "{number + 1}"')
        for victim in service.seats():
            service.kill(victim)
        assert left(service) == []
        service.reload()
        assert left(service) == []
    assert "left behind" not in service.log()
