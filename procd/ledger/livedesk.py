"""The desk of a running service's ledger: it also sees what waits and runs in the arena."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import replace

from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.layout import Damaged, Meta
from procd.ipc.words import SlotState
from procd.ledger import desk
from procd.ledger.desk import PAGE, SHOWN_BYTES, Desk, Json
from procd.ledger.record import Record, name_of
from procd.ledger.schema import State
from procd.ledger.slots import LedgerArena, task_id
from procd.ledger.store import Store

RUNNING = "running"


class LiveDesk(Desk):
    """*waiting* are the tasks of the ledger that the arena has no room for at the moment."""

    def __init__(
        self,
        store: Store,
        arena: LedgerArena,
        waiting: MutableSequence[int],
        on_retry: Callable[[Sequence[int]], None],
        cancel: Callable[[int], bool],
    ) -> None:
        """*cancel* one in the arena, by its token."""
        super().__init__(store, on_retry)
        self._arena = arena
        self._waiting = waiting
        self._cancel = cancel

    def list(self, request: Json) -> Json:
        """As of a file, and with what is in the arena."""
        wanted = request.get("state")
        if wanted not in (None, State.QUEUED, State.DELAYED, RUNNING):
            return super().list(request)
        offset = request.get("offset")
        offset = offset if isinstance(offset, int) and offset > 0 else 0
        tasks = [t for t in self._arena.live() if wanted in (None, _state(t[1]))]
        waiting = list(self._waiting) if wanted in (None, State.QUEUED) else []
        letters = 0 if wanted else self.store.counts().get(State.DEAD, 0)
        lines = [self._line(*task) for task in tasks[offset : offset + PAGE]]
        left = max(0, offset - len(tasks))
        for number in waiting[left : left + PAGE - len(lines)]:
            record = self.store.show(number)
            lines += [desk.line(record)] if record else []
        left = max(0, left - len(waiting))
        if letters and len(lines) < PAGE:
            found = self.store.page([State.DEAD], PAGE - len(lines), left)
            lines += [desk.line(record) for record in found]
        return {"total": len(tasks) + len(waiting) + letters, "tasks": lines}

    def cancel(self, request: Json) -> Json:
        """Cancel what is named, in the arena or still to be put there."""
        ids = request.get("ids")
        wanted = (
            {number for number in ids if type(number) is int} if isinstance(ids, list) else set()
        )
        there = {task_id(token, meta): token for token, _, _, meta in self._arena.live()}
        found = [n for n in wanted & there.keys() if self._cancel(there[n])]
        waiting = wanted & set(self._waiting)
        for number in self.store.cancel(sorted(waiting), time.time()) if waiting else ():
            self._waiting.remove(number)
            found.append(number)
        return {"ids": found, "count": len(found)}

    def _line(self, token: int, state: SlotState, attempt: int, meta: Meta) -> Json:
        name = None
        if meta.flags & lay.NAMED and meta.payload_bytes <= self._arena.layout.slot_bytes:
            with suppress(Damaged):  # or it is over by now, and another one's
                name = name_of(self._arena.payload(token))
        return desk.line(_record(token, state, attempt, meta, name))

    def show(self, request: Json) -> Json:
        """As of a file, or what is in the arena."""
        number = request.get("id")
        found = next((t for t in self._arena.live() if task_id(t[0], t[3]) == number), None)
        if found is None:
            return super().show(request)
        token, state, attempt, meta = found
        try:
            payload = self._arena.payload(token)
        except Damaged:
            payload = b""
        name = name_of(payload) if meta.flags & lay.NAMED else None
        data = base64.b64encode(payload[:SHOWN_BYTES]).decode()
        record = _record(token, state, attempt, meta, name)
        return {"task": desk.page(replace(record, data_bytes=len(payload)), None) | {"data": data}}


def _state(state: SlotState) -> str:
    names = {SlotState.RUNNING: RUNNING, SlotState.DELAYED: State.DELAYED}
    return names.get(state, State.QUEUED)


def _record(token: int, state: SlotState, attempt: int, meta: Meta, name: str | None) -> Record:
    return Record(
        task_id(token, meta),
        _state(state),  # type: ignore[arg-type] # `running` is the arena's word, not the ledger's
        meta.priority,
        meta.src_worker_id,
        min(attempt + (state is SlotState.RUNNING), words.MAX_ATTEMPTS),
        meta.accepted_at,
        None,
        name,
        None,
        None,
        None,
        meta.payload_bytes,
    )
