"""What a forked process is told about itself and about what it shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from procd.app import Server
from procd.config.schema import Config
from procd.ipc.arena import Arena
from procd.ipc.channel import Channel
from procd.ipc.doorbell import Bell, Doorbell
from procd.ipc.inbox import Post
from procd.ipc.layout import Layout
from procd.ipc.scoreboard import Role, Scoreboard
from procd.ipc.spool import Spool
from procd.tasks.shared import Shared
from procd.tasks.tokens import Tokens


class Kind(IntEnum):
    """Where a template has its app from."""

    NEW = 0  # the disk
    REBORN = 1  # the very sources that its generation was first imported from
    BARE = 2  # nowhere: each process that it forks imports those sources for itself


@dataclass(frozen=True, slots=True)
class Origin:
    """What the master hands down by inheritance; the same for its whole life."""

    master_pid: int
    ipc_dir: Path  # run_dir/ipc: inboxes and the code cache
    arena_fd: int
    layout: Layout
    spool: Spool
    queue_key: int
    doorbell: Doorbell
    scoreboard: Scoreboard
    lease_fd: int  # held open by everybody: as long as one lives, no other master starts
    ledger: Bell

    @property
    def fds(self) -> set[int]:
        bells = {self.doorbell.fd, self.ledger.fd}
        return {self.arena_fd, self.spool.fd, self.lease_fd} | bells

    def open(self, arena: Arena | None = None) -> Shared:
        """Open what all processes share; once in a process and what is forked from it."""
        return Shared(
            arena or Arena(self.arena_fd, self.layout, self.spool),
            Tokens(self.queue_key),
            self.doorbell,
            Post(self.ipc_dir),
            self.scoreboard,
            self.ledger,
        )

    @property
    def code_dir(self) -> Path:
        return self.ipc_dir / "code"


@dataclass(slots=True)
class Context:
    """One worker or task worker."""

    role: Role
    number: int
    generation: int
    row: int
    incarnation: int
    config: Config
    server: Server
    channel: Channel
    origin: Origin
    shared: Shared
    listener_fds: list[int] = field(default_factory=list)
    output: int = -1  # the pipe that it prints into, until it is forked
    adopt: Callable[[], None] = lambda: None  # called before on_worker_start; see spawn.child
    on_started: Callable[[], None] = lambda: None  # called once on_worker_start has returned

    @property
    def name(self) -> str:
        return f"{'worker' if self.role is Role.WORKER else 'task'}-{self.number}"
