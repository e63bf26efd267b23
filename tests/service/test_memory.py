"""max_memory: a process that leaks is replaced before it has that much, and nobody notices."""

from __future__ import annotations

from typing import Any

import pytest

from bench.load import Load, Plan
from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.test_user import NOBODY, as_user, needs_root

MIB = 1 << 20
LEAK = """
leaked: list[bytearray] = []


def leak(count: int = 1) -> str:
    leaked.extend(bytearray(b"x" * (1 << 20)) for _ in range(count))
    return VERSION


def pss() -> int:
    with open("/proc/self/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) * 1024


def spin() -> int:"""
STOPPED = '    note("stopped", server.worker_id, os.getpid())'


def leaky(service: Service) -> Service:
    service.edit("\ndef spin() -> int:", LEAK)
    service.edit(STOPPED, f'{STOPPED}\n    note("last", os.getpid(), pss(), len(leaked))')
    return service


def last(service: Service) -> list[list[Any]]:
    """Of each process that left: its pid, its PSS at the end, the megabytes that it had leaked."""
    return [row for row in service.ledger("last") if row[2]]


def test_worker_that_leaks_is_replaced_before_it_has_that_much_and_no_request_fails(
    make: Serve,
) -> None:
    service = leaky(make(max_memory="200M")).start()
    fewest = 4

    def enough() -> bool:
        nonlocal fewest
        fewest = min(fewest, len(service.seats()))
        return len(last(service)) >= 6

    plan = Plan(new=2, kept=2, rest=0.02, request=lambda _n: b"leak()\n")
    with Load(service.address, plan) as load:
        service.wait_for(enough, 60)
    assert load.tally.failures == []
    assert max(pss for _, pss, _ in last(service)) < 200 * MIB
    assert min(count for _, _, count in last(service)) > 60  # and not for nothing
    assert fewest == 4, "a successor is ready first"
    service.wait_for(lambda: "why=max_memory" in service.log(), 5)
    assert [p["restarts"] for p in service.status()["processes"] if "id" in p] == [0] * 4


def test_task_worker_that_leaks_is_replaced_and_every_task_runs_once(make: Serve) -> None:
    service = leaky(make(max_memory="100M")).start()
    service.ask("flood('leak() and ran({})', 0, 300)")
    service.wait_for(lambda: len(service.runs()) == 300, 30)
    assert service.runs() == dict.fromkeys(range(300), 1)
    service.wait_for(lambda: len(last(service)) >= 2, 10)
    assert service.status()["tasks"]["retried"] == 0


def test_memory_that_grows_without_requests_counts_too(make: Serve) -> None:
    service = leaky(make(max_memory="60M", worker_num=1))
    service.edit('    counts["started"] += 1', "    asyncio.ensure_future(grow())")
    service.edit(
        "\ndef leak(",
        "\nasync def grow() -> None:\n    while True:\n        await asyncio.sleep(0.02)\n"
        "        leak()\n\n\ndef leak(",
    )
    service.start()
    before = service.pids("worker")
    service.wait_for(lambda: service.pids("worker") not in (before, []), 20)


def test_what_comes_and_goes_and_what_is_shared_is_no_leak(make: Serve) -> None:
    service = leaky(make(max_memory="100M"))
    service.edit('VERSION = "1"', 'VERSION = "1"\nSHARED = b"y" * (150 << 20)')
    service.start()
    before = service.seats()
    for _ in range(20):
        assert service.ask("leak(20) and leaked.clear() or SHARED[7]") == ord("y")
    assert service.seats() == before


def test_limit_below_what_an_app_begins_with_is_said_once_and_replaces_nobody(make: Serve) -> None:
    service = leaky(make(max_memory="2M")).start()
    before = service.seats()
    assert service.ask("leak(3)") == "1"
    assert service.task("leak(3)") == "1"
    assert service.seats() == before
    service.wait_for(lambda: "max_memory is less than a process begins with" in service.log(), 5)


@needs_root
def test_user_who_may_not_look_into_himself_from_outside_is_measured(make: Serve) -> None:
    service = leaky(as_user(make, max_memory="80M", worker_num=1)).start()
    victim = service.ask("os.getpid()")
    assert service.ask("os.getuid()") == NOBODY.pw_uid
    service.ask("leak(70)")
    service.wait_for(lambda: victim not in service.seats() and len(service.seats()) == 3, 10)


@pytest.mark.parametrize("value", [None, "1G"])
def test_edit_of_the_limit_is_a_new_generation(make: Serve, value: str | None) -> None:
    service = leaky(make(max_memory="60M")).start()
    service.configure(max_memory=value)
    assert "max_memory" in service.reload().stdout
    victim = service.ask("leak(80) and os.getpid()")
    assert victim in service.seats()
