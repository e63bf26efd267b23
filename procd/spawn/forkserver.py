"""The loop of a process that forks on the master's word: the base and each template.

It waits on its channel and does what it is told, one thing after the other. It holds no
work, so the master ends it by SIGKILL.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping

from procd import logs
from procd.ipc.channel import Channel, Closed, Packet

Command = Callable[[Packet], None]
BATCH_BYTES = 64 * 1024  # of paths in one message


def serve(
    channel: Channel,
    commands: Mapping[str, Command],
    tick: Callable[[], float | None] = lambda: None,
) -> int:
    """Carry out *commands* by a packet's kind until the channel ends; return the exit status.

    *tick* is called before each wait and returns after how many seconds it wants to be
    called again, None = only after the next packet. The packet's descriptors are closed here
    once its command has returned.
    """
    waiter = select.poll()
    waiter.register(channel.fileno(), select.POLLIN)
    while True:
        seconds = tick()
        if not waiter.poll(None if seconds is None else max(0, seconds) * 1000):
            continue
        try:
            packet = channel.receive()
        except Closed:
            return 0
        if packet is None:
            continue
        command = commands.get(packet.kind)
        try:
            if command is not None:
                command(packet)
        except OSError as error:
            logs.error("order failed", order=packet.kind, why=error)
        finally:
            for fd in packet.fds:
                os.close(fd)


def seconds_to(at: float) -> float:
    """Return how long it is until a monotonic time."""
    return max(0.0, at - time.monotonic())


def number(packet: Packet, key: str) -> int:
    """Return an integer of a packet's body; 0 where there is none."""
    value = packet.body.get(key)
    return value if isinstance(value, int) else 0


def texts(packet: Packet, key: str) -> list[str]:
    """Return a list of texts of a packet's body."""
    value = packet.body.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def send_pairs(
    channel: Channel,
    kind: str,
    pairs: Mapping[str, str | None],
    ask: int = 0,
    *,
    last: bool = True,
) -> None:
    """Send a path → hash mapping of any length; the last message says so."""
    batch: list[list[str | None]] = []
    size = 0
    for path, digest in pairs.items():
        batch.append([path, digest])
        size += len(path.encode("utf-8", "surrogateescape")) + 80
        if size > BATCH_BYTES:
            channel.send(kind, {"pairs": batch, "ask": ask, "more": True, "last": last})
            batch, size = [], 0
    channel.send(kind, {"pairs": batch, "ask": ask, "more": False, "last": last})
