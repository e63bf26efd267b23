"""kill -9 of masters that are about to take over: however far they came, nothing is lost."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.daemon import Service, pause, scaled
from tests.service.test_master_killed import kill_master

TASKS = 1000
KILLS = scaled(120)  # 6, and 120 in the full count
SECONDS = 30  # a start takes at most


def sight(service: Service) -> tuple[object, ...]:
    """What can be seen of a start from outside: it differs whenever one has come further."""
    state = service.root / "state"
    found = sorted(
        (path, os.lstat(path).st_mtime_ns)
        for folder in (service.run_dir, service.run_dir / "ipc", state)
        if folder.is_dir()
        for path in folder.iterdir()
    )
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()
    tokens = [tuple(row.split()[1:5]) for row in rows]
    return (*found, *tokens, len(service.log()))


def kill_after(service: Service, steps: int) -> str:
    """Start, and kill the master when *steps* steps of it were seen; what is its last."""
    with (service.root / "out").open("wb") as out:
        master = subprocess.Popen(
            service.argv("start", "--foreground"),
            env=service.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    seen, deadline = {sight(service)}, time.monotonic() + SECONDS
    while len(seen) <= steps and f"master[{master.pid}] started" not in service.log():
        assert master.poll() is None, (service.root / "out").read_text()
        assert time.monotonic() < deadline, f"{len(seen)} steps"
        pause(0.0002)
        try:
            seen.add(sight(service))
        except FileNotFoundError:  # gone between a look at the folder and one at the file
            continue
    master.kill()
    master.wait()
    service.wait_for(lambda: not service.alive(), 5, "the end of every process")
    return (service.log().splitlines() or [""])[-1]


@pytest.mark.heavy
def test_masters_killed_while_they_take_over_lose_nothing(service: Service) -> None:
    held = service.occupy(2)
    service.ask(f"flood('ran({{}})', 0, {TASKS})")
    service.ask(f"flood('ran({{}})'.ljust(3000), {TASKS}, 50)")
    kill_master(service)
    held.unlink()
    lasts = {kill_after(service, 1 + 3 * number % 60) for number in range(KILLS)}
    assert len(lasts) > 1, "not all at the same moment"
    service.start()
    count = TASKS + 50
    service.wait_for(lambda: len(service.runs()) == count, 30)
    service.wait_for(lambda: service.status()["tasks"]["queued"] == 0, 10)
    twice = sum(service.runs().values()) - count
    assert twice <= 2 * (KILLS + 1), "twice only what ran at a kill"
    assert len(leftovers.queues() - service.queues_before) == 1
