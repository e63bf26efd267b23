"""Answers on their way back: sent where there is room, and taken off again if nobody reads them.

They lie in the queue that the requests come through, under types that no request has. So that
they never shut the requests out:
- Together they take at most half of the queue's bytes. What finds no room waits here, WAITING_MOST
  of them; beyond that the oldest is dropped and counted.
- One that nobody has read for EXPIRY_SECONDS is taken off and counted, and so is whatever
  else lies there under such a type, whoever sent it.
- A send never waits.

Which message is how old cannot be asked. It is known by counting: of each type the newest are
still there, for a reader takes the oldest first.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from math import inf

from procd.errors import MessageTooBig
from procd.ipc.foreign import envelope
from procd.ipc.foreign.envelope import Reply
from procd.ipc.foreign.message import LARGEST_TASK_TYPE
from procd.ipc.tally import Count, Tally
from procd.linux import sysvraw
from procd.linux.sysv import MessageQueue, QueueEmpty, QueueFull, message_bytes_max

EXPIRY_SECONDS = 60.0
LOOK_SECONDS = 15.0  # between two looks for what nobody reads
RETRY_SECONDS = 0.05
WAITING_MOST = 256


class Answers:
    """One process's answers. *now* is monotonic; look() is called when `due` has come."""

    def __init__(self, tally: Tally, now: float) -> None:
        self._tally = tally
        self._waiting: deque[tuple[int, bytes]] = deque()  # type, data
        self._lying: dict[int, deque[float]] = {}  # since when those of a type lie in the queue
        self._lying_bytes = 0  # at most: who reads one does not tell
        self._next_look = now + LOOK_SECONDS
        self._next_try = inf

    @property
    def due(self) -> float:
        """When there is something to do."""
        return min(self._next_look, self._next_try)

    @property
    def is_stuck(self) -> bool:
        """Tell whether there was no room a moment ago."""
        return self._next_try != inf

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, reply: Reply, value: object, failure: str | None) -> None:
        """Have an answer sent by the next send()."""
        data = envelope.answer(reply, value, failure)
        if len(data) > (most := message_bytes_max()):
            text = f"the task's result is too large for a message: {len(data)} bytes of {most}"
            data = envelope.answer(reply, None, text)
        self._waiting.append((reply.mtype, data))
        if len(self._waiting) > WAITING_MOST:
            self._waiting.popleft()
            self._tally.count(Count.DROPPED)

    def send(self, queue: MessageQueue, now: float) -> None:
        """Send what waits, as far as there is room. Raises QueueGone, QueueDenied."""
        self._next_try = inf
        half = queue.bytes_max // 2
        has_looked = False
        while self._waiting:
            mtype, data = self._waiting[0]
            if self._lying_bytes + len(data) > half and not has_looked:
                has_looked = True
                self._look(queue, now)
            if len(data) > half:
                self._waiting.popleft()
                self._tally.count(Count.DROPPED)
            elif self._lying_bytes + len(data) <= half and self._has_sent(queue, mtype, data, now):
                self._waiting.popleft()
            else:
                self._next_try = now + RETRY_SECONDS
                return

    def _has_sent(self, queue: MessageQueue, mtype: int, data: bytes, now: float) -> bool:
        try:
            sysvraw.send(queue, data, mtype)
        except QueueFull:
            return False
        except MessageTooBig:  # the limits were lowered meanwhile
            self._tally.count(Count.DROPPED)
            return True
        self._lying.setdefault(mtype, deque()).append(now)
        self._lying_bytes += len(data)
        self._tally.count(Count.ANSWERS)
        return True

    def look(self, queue: MessageQueue, now: float) -> None:
        """Take off what nobody reads, and send what waits. Raises QueueGone, QueueDenied."""
        self._look(queue, now)
        self._expire(queue, now)
        self.send(queue, now)

    def put_off(self, now: float) -> None:
        """Be due again later, whatever becomes of this time."""
        self._next_look = now + LOOK_SECONDS
        self._next_try = now + RETRY_SECONDS if self._waiting else inf

    def forget(self) -> None:
        """It is another queue: nothing of ours lies in it."""
        self._lying.clear()
        self._lying_bytes = 0

    def _look(self, queue: MessageQueue, now: float) -> None:
        """See what lies in the queue now."""
        counts: Counter[int] = Counter()
        self._lying_bytes = index = 0
        with suppress(QueueEmpty, MessageTooBig):
            while True:
                data, mtype = sysvraw.copy(queue, index)
                if mtype > LARGEST_TASK_TYPE:
                    counts[mtype] += 1
                    self._lying_bytes += len(data)
                index += 1
        self._lying = {mtype: self._ages(mtype, count, now) for mtype, count in counts.items()}

    def _ages(self, mtype: int, count: int, now: float) -> deque[float]:
        known = list(self._lying.get(mtype, ()))[-count:]
        return deque((*known, *[now] * (count - len(known))))

    def _expire(self, queue: MessageQueue, now: float) -> None:
        for mtype, since in self._lying.items():
            while since and now - since[0] >= EXPIRY_SECONDS:
                since.popleft()
                with suppress(QueueEmpty):
                    data, _ = sysvraw.receive(queue, mtype)
                    self._lying_bytes -= len(data)
                    self._tally.count(Count.EXPIRED)
