"""What the ingress's tests share: a service that hears foreign programs, and what it took."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from procd.ipc import Queue
from tests.service.daemon import Service, eventually

SECONDS = 15.0
Foreign = Callable[..., tuple[Service, Queue]]


def seen(service: Service, count: int) -> list[Any]:
    """What the first *count* tasks brought: [data, its type, task worker's id, source]."""
    found: list[Any] = []

    def is_enough() -> bool:
        with suppress(ValueError):  # of a long line only the first half is there
            found[:] = service.ledger("task")
        return len(found) >= count

    eventually(is_enough, SECONDS)
    return found


def page(service: Service) -> dict[str, Any]:
    """What the status tells of the ingress."""
    found: dict[str, Any] = json.loads(service.ok("status", "--json").stdout)["ingress"]
    return found


def rejected(service: Service, count: int) -> dict[str, int]:
    """How many were refused for each reason, once *count* were in all."""
    eventually(lambda: sum(page(service)["rejected"].values()) >= count, SECONDS)
    found: dict[str, int] = page(service)["rejected"]
    return found


def why(service: Service) -> list[str]:
    """Why the last messages were refused, in words."""
    samples = json.loads(service.ok("queue", "rejected", "--json").stdout)
    return [sample["why"] for sample in samples]
