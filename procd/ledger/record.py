"""What the ledger keeps of one task. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from procd.ipc import wire
from procd.ledger.schema import State


@dataclass(frozen=True, slots=True)
class Entry:
    """A task with its data, to be written down or put into the arena again."""

    id: int
    data: bytes
    flags: int
    priority: int
    src_worker_id: int
    accepted_at: float  # wall clock
    name: str | None = None
    attempts: int = 0
    terms: bytes = b""  # ipc.terms, if it has any
    due: float = 0.0  # wall clock: not before


@dataclass(frozen=True, slots=True)
class Ending:
    """How a task came to its end."""

    id: int
    state: State
    attempts: int
    at: float  # wall clock
    error: str | None = None
    traceback: str | None = None
    how: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A row without its data."""

    id: int
    state: State
    priority: int
    src_worker_id: int
    attempts: int
    accepted_at: float
    finished_at: float | None
    name: str | None
    how: str | None
    error: str | None
    traceback: str | None
    data_bytes: int | None  # None once it is not kept any more
    due: float = 0.0


def name_of(payload: bytes) -> str | None:
    """Return the name in a named task's payload, None if that is none."""
    try:
        name = wire.first(payload)
    except wire.Undecodable:
        return None
    return name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else None
