"""What a process needs to take part in tasks: what it shares with all others, and who it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from procd.ipc.arena import Arena
from procd.ipc.doorbell import Bell, Doorbell
from procd.ipc.inbox import Post
from procd.ipc.scoreboard import Role, Scoreboard
from procd.tasks.tokens import Tokens


@dataclass(slots=True)
class Shared:
    """What all processes share, as one of them holds it."""

    arena: Arena
    tokens: Tokens
    doorbell: Doorbell
    post: Post
    scoreboard: Scoreboard
    ledger: Bell


class Self(Protocol):
    """Who this process is."""

    role: Role
    number: int
    generation: int
    row: int
