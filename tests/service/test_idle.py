"""An idle service sleeps."""

from __future__ import annotations

import os
from pathlib import Path

from tests.service.daemon import Service, pause, scaled

WINDOW = 6  # seconds


def wake_ups(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("voluntary_ctxt_switches")]
    return int(line.split()[1])


def test_idle_master_never_wakes_and_workers_at_most_once_a_second(service: Service) -> None:
    assert service.task("6 * 7") == 42  # idle after work, not only after the start
    service.wait_for(lambda: all(p["state"] == "ready" for p in service.status()["processes"]), 5)
    pids = {"master": service.master, **{f"seat {i}": p for i, p in enumerate(service.seats())}}
    pause(6)  # past what only follows a start: backoff resets, debounces
    before = {name: wake_ups(pid) for name, pid in pids.items()}
    pause(WINDOW)
    woken = {name: wake_ups(pid) - before[name] for name, pid in pids.items()}
    assert woken.pop("master") == 0
    assert max(woken.values()) <= WINDOW, woken


def test_requests_and_tasks_leave_no_descriptors_behind(service: Service) -> None:
    pids = [service.master, *service.seats()]

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    for _ in range(20):  # the loop opens what it needs at the first use
        service.task("1")
    before = sum(descriptors())
    for _ in range(scaled(2000)):
        service.task("1")
    service.wait_for(lambda: sum(descriptors()) <= before + 2, 5, "no more descriptors")
