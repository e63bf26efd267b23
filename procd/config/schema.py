"""Every key of the config: its type, default, range and whether it may be null.

Plain data. A key is one line of Config; KEYS is read off those lines, so that the dataclass and the
table cannot drift apart. What a key is *for* stands in config/procd.yaml, the manual; a test
compares the two. How a value is checked stands in procd.config.check.

A default is written as a user would write it in YAML and goes through the same checks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Literal, TypeAlias

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

K, M, G = 1024, 1024**2, 1024**3
YEAR = 365 * 86400  # seconds

# What a config may already say but this version cannot do: refused, for it must not silently do
# nothing. A key leaves this table with the code that makes it true.
NOT_YET: dict[str, str] = {}
LISTENERS_NOT_YET = ("udp", "tls", "http", "https")


class Kind(Enum):
    """What sort of value a key takes."""

    APP = auto()  # module:attribute or path/to/file.py:attribute
    PATH = auto()
    LISTEN = auto()  # a list of addresses
    ENV = auto()  # a mapping of names to texts
    RLIMITS = auto()  # a mapping of the names of limits to sizes
    CPUS = auto()  # a list of sets of CPUs
    GLOBS = auto()  # a list of patterns
    MODULES = auto()  # a list of module names
    COUNT = auto()
    SECONDS = auto()
    BYTES = auto()  # with suffix K, M or G
    MODE = auto()  # permissions, octal
    FLAG = auto()
    CHOICE = auto()
    USER = auto()  # a name or number that this system knows
    GROUP = auto()


@dataclass(frozen=True, slots=True)
class Key:
    """What one key takes. *low* and *high* are inclusive; *words* are taken beside the kind."""

    kind: Kind
    default: Plain = None
    low: int = 0
    high: int = 0
    step: int = 1
    words: tuple[str, ...] = ()
    is_nullable: bool = False
    is_required: bool = False


def _key(
    kind: Kind,
    default: Plain = None,
    *words: str,
    span: tuple[int, int] = (0, 0),
    step: int = 1,
    null: bool = False,
) -> Mapping[str, Key]:
    return {"key": Key(kind, default, *span, step, words, null)}


@dataclass(frozen=True, slots=True)
class Listen:
    """One address to listen on; the fields that its scheme has not are empty."""

    scheme: str  # tcp, unix or systemd
    host: str  # tcp: a name or address, IPv6 without its brackets
    port: int  # tcp: 0 = any free one
    path: str  # unix: absolute
    mode: int | None  # unix: permissions of the socket; None = 0660
    name: str  # systemd: the FileDescriptorName= of the socket unit
    text: str  # as it was written; for messages and `status`


@dataclass(frozen=True, slots=True)
class Config:
    """One valid config: sizes in bytes, times in seconds, paths absolute with links unresolved."""

    path: Path  # of the file itself; not a key

    app: str = field(metadata={"key": Key(Kind.APP, is_required=True)})
    chdir: Path = field(metadata=_key(Kind.PATH, "."))
    listen: tuple[Listen, ...] = field(metadata=_key(Kind.LISTEN, ["tcp://127.0.0.1:9000"]))
    env: dict[str, str] = field(metadata=_key(Kind.ENV, {}))

    worker_num: int = field(metadata=_key(Kind.COUNT, 2, "auto", span=(1, 512)))
    task_worker_num: int = field(metadata=_key(Kind.COUNT, 2, span=(0, 512)))
    max_wait_time: float = field(metadata=_key(Kind.SECONDS, 30))
    boot_timeout: float = field(metadata=_key(Kind.SECONDS, 30))
    max_draining: int = field(metadata=_key(Kind.COUNT, 3, span=(1, 64)))
    hang_timeout: float | None = field(metadata=_key(Kind.SECONDS, 30, null=True))
    max_request: int = field(metadata=_key(Kind.COUNT, 0, span=(0, 10**9)))
    task_max_request: int = field(metadata=_key(Kind.COUNT, 0, span=(0, 10**9)))
    task_max_rss: int | None = field(metadata=_key(Kind.BYTES, None, span=(M, 1024 * G), null=True))
    max_memory: int | None = field(metadata=_key(Kind.BYTES, None, span=(M, 1024 * G), null=True))
    user: str | None = field(metadata=_key(Kind.USER, None, null=True))
    group: str | None = field(metadata=_key(Kind.GROUP, None, null=True))

    nice: int | None = field(metadata=_key(Kind.COUNT, None, span=(-20, 19), null=True))
    # Each a set of CPUs, as 0-3; the first worker has the first.
    cpu_affinity: str | tuple[str, ...] | None = field(
        metadata=_key(Kind.CPUS, None, "auto", null=True)
    )
    rlimits: dict[str, int | None] = field(metadata=_key(Kind.RLIMITS, {}))  # None = unlimited
    umask: int = field(metadata=_key(Kind.MODE, "0027"))

    backlog: int = field(metadata=_key(Kind.COUNT, 2048, span=(1, 65535)))
    max_conn: int = field(metadata=_key(Kind.COUNT, 10_000, span=(1, 1_000_000)))
    send_buffer_bytes: int = field(metadata=_key(Kind.BYTES, "1M", span=(K, G)))

    watch_file: bool = field(metadata=_key(Kind.FLAG, default=True))
    watch_extra: tuple[str, ...] = field(metadata=_key(Kind.GLOBS, []))  # relative to chdir
    watch_poll: bool | Literal["auto"] = field(metadata=_key(Kind.FLAG, "auto", "auto"))
    preload: str | tuple[str, ...] = field(metadata=_key(Kind.MODULES, "auto", "auto", "off"))
    on_reload: str = field(metadata=_key(Kind.CHOICE, "move", "move", "drain"))

    message_queue_key: int | None = field(
        metadata=_key(Kind.COUNT, None, span=(1, 0xFFFFFFFF), null=True)
    )
    message_queue_mode: int = field(metadata=_key(Kind.MODE, "0600"))
    message_queue_group: str | None = field(metadata=_key(Kind.GROUP, None, null=True))
    message_queue_strings: str = field(metadata=_key(Kind.CHOICE, "auto", "auto", "bytes"))
    message_queue_codec: str = field(
        metadata=_key(Kind.CHOICE, "auto", "auto", "raw", "text", "json", "msgpack", "php")
    )
    # Above the largest pid that Linux gives: a type below it is for a task worker.
    message_queue_reply_type: int | None = field(
        metadata=_key(Kind.COUNT, None, span=(2**22 + 1, 2**63 - 1), null=True)
    )
    task_tmpdir: Path | None = field(metadata=_key(Kind.PATH, None, null=True))
    task_slots: int = field(metadata=_key(Kind.COUNT, 32768, span=(64, 1024 * K)))
    # The header's words are torn if they straddle a cache line: slots begin on one.
    task_slot_bytes: int = field(metadata=_key(Kind.BYTES, "1K", span=(256, 64 * K), step=64))
    task_max_bytes: int = field(metadata=_key(Kind.BYTES, "64M", span=(K, 2 * G)))
    task_max_attempts: int = field(metadata=_key(Kind.COUNT, 3, span=(1, 60)))
    task_timeout: float | None = field(metadata=_key(Kind.SECONDS, None, null=True))
    orphan_results: str = field(metadata=_key(Kind.CHOICE, "count", "count", "deliver"))

    run_dir: Path = field(metadata=_key(Kind.PATH, "run"))
    state_dir: Path = field(metadata=_key(Kind.PATH, "state"))
    master_pid_file: Path | None = field(metadata=_key(Kind.PATH, "run/master.pid", null=True))
    worker_pid_file: Path | None = field(metadata=_key(Kind.PATH, "run/worker.pid", null=True))
    log_file: Path | None = field(metadata=_key(Kind.PATH, "run/procd.log", null=True))
    log_format: str = field(metadata=_key(Kind.CHOICE, "auto", "auto", "text", "json", "journal"))
    log_rate: int | None = field(metadata=_key(Kind.COUNT, 1000, span=(1, 10**6), null=True))
    log_level: str = field(metadata=_key(Kind.CHOICE, "info", "debug", "info", "warning", "error"))

    def plain(self) -> dict[str, Plain]:
        """Return the same as lists, dicts and scalars only, for MessagePack."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Plain]) -> Config:
        """Return the Config whose plain() this is; nothing is checked again."""
        build: Callable[..., Config] = cls
        return build(**{name: _revived(name, value) for name, value in plain.items()})


def _keys() -> dict[str, Key]:
    return {f.name: f.metadata["key"] for f in dataclasses.fields(Config) if f.metadata}


KEYS: dict[str, Key] = _keys()


def _plain(value: object) -> Plain:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Path():
            return str(value)
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case Listen():
            return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"a config holds no {type(value).__name__}")


def _revived(name: str, value: Plain) -> object:
    kind = KEYS[name].kind if name in KEYS else Kind.PATH
    match kind, value:
        case Kind.PATH, str():
            return Path(value)
        case Kind.LISTEN, list():
            listen: Callable[..., Listen] = Listen
            return tuple(listen(**item) for item in value if isinstance(item, dict))
        case _, list():
            return tuple(value)
    return value
