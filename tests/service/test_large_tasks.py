"""Tasks whose data or result is too large for a slot: they go through files in state_dir/spool."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.daemon import Service

LARGE = 300_000


def spool(service: Service) -> list[Path]:
    return sorted((service.root / "state" / "spool").iterdir())


@pytest.mark.short
def test_large_data_and_a_large_result_arrive_whole(service: Service) -> None:
    for size in (1_000, 1_024, 1_025, LARGE, 5_000_000):
        text = f"await server.task('len(task.data) * 0 + 7 or ' + repr('x' * {size}))"
        assert service.ask(text, 20) == 7
        assert service.ask(f"len(await server.task(\"b'y' * {size}\"))", 20) == size
    assert service.ask(f"(await add.send('x' * {LARGE}, 'y'))['sum'][-2:]", 20) == "xy"
    assert spool(service) == []


def test_on_finish_gets_a_large_result(service: Service) -> None:
    with service.connect() as client:
        client.ask(f"server.task(\"'y' * {LARGE}\").id")
        service.wait_for(lambda: client.ask("[len(r) for _, r in finished]") == [LARGE], 5)
    assert spool(service) == []
