"""procd: a hot-reloading multi-process server daemon for Linux.

Names are fetched when they are first asked for: the master imports this package too, and
has no use for an event loop.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procd.app import Connection, Server, Task, current_task
    from procd.client.client import Client
    from procd.errors import (
        ConnectionLost,
        InboxFull,
        MessageTooBig,
        NoSuchTask,
        NoSuchWorker,
        NotRunning,
        ProcdError,
        SendBufferFull,
        TaskCancelled,
        TaskError,
        TaskExpired,
        TaskFailed,
        TaskQueueFull,
        TaskRejected,
        TaskTimeout,
    )
    from procd.tasks.ref import TaskRef
    from procd.tasks.registry import task

__all__ = [
    "Client",
    "Connection",
    "ConnectionLost",
    "InboxFull",
    "MessageTooBig",
    "NoSuchTask",
    "NoSuchWorker",
    "NotRunning",
    "ProcdError",
    "SendBufferFull",
    "Server",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskExpired",
    "TaskFailed",
    "TaskQueueFull",
    "TaskRef",
    "TaskRejected",
    "TaskTimeout",
    "current_task",
    "task",
]

_ROOMS = {
    "Client": "procd.client.client",
    "Connection": "procd.app",
    "Server": "procd.app",
    "Task": "procd.app",
    "TaskRef": "procd.tasks.ref",
    "current_task": "procd.app",
    "task": "procd.tasks.registry",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'procd' has no attribute {name!r}")
    return getattr(import_module(_ROOMS.get(name, "procd.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
