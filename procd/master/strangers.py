"""What the app's processes left behind: it became ours (child subreaper). Noted, and ended."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from procd import logs
from procd.linux import process
from procd.master.processes import Processes

SECONDS = 2.0
RIPE_SECONDS = 1.0  # an intermediate lives for milliseconds


def end(reap: Callable[[], object], but: Collection[int]) -> None:
    """SIGKILL every child that is left, *but* these, and *reap*.

    Each round may hand us the children of those that it ended.
    """
    until = time.monotonic() + SECONDS
    while (left := {*process.children(os.getpid())} - {*but}) and time.monotonic() < until:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        select.select([], [], [], 0.002)  # dying takes them a moment
        reap()


class Strangers:
    """The children of ours that are no process of procd, while the service runs.

    *own* tells pids of other children that are ours.
    """

    def __init__(self, processes: Processes, own: Callable[[], Collection[int]]) -> None:
        self._processes = processes
        self._own = own
        self._known: dict[int, str | None] = {}  # pid → who left it, as far as is known
        self._young: dict[int, float] = {}  # pid → since when it is our child
        self._dead: list[str] = []  # since the last look that could tell

    def look(self, of: str | None = None) -> None:
        """Note who has become our child; *of* has just died, and may have left it."""
        rows = self._processes.rows()
        children = set(process.own_children()).difference(row.pid for row in rows)
        self._known = {pid: who for pid, who in self._known.items() if pid in children}
        self._young = {pid: since for pid, since in self._young.items() if pid in children}
        self._dead += [of] if of else []
        if not all(row.pid for row in rows):
            return  # one of them may be a process that has not told its pid yet
        fresh = [
            pid
            for pid in sorted(children.difference(self._known, self._own()))
            if process.is_alive(pid, None) and self._is_ripe(pid)
        ]
        if fresh and not all(process.is_alive(row.pid, None) for row in rows):
            return  # who left it may be the one that is reaped next
        who = " or ".join(self._dead) or None
        self._dead = []
        for pid in fresh:
            self._known[pid] = who
            logs.warning("left behind", pid=pid, of=who)

    def _is_ripe(self, pid: int) -> bool:
        """Tell an intermediate of a fork, whose template has just gone, from what stays."""
        if not _name(pid).startswith("procd: "):
            return True
        now = time.monotonic()
        return now - self._young.setdefault(pid, now) > RIPE_SECONDS

    def page(self) -> list[dict[str, object]]:
        """Return what `status` says; their commands whoever shows it asks the kernel for."""
        self.look()
        return [{"pid": pid, "of": who} for pid, who in sorted(self._known.items())]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    return ""
