"""nice, cpu_affinity, rlimits and umask: what runs the app has them, live edits included."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import Any

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Done, Service

SEEN = (
    "[os.getpriority(0, 0), *map(__import__('resource').getrlimit, (7, 4))"
    ", next(line for line in open('/proc/self/status') if line.startswith('Umask'))[-5:-1]]"
)
CPUS = sorted(os.sched_getaffinity(0))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its limits upwards")


def both(service: Service, expression: str) -> list[Any]:
    """What a worker and a task worker answer."""
    return [service.ask(expression), service.task(expression)]


def nice_of(service: Service, role: str) -> set[int]:
    return {os.getpriority(os.PRIO_PROCESS, pid) for pid in service.pids(role)}


def powerless(service: Service, *words: str) -> Done:
    """Run a command as root without the rights to a higher priority and to higher limits."""
    mask = "-sys_nice,-sys_resource"
    return subprocess.run(
        ["setpriv", "--bounding-set", mask, "--inh-caps", mask, *service.argv(*words)],
        env=service.environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_runs_the_app_has_them_and_the_master_has_not(serve: Serve) -> None:
    limits = {"nofile": 600, "core": 0}
    service = serve(nice=5, rlimits=limits, umask="0022")
    assert both(service, SEEN) == [[5, [600, 600], [0, 0], "0022"]] * 2
    for role in ("worker", "task", "base", "template"):
        assert nice_of(service, role) == {5}
    assert os.getpriority(os.PRIO_PROCESS, service.master) == 0
    assert resource.prlimit(service.master, resource.RLIMIT_NOFILE)[0] > 600


def test_edit_is_a_new_generation_and_so_is_the_way_back(serve: Serve) -> None:
    service = serve()
    before = both(service, SEEN)
    service.configure(nice=3, rlimits={"nofile": 700}, umask="0077")
    assert "nice null -> 3" in service.reload().stdout
    assert [one[:2] for one in both(service, SEEN)] == [[3, [700, 700]]] * 2
    victim = service.seats()[0]
    service.kill(victim)
    service.wait_for(lambda: len(service.seats()) == 4 and victim not in service.seats(), 10)
    assert nice_of(service, "worker") == {3}
    service.configure(nice=None, rlimits={}, umask="0027")
    service.reload()
    assert both(service, SEEN) == before


@needs_root
def test_what_the_user_may_not_is_taken_before_the_drop(make: Serve) -> None:
    service = make(user="nobody", nice=-3, env={"LEDGER": "/dev/null"})
    service.root.chmod(0o755)
    service.start()
    assert [one[0] for one in both(service, SEEN)] == [-3] * 2
    service.configure(nice=-4)
    service.reload()
    assert nice_of(service, "worker") == {-4}


@needs_root
def test_what_is_not_permitted_refuses_the_start_and_names_key_and_way_out(make: Serve) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    service = make(nice=-5, rlimits={"nofile": hard + 1})
    done = powerless(service, "start")
    assert done.returncode == 1
    assert "nice: uid 0 may not go from 0 to -5" in done.stderr
    assert f"rlimits.nofile: uid 0 may not have {hard + 1}, only up to {hard}" in done.stderr
    assert "CAP_SYS_NICE" in done.stderr
    assert "Traceback" not in done.stderr


@needs_root
def test_what_is_not_permitted_refuses_an_edit_and_the_old_serve_on(make: Serve) -> None:
    service = make()
    assert powerless(service, "start").returncode == 0
    before = service.seats()
    service.configure(nice=-5)
    done = service.run("reload")
    assert done.returncode == 1
    assert "nice: uid 0 may not" in done.stderr
    assert service.seats() == before
    service.kill(before[0])
    service.wait_for(lambda: len(service.seats()) == 4 and before[0] not in service.seats(), 10)
    assert nice_of(service, "worker") == {0}
    service.configure(nice=2)
    service.reload()
    assert nice_of(service, "worker") == {2}


@needs_root
def test_restart_into_what_is_not_permitted_leaves_the_old_service(make: Serve) -> None:
    service = make()
    assert powerless(service, "start").returncode == 0
    before = service.master
    service.configure(nice=-5)
    done = powerless(service, "restart")
    assert (done.returncode, service.master) == (2, before)
    assert "nice: uid 0 may not" in done.stderr
    assert "nothing was stopped" in done.stderr


def test_memory_that_a_limit_refuses_is_an_error_of_the_handler(serve: Serve) -> None:
    service = serve(rlimits={"as": "1G"})
    victim = service.ask("os.getpid()")
    assert (
        both(service, "attempt(bytearray, 2 * 10**9)") == [{"error": "MemoryError", "text": ""}] * 2
    )
    assert victim in service.seats()


@pytest.mark.skipif(len(CPUS) < 2, reason="with one CPU there is nothing to choose")
def test_workers_have_their_cpus_in_turn(serve: Serve) -> None:
    service = serve(worker_num=3, cpu_affinity="auto")

    def cpus() -> list[list[int]]:
        return [sorted(os.sched_getaffinity(pid)) for pid in service.pids("worker")]

    assert cpus() == [[CPUS[number % len(CPUS)]] for number in range(3)]
    assert {tuple(sorted(os.sched_getaffinity(pid))) for pid in service.pids("task")} == {
        tuple(CPUS)
    }
    service.configure(cpu_affinity=[CPUS[1], f"{CPUS[0]},{CPUS[1]}"])
    service.reload()
    assert cpus() == [[CPUS[1]], CPUS[:2], [CPUS[1]]]
    service.configure(cpu_affinity=f"{CPUS[0]}")
    service.reload()
    assert cpus() == [[CPUS[0]]] * 3
    service.configure(cpu_affinity=None)
    service.reload()
    assert cpus() == [CPUS] * 3


def test_cpu_that_is_not_there_is_a_fault_with_its_place(make: Serve) -> None:
    service = make(cpu_affinity=[8000])
    done = service.run("start")
    assert done.returncode == 2
    assert 'cpu_affinity: "8000": this process may not use CPU 8000' in done.stderr


def test_task_workers_do_not_cut_short_who_serves_connections(serve: Serve) -> None:
    service = serve()
    assert policies(service) == {"worker": {os.SCHED_OTHER}, "task": {os.SCHED_BATCH}}
    service.reload()
    assert policies(service)["task"] == {os.SCHED_BATCH}


def test_another_policy_that_procd_was_started_with_is_kept(make: Serve) -> None:
    service = make()
    words = ["chrt", "--idle", "0", *service.argv("start")]
    subprocess.run(words, env=service.environment(), cwd="/", check=True, capture_output=True)
    assert policies(service) == {"worker": {os.SCHED_IDLE}, "task": {os.SCHED_IDLE}}


def policies(service: Service) -> dict[str, set[int]]:
    return {
        role: {os.sched_getscheduler(pid) for pid in service.pids(role)}
        for role in ("worker", "task")
    }
