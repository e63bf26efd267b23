"""Editing the config of a running service, by the watch or by `procd reload`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.load import Load, Plan
from tests.service.client import Address, Client
from tests.service.daemon import Service

BOTH_WAYS = pytest.mark.parametrize("way", ["watch", "reload"])
Begin = Callable[..., Service]


@contextmanager
def loaded(service: Service, address: Address | None = None) -> Iterator[None]:
    """Ask all the while; no request fails."""
    with Load(address or service.address, Plan(new=3, kept=1, rest=0.01)) as load:
        yield
        asked = load.tally.ok
        service.wait_for(lambda: load.tally.ok > asked + 20, 10)
    assert load.tally.failures == []


def apply(service: Service, way: str, done: Callable[[], object], **changes: Any) -> str:
    """Edit the config; return what is said of it once it is in effect."""
    before = len(service.log())
    service.configure(**changes)
    if way == "watch":
        service.wait_for(done, 10)
        service.wait_for(lambda: "config applied" in service.log()[before:], 5)
        return service.log()[before:]
    said = service.reload().stdout
    assert done()
    service.wait_for(lambda: "config applied" in service.log()[before:], 5)
    return said


def refuse(service: Service, way: str, words: str) -> None:
    """What stands in the config is refused for *words*, and nothing changes."""
    before = service.seats()
    if way == "reload":
        done = service.run("reload")
        assert done.returncode == 2
        assert words in done.stderr
    service.wait_for(lambda: words in (service.status()["config"]["error"] or ""), 10)
    service.wait_for(lambda: words in service.log(), 5)
    status = service.status()
    assert status["reload"]["state"] == "refused"
    assert service.seats() == before


def restore(service: Service, way: str, text: str) -> None:
    """A good config again: the refusal is over."""
    service.config_path.write_text(text)
    if way == "reload":
        service.reload()
    service.wait_for(lambda: is_well(service), 10)


def is_well(service: Service) -> bool:
    status = service.status()
    return status["config"]["error"] is None and status["reload"]["state"] == "ok"


def serves(address: Address) -> bool:
    try:
        with Client(address, 5) as client:
            return bool(client.ask("VERSION", 5) == "1")
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
