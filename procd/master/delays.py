"""Tasks that are not due yet: sent with a delay, or to be tried again after a failure.

They lie in the arena as DELAYED, with the time from which they may run; what is here is only a
list of those times, made anew from the arena whenever somebody may have died who had not told.
The times are the wall clock's, which may be set: so it is looked at every minute at least.
"""

from __future__ import annotations

import heapq
import time

from procd.ipc import words
from procd.ipc.arenafile import ArenaFile
from procd.ipc.words import SlotState

LONGEST_WAIT = 60.0  # seconds between two looks at the clock while a task waits
LATER = 0.005  # until another try at a slot that somebody looks at
BATCH = 512  # queued at once: the master has other things to do


class Delays:
    """Knows when the next one is due."""

    def __init__(self, arena: ArenaFile) -> None:
        self._arena = arena
        self._heap: list[tuple[float, int]] = []  # due, token
        self._known: set[int] = set()
        self.next_look: float | None = None  # monotonic

    def learn(self, token: int) -> None:
        """Somebody tells that a task is delayed; it may be no more, or none at all."""
        number = words.slot_of(token)
        if token in self._known or number >= self._arena.layout.slots:
            return
        slot = self._arena.slot(number)
        if slot.token == token and slot.state is SlotState.DELAYED:
            heapq.heappush(self._heap, (self._arena.terms(slot).due, token))
            self._known.add(token)
            self._schedule()

    def scan(self) -> None:
        """Learn of all that are in the arena."""
        for token in self._arena.tokens(SlotState.DELAYED):
            self.learn(token)

    def take(self) -> list[int]:
        """Queue the tasks that are due and return their tokens; call again at next_look."""
        now, pause = time.time(), 0.0
        taken: list[int] = []
        while self._heap and self._heap[0][0] <= now:
            if len(taken) == BATCH:
                break
            due, token = heapq.heappop(self._heap)
            self._known.discard(token)
            slot = self._arena.slot(words.slot_of(token))
            if slot.token != token or slot.state is not SlotState.DELAYED:
                continue
            if self._arena.requeue(slot, slot.attempt):
                taken.append(token)
            else:
                heapq.heappush(self._heap, (due, token))
                self._known.add(token)
                pause = LATER
                break
        self._schedule(pause)
        return taken

    def _schedule(self, at_least: float = 0.0) -> None:
        if not self._heap:
            self.next_look = None
            return
        wait = max(at_least, self._heap[0][0] - time.time())
        self.next_look = time.monotonic() + min(LONGEST_WAIT, wait)
