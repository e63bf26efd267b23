"""What two processes share. For users: SysV message queues, with or without the rest of procd.

What messages mean is in procd.ipc.foreign.codec: CODECS["php"].decode(data).

Names are fetched when they are first asked for: every process of procd imports this package, and
most have no use for what talks with other programs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procd.errors import MessageTooBig
    from procd.ipc.keys import ftok
    from procd.ipc.queue import Queue, queues
    from procd.ipc.swooletask import SwooleTask
    from procd.linux.sysv import (
        QueueDenied,
        QueueEmpty,
        QueueError,
        QueueExists,
        QueueFull,
        QueueGone,
    )
    from procd.linux.sysvtable import QueueStat

__all__ = [
    "MessageTooBig",
    "Queue",
    "QueueDenied",
    "QueueEmpty",
    "QueueError",
    "QueueExists",
    "QueueFull",
    "QueueGone",
    "QueueStat",
    "SwooleTask",
    "ftok",
    "queues",
]

_ROOMS = {
    "MessageTooBig": "procd.errors",
    "Queue": "procd.ipc.queue",
    "QueueStat": "procd.linux.sysvtable",
    "SwooleTask": "procd.ipc.swooletask",
    "ftok": "procd.ipc.keys",
    "queues": "procd.ipc.queue",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'procd.ipc' has no attribute {name!r}")
    return getattr(import_module(_ROOMS.get(name, "procd.linux.sysv")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
