"""The whole service again and again: each life leaves no more than the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import leftovers
from tests.service.daemon import Service, scaled


def files(service: Service) -> set[str]:
    """Every file below the service's folder, but for what Python compiles."""
    found = (path for path in service.root.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(service.root)) for path in found}


@pytest.mark.heavy
def test_nothing_adds_up_over_many_restarts(service: Service) -> None:
    service.stop()
    first = files(service)
    queues = leftovers.queues()
    shared = Path("/proc/sysvipc/shm").read_text()
    for _ in range(scaled(500, 50)):
        service.start()
        assert service.ask("2 + 2") == 4
        service.ok("restart")
        assert service.task("3 * 3") == 9
        service.stop()
        assert (files(service), leftovers.queues(), service.alive()) == (first, queues, set())
    assert Path("/proc/sysvipc/shm").read_text() == shared
    assert leftovers.records(service.root) == []
