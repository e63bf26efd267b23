"""What two processes share. For users: SysV message queues, with or without the rest of procd."""

from procd.errors import MessageTooBig
from procd.ipc.queue import Queue, ftok
from procd.linux.sysv import (
    QueueDenied,
    QueueEmpty,
    QueueError,
    QueueExists,
    QueueFull,
    QueueGone,
)

__all__ = [
    "MessageTooBig",
    "Queue",
    "QueueDenied",
    "QueueEmpty",
    "QueueError",
    "QueueExists",
    "QueueFull",
    "QueueGone",
    "ftok",
]
