"""What the doctor knows: values only, gathered elsewhere. None = it could not be found out."""

from __future__ import annotations

from dataclasses import dataclass

from procd.config.schema import Config


@dataclass(frozen=True, slots=True)
class Queues:
    """Limits on System V message queues (proc(5)), and how many there are."""

    msgmnb: int  # bytes in one queue
    msgmax: int  # bytes in one message
    msgmni: int  # queues
    count: int


@dataclass(frozen=True, slots=True)
class Who:
    """An account that processes run as."""

    uid: int
    name: str
    is_system: bool  # logind's RemoveIPC= passes it over


@dataclass(frozen=True, slots=True)
class Inotify:
    watches_max: int  # of one user
    instances_max: int
    instances: int  # that the user has now
    folders: int  # with sources of the app


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the config, or the nearest one above it that is there."""

    key: str
    path: str
    fstype: str  # empty = an ordinary local one
    free_bytes: int
    problem: str | None = None  # who may not do what there


@dataclass(frozen=True, slots=True)
class Left:
    """Something of a service that does not run any more."""

    kind: str  # record, queue, arena, damaged
    where: str
    config_path: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    name: str
    found: str | None  # None = not installed
    needed: str
    is_enough: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says of the unit that the service runs as."""

    name: str
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one config on one machine."""

    config: Config | None
    config_error: str | None
    master_pid: int | None
    master: Who  # who the master is, or would be
    workers: Who | None  # None = the account of `user` is not there
    queues: Queues | None
    removes_ipc: str | None  # the file in which logind's RemoveIPC= is (or would be) set
    inotify: Inotify | None
    descriptors_max: int  # that the master has or can have
    places: tuple[Place, ...]
    left: tuple[Left, ...]
    versions: tuple[Version, ...]
    has_uvloop: bool
    unit: Unit | None
