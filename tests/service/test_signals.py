"""Signals to the master: the words of a shell that knows no procd command."""

from __future__ import annotations

import signal
import time

import pytest

from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service


def wait_gone(service: Service, seconds: float) -> None:
    service.wait_for(lambda: not service.alive(), seconds)
    leftovers.prove_nothing_left(service)


@pytest.mark.short
def test_term_finishes_what_runs(service: Service) -> None:
    with service.connect() as client:
        assert client.ask("VERSION") == "1"
        client.post("note('begun') or await slowly(1)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        service.kill(service.master, signal.SIGTERM)
        assert client.read_answer()["version"] == "1"
    wait_gone(service, 3)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_do_not_wait_for_what_runs(serve: Serve, signum: int) -> None:
    service = serve(max_wait_time=30)
    with service.connect() as client:
        client.post("note('begun') or await slowly(60)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        service.kill(service.master, signum)
        wait_gone(service, 2)


def test_second_term_is_no_harm(service: Service) -> None:
    master = service.master
    with service.connect() as client:
        client.post("note('begun') or await slowly(1)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        service.kill(master, signal.SIGTERM)
        service.kill(master, signal.SIGTERM)
        assert client.read_answer()["version"] == "1"
    wait_gone(service, 3)


def test_int_after_term_hurries(serve: Serve) -> None:
    service = serve(max_wait_time=30)
    master = service.master
    with service.connect() as client:
        client.post("note('begun') or await slowly(60)")
        service.wait_for(lambda: service.ledger("begun"), 5)
        service.kill(master, signal.SIGTERM)
        service.kill(master, signal.SIGINT)
        wait_gone(service, 2)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_hup_and_usr1_reload(service: Service, signum: int) -> None:
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.kill(service.master, signum)
    service.wait_for(lambda: service.ask("VERSION") == "2", 5)
    assert service.task("VERSION") == "2"


def test_usr2_reloads_the_task_workers_only(service: Service) -> None:
    workers = service.pids("worker")
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.kill(service.master, signal.SIGUSR2)
    service.wait_for(lambda: service.task("VERSION") == "2", 5)
    assert service.pids("worker") == workers
    assert service.ask("VERSION") == "1"


def test_winch_reopens_the_log(service: Service) -> None:
    log = service.run_dir / "procd.log"
    log.rename(service.run_dir / "procd.log.1")
    service.kill(service.master, signal.SIGWINCH)
    service.wait_for(log.exists, 5)
    service.kill(service.seats()[0])
    service.wait_for(service.log, 5)
    with service.connect() as client:
        client.post("raise into the new file")
        assert client.is_closed(5)
    service.wait_for(lambda: "into the new file" in service.log(), 5)


def test_many_signals_at_once_end_nothing(service: Service) -> None:
    master = service.master
    for _ in range(20):
        for signum in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):
            service.kill(master, signum)
    service.reload()
    assert service.master == master
    assert service.ask("VERSION") == "1"


def test_workers_leave_the_terminals_signals_to_the_master(service: Service) -> None:
    before = service.seats()
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        for pid in before:
            service.kill(pid, signum)
    assert service.task("VERSION") == "1"
    assert service.seats() == before


def test_term_during_a_boot_ends_it(make: Serve) -> None:
    service = make()
    service.start_foreground()
    service.edit("def spin() -> int:", "time.sleep(5)\n\n\ndef spin() -> int:")
    begun = time.monotonic()
    service.kill(service.master, signal.SIGHUP)
    service.wait_for(lambda: service.status()["reload"]["state"] == "booting", 5)
    service.kill(service.master, signal.SIGTERM)
    wait_gone(service, 4)
    assert time.monotonic() - begun < 5
