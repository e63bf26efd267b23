"""What two processes share. For users: SysV message queues, with or without the rest of procd.

What messages mean is in procd.ipc.foreign.codec: CODECS["php"].decode(data).
"""

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
