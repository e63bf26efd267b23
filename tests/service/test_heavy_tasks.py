"""Tasks that are a burden: much data at once, and one that kills its process each time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.test_large_tasks import peak_kilobytes, spool

ONE_MB = 10  # of data in one task
COUNT = 20  # of them: 200 MB in flight


def peaks(service: Service) -> dict[str, int]:
    """The most memory that each process has had, in megabytes."""
    found = {"master": service.master}
    for role in ("worker", "task", "base", "template", "ledger"):
        found |= {f"{role} {pid}": pid for pid in service.pids(role)}
    return {name: peak_kilobytes(pid) // 1024 for name, pid in found.items()}


@pytest.mark.heavy
def test_two_hundred_megabytes_in_flight_cost_each_process_one_payload(serve: Serve) -> None:
    """And what a codec holds of it while it copies: three times one payload, not twenty."""
    service = serve()
    before = peaks(service)
    held = service.occupy(2)
    with service.connect() as client:
        large = f"len('x' * {ONE_MB * 1024**2}) and task.id and 1"
        # One after the other, as an app does that reads them from its clients.
        client.post(
            f"sum(server.task({large!r}.ljust({ONE_MB * 1024**2})).id > 0 for _ in range({COUNT}))"
        )
        assert client.read_answer(60) == COUNT
        assert len(spool(service)) == COUNT
        assert sum(path.stat().st_size for path in spool(service)) >= COUNT * ONE_MB * 1024**2
        held.unlink()
        service.wait_for(lambda: client.ask("len(finished)", 30) >= COUNT, 60)
    service.wait_for(lambda: not spool(service), 10)
    grown = {name: most - before[name] for name, most in peaks(service).items() if name in before}
    most = max(grown.values())
    assert most < 6 * ONE_MB < COUNT * ONE_MB / 3, grown
    for name, growth in grown.items():
        if name.split()[0] in ("master", "base", "template", "ledger"):
            assert growth < ONE_MB, (name, growth)


def letters(service: Service) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(service.ok("task", "list", "--json").stdout)
    return found


def test_a_task_that_segfaults_each_time_holds_up_nobody_but_for_its_own_restarts(
    serve: Serve,
) -> None:
    service = serve(task_max_attempts=3)
    poison = service.ask("server.task('note(\"poison\", 1) or os.kill(os.getpid(), 11)').id")
    service.ask("flood('ran({})', 0, 200)")
    service.wait_for(lambda: len(service.runs()) == 200, 20)
    assert service.runs() == dict.fromkeys(range(200), 1)
    service.wait_for(lambda: service.status()["tasks"]["dead"] == 1, 20)
    assert len(service.ledger("poison")) == 3
    (letter,) = letters(service)
    assert (letter["id"], letter["state"], letter["attempts"]) == (poison, "dead", 3)
    assert letter["how"] == "SIGSEGV"
    restarts = {p["pid"]: p["restarts"] for p in service.status()["processes"] if "id" in p}
    assert sum(restarts.values()) == 3, "its own, and nobody else's"
    assert Path(f"/proc/{service.master}").exists()
