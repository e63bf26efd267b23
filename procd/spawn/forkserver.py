"""The loop of a process that forks on the master's word: the base and each template.

It waits on its channel and does what it is told, one thing after the other. It holds no
work, so the master ends it by SIGKILL.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from itertools import groupby

from procd import logs
from procd.ipc.channel import Channel, Closed, Packet

Command = Callable[[list[Packet]], None]
BATCH_BYTES = 64 * 1024  # of paths in one message
MOST_AT_ONCE = 32  # orders taken together


def serve(
    channel: Channel,
    commands: Mapping[str, Command],
    tick: Callable[[], float | None] = lambda: None,
) -> int:
    """Carry out *commands* by a packet's kind until the channel ends; return the exit status.

    Orders of one kind that wait together are one call. *tick* is called before each wait and
    returns after how many seconds it wants to be called again, None = only after the next
    packet. The packets' descriptors are closed here once their command has returned.
    """
    waiter = select.poll()
    waiter.register(channel.fileno(), select.POLLIN)
    while True:
        seconds = tick()
        if not waiter.poll(None if seconds is None else max(0, seconds) * 1000):
            continue
        try:
            packets = _waiting(channel)
        except Closed:
            return 0
        for kind, run in groupby(packets, key=lambda packet: packet.kind):
            _carry_out(commands.get(kind), list(run))


def _waiting(channel: Channel) -> list[Packet]:
    """Return what waits in the channel, up to MOST_AT_ONCE; raises Closed at the end."""
    packets: list[Packet] = []
    while len(packets) < MOST_AT_ONCE:
        try:
            packet = channel.receive()
        except Closed:
            if packets:
                return packets  # the next call raises it again
            raise
        if packet is None:
            break
        packets.append(packet)
    return packets


def _carry_out(command: Command | None, packets: list[Packet]) -> None:
    try:
        if command is not None:
            command(packets)
    except OSError as error:
        logs.error("order failed", order=packets[0].kind, why=error)
    finally:
        for packet in packets:
            for fd in packet.fds:
                os.close(fd)


def seconds_to(at: float) -> float:
    """Return how long it is until a monotonic time."""
    return max(0.0, at - time.monotonic())


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


def log(packets: list[Packet]) -> None:
    """Follow the master's orders about the log; a command of every such process."""
    for packet in packets:
        logs.ordered(packet.body.get("level"), tuple(os.dup(fd) for fd in packet.fds))
