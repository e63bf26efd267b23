"""Who takes over the open connections of a worker that leaves.

The master only introduces: a pipe, one end for each of the two. It never sees a connection,
and whatever becomes of the pipe, it waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from procd import logs
from procd.ipc.channel import Channel
from procd.ipc.scoreboard import Role
from procd.master.process import Process
from procd.master.service import Service
from procd.master.states import State


def drain(service: Service, leaver: Process) -> None:
    """Tell a process to drain; a worker also learns of its heir."""
    with _introduced(service, leaver) as fds:
        service.drain(leaver, fds)


def answer(service: Service, leaver: Process) -> None:
    """A worker that drains asks for an heir, for it has none, or has none any more."""
    with _introduced(service, leaver) as fds:
        service.processes.send(leaver, "heir", {}, fds)


def heir_of(service: Service, leaver: Process) -> Process | None:
    """Return a worker that serves and stays, best the one in the same seat of what serves now."""
    serving = service.generations.reload.serving.get(Role.WORKER)
    count = max(1, service.generations.counts.worker)
    seat = leaver.row.seat.number % count
    candidates = [
        process
        for process in service.processes.table.values()
        if process.row.seat.role is Role.WORKER
        and process.row.state is State.SERVING
        and process is not leaver
        and not process.row.retires
    ]
    return min(
        candidates,
        key=lambda each: (each.row.seat.generation != serving, each.row.seat.number != seat),
        default=None,
    )


@contextmanager
def _introduced(service: Service, leaver: Process) -> Iterator[list[int]]:
    """Yield the leaver's end of a pipe whose other end an heir has been sent; [] = no heir."""
    heir = heir_of(service, leaver) if leaver.row.seat.role is Role.WORKER else None
    if heir is None or not service.moves:
        yield []
        return
    try:
        ends = Channel.pair()
    except OSError as error:
        logs.error("no heir", pid=leaver.row.pid, why=error.strerror, cure="raise LimitNOFILE")
        yield []
        return
    try:
        sent = service.processes.send(heir, "adopt", {}, [ends[1].fileno()])
        # If the leaver does not get the other end, the heir's ends at once.
        yield [ends[0].fileno()] if sent else []
    finally:
        for end in ends:
            end.close()
