"""Clients of apps/moving.py, and what tests of moves look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.service.client import Client
from tests.service.daemon import Service


def ask(client: Client, word: str) -> str:
    """The answer without who gave it."""
    client.post(word)
    return client.read_line().decode().rpartition(" ")[0]


def who(client: Client) -> tuple[int, int, str]:
    """Generation, worker id and version that serve a connection now."""
    client.post("who")
    return served_by(client.read_line())


def served_by(line: bytes) -> tuple[int, int, str]:
    generation, number, version = line.decode().rpartition(" ")[2].split("/")
    return int(generation), int(number), version


def draining(service: Service) -> list[int]:
    return [p["pid"] for p in service.processes("worker", "draining")]


def wait_until_moved(service: Service) -> None:
    service.wait_for(lambda: not draining(service), 10, "the old workers' end")


@contextmanager
def clients(service: Service, count: int) -> Iterator[list[Client]]:
    """Connections of which each has been answered once."""
    with ExitStack() as stack:
        opened = [stack.enter_context(service.connect()) for _ in range(count)]
        for client in opened:
            client.post("1")
        for client in opened:
            client.read_line()
        yield opened
