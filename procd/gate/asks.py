"""Who waits for which task: several programs for one that has a key, or one program twice."""

from __future__ import annotations

from typing import cast

from procd.errors import TaskRejected
from procd.gate.session import Session
from procd.ipc import wire
from procd.ipc.frames import Frame
from procd.tasks.options import PLAIN, Given, Options


def options_of(frame: Frame | None, ask: int) -> Options:
    """Return the options that came before an ask; raises TaskRejected."""
    if frame is None or frame.ask != ask:
        return PLAIN
    try:
        given = wire.unpack(frame.data or b"")
        return PLAIN.but(cast("Given", given))  # which checks it
    except (TypeError, ValueError, AttributeError) as error:
        raise TaskRejected(f"its options: {error}") from None


class Asks:
    """The asks of all sessions that are not settled; session.asks says the same the other way."""

    def __init__(self) -> None:
        self._of: dict[int, list[tuple[Session, int]]] = {}  # session and its ask, by task id

    def add(self, task_id: int, session: Session, ask: int) -> None:
        session.asks[ask] = task_id
        self._of.setdefault(task_id, []).append((session, ask))

    def first(self, task_id: int) -> Session | None:
        """Return the session that has waited the longest for a task."""
        waiting = self._of.get(task_id)
        return waiting[0][0] if waiting else None

    def settle(self, task_id: int) -> list[tuple[Session, int]]:
        """Return who waits for a task, and does no more."""
        waiting = self._of.pop(task_id, [])
        for session, ask in waiting:
            del session.asks[ask]
        return waiting

    def leave(self, session: Session, ask: int) -> None:
        """One ask is answered for good."""
        task_id = session.asks.pop(ask)
        waiting = self._of[task_id]
        waiting.remove((session, ask))
        if not waiting:
            del self._of[task_id]

    def drop(self, session: Session) -> None:
        for ask in list(session.asks):
            self.leave(session, ask)
