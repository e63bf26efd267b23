"""The shape of `procd status --json` (interface.md): more keys may come, none may go."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Process(TypedDict):
    id: NotRequired[int]
    role: str
    pid: int
    generation: int
    state: str
    restarts: int
    connections: int
    requests: int
    rss_bytes: int
    pss_bytes: int


class Tasks(TypedDict):
    queued: int
    running: int
    done: int
    failed: int
    retried: int
    dead: int
    refused: int
    delayed: int
    expired: int
    cancelled: int
    unread: int


class Reload(TypedDict):
    state: str
    seconds: float
    error: str | None
    cause: list[str]


class Config(TypedDict):
    path: str
    error: str | None


class Base(TypedDict):
    is_warm: bool
    preloaded: int
    left_out: dict[str, str]
    unfit: str | None


class Ledger(TypedDict):
    error: str | None


class Leftover(TypedDict):
    pid: int
    of: str | None
    command: str


class Log(TypedDict):
    file: str | None
    formats: list[str]
    held_back: int
    lost: int
    error: str | None


class Status(TypedDict):
    state: str
    pid: int
    generation: int
    uptime: float
    config: Config
    listeners: list[str]
    processes: list[Process]
    tasks: Tasks
    reload: Reload
    base: Base
    ledger: Ledger
    leftovers: list[Leftover]
    log: Log
