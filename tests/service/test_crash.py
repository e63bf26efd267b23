"""Processes that die: who replaces them, from which code, how fast, and what a client notices."""

from __future__ import annotations

import signal
import time

import pytest

from bench.load import Load, Plan
from tests.service import leftovers
from tests.service.conftest import Serve
from tests.service.daemon import Service


def replaced(service: Service, victim: int) -> bool:
    return len(service.seats()) == 4 and victim not in service.seats()


@pytest.mark.short
@pytest.mark.parametrize("seat", [0, 3])
def test_killed_process_is_replaced_in_its_seat(service: Service, seat: int) -> None:
    before = service.seats()
    service.kill(before[seat])
    service.wait_for(lambda: replaced(service, before[seat]), 2)
    after = service.seats()
    assert [i for i in range(4) if before[i] != after[i]] == [seat]
    by_id = {p["id"]: p for p in service.status()["processes"] if "id" in p}
    assert by_id[seat]["restarts"] == 1
    assert by_id[seat]["pid"] == after[seat]
    assert leftovers.zombies(service.master) == set()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_process_that_ends_by_any_signal_is_replaced(service: Service, signum: int) -> None:
    victim = service.seats()[1]
    service.kill(victim, signum)
    service.wait_for(lambda: replaced(service, victim), 5)
    assert service.ask("VERSION") == "1"


def test_first_death_is_replaced_within_a_tenth_of_a_second(service: Service) -> None:
    victim = service.seats()[0]
    begun = time.monotonic()
    service.kill(victim)
    while not replaced(service, victim):
        assert time.monotonic() < begun + 2
    assert time.monotonic() - begun < 0.4


def test_death_of_one_worker_costs_no_connection_of_another(service: Service) -> None:
    clients = [service.connect() for _ in range(12)]
    try:
        pids = [client.ask("os.getpid()") for client in clients]
        victim = pids[0]
        service.kill(victim)
        service.wait_for(lambda: replaced(service, victim), 5)
        for client, pid in zip(clients, pids, strict=True):
            assert client.is_closed(5) if pid == victim else client.ask("os.getpid()") == pid
    finally:
        for client in clients:
            client.socket.close()


def test_worker_that_exits_in_a_handler_is_replaced(service: Service) -> None:
    victim = service.ask("os.getpid()")
    with service.connect() as client:
        while client.ask("os.getpid()") != victim:
            client.socket.close()
            client = service.connect()  # noqa: PLW2901 - until the right worker took it
        client.post("os._exit(1)")
        assert client.is_closed(5)
        client.socket.close()
    service.wait_for(lambda: replaced(service, victim), 5)
    assert service.ask("VERSION") == "1"


def test_exception_in_a_handler_costs_that_connection_only(service: Service) -> None:
    before = service.seats()
    with service.connect() as other, service.connect() as client:
        assert other.ask("VERSION") == "1"
        client.post("raise something that a person finds")
        assert client.is_closed(5)
        assert other.ask("VERSION") == "1"
    service.wait_for(lambda: "something that a person finds" in service.log(), 5)
    service.wait_for(lambda: "Traceback" in service.log(), 5)
    service.wait_for(lambda: "app.py" in service.log(), 5)
    assert service.seats() == before


def test_crash_in_a_half_written_tree_is_replaced_from_known_good_code(service: Service) -> None:
    service.app_path.write_text("half a fi")
    victim = service.seats()[0]
    service.kill(victim)
    service.wait_for(lambda: replaced(service, victim), 5)
    assert {service.ask("VERSION") for _ in range(20)} == {"1"}
    assert service.status()["generation"] == 1


def test_repeated_deaths_back_off_and_recover(service: Service) -> None:
    def kill_first() -> bool:
        first = [p for p in service.status()["processes"] if p.get("id") == 0]
        if first and first[0]["state"] == "ready":
            service.kill(first[0]["pid"])
        return any(p["state"] == "backoff" for p in first)

    service.wait_for(kill_first, 10, "state backoff")
    assert service.ask("VERSION") == "1"
    service.wait_for(lambda: len(service.seats()) == 4, 15)


def test_backoff_is_shown_with_its_delay_and_a_reload_forgets_it(make: Serve) -> None:
    service = make(watch_file=False)
    broken = service.root / "broken"
    check = f"if os.path.exists({str(broken)!r}) and server.worker_id == 0:"
    service.edit('    counts["started"] += 1', f"    {check}\n        fail('broken')")
    service.start()
    broken.touch()
    service.kill(service.seats()[0])

    def waits() -> bool:
        found = [p for p in service.status()["processes"] if p["state"] == "backoff"]
        return [p["id"] for p in found] == [0] and found[0]["restarts"] >= 4

    service.wait_for(waits, 15, "the fourth death")
    # It forks now and then, so its line comes and goes.
    text = service.wait_for(
        lambda: [s for s in service.ok("status").stdout.splitlines() if "starts again in" in s], 15
    )[0]
    assert text.startswith("worker 0 has died ")
    service.wait_for(lambda: "by='exit status 1'" in service.log(), 5)
    assert service.ask("VERSION") == "1"  # the other one serves
    broken.unlink()
    service.reload()
    assert [p["state"] for p in service.status()["processes"] if "id" in p] == ["ready"] * 4
    victim = service.seats()[0]
    service.kill(victim)
    states: list[str] = []

    def is_back() -> bool:
        states.extend(p["state"] for p in service.status()["processes"])
        return replaced(service, victim)

    service.wait_for(is_back, 10)
    assert "backoff" not in states


def test_new_generation_ends_a_backoff(service: Service) -> None:
    for _ in range(4):
        first = service.wait_for(service.seats, 10)[0]
        service.kill(first)
        service.wait_for(lambda: service.processes("worker"), 10)
    service.reload()
    assert len(service.pids("worker")) == 2


@pytest.mark.parametrize("role", ["template", "base"])
def test_killed_template_is_no_loss(service: Service, role: str) -> None:
    for process in [p for p in service.status()["processes"] if p["role"] == role]:
        service.kill(process["pid"])
    assert service.ask("VERSION") == "1"
    victim = service.seats()[0]
    service.kill(victim)
    service.wait_for(lambda: replaced(service, victim), 10)
    assert service.ask("VERSION") == "1"
    service.edit('VERSION = "1"', 'VERSION = "2"')
    service.reload()
    assert service.ask("VERSION") == "2"


def test_recycling_by_max_request_fails_no_request(serve: Serve) -> None:
    service = serve(max_request=200)
    before = set(service.seats())
    with Load(service.address, Plan(new=8, kept=4)) as load:
        service.wait_for(lambda: load.tally.ok > 1500, 30)
    assert load.tally.failures == []
    assert len(set(service.seats()) - before) >= 2
    service.wait_for(lambda: len(service.seats()) == 4, 5)


def test_recycling_by_task_max_request_loses_no_task(serve: Serve) -> None:
    service = serve(task_max_request=20)
    before = set(service.seats())
    service.ask("flood('ran({})', 0, 300)")
    service.wait_for(lambda: len(service.runs()) == 300, 20)
    assert service.runs() == dict.fromkeys(range(300), 1)
    service.wait_for(lambda: len(set(service.seats()) - before) >= 2, 5)
    assert service.status()["tasks"]["retried"] == 0
