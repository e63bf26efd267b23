"""The log of a service with log_format: json, as a program reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.service.client import Client
from tests.service.daemon import Service

Entry = dict[str, Any]


def entries(service: Service) -> list[Entry]:
    """All that is written so far; a line that is no JSON is a failure."""
    return [json.loads(line) for line in service.log().splitlines()]


def messages(service: Service, **who: Any) -> list[str]:
    """The messages of those that *who* names, as in role="worker"."""
    return [
        entry["message"]
        for entry in entries(service)
        if all(entry[name] == value for name, value in who.items())
    ]


def wait_for(service: Service, message: str, seconds: float = 10) -> Entry:
    """The first entry with this message, once it is there."""

    def found() -> list[Entry]:
        return [entry for entry in entries(service) if entry["message"] == message]

    return service.wait_for(found, seconds, f"log entry {message!r}")[0]


def logger_pid(service: Service, but: int = 0) -> int:
    """The pid of the logger, once another than *but* is there."""

    def others() -> list[int]:
        return [pid for pid in service.pids("logger") if pid != but]

    (pid,) = service.wait_for(others, 10, "a logger")
    return pid


@contextmanager
def of_two_workers(service: Service) -> Iterator[tuple[Client, Client]]:
    """Connections to two workers: what one of them does holds up the other's no more."""
    with ExitStack() as stack:
        first = stack.enter_context(service.connect())
        second = stack.enter_context(service.connect())
        while first.ask("os.getpid()") == second.ask("os.getpid()"):
            second = stack.enter_context(service.connect())
        yield first, second


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The most memory that a process has ever had."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in status if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
