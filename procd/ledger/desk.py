"""What a person asks the ledger, and what it answers: plain values, pages that fit a message.

It serves a running service's ledger and, where nobody runs, the command line itself.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence

from procd.ledger.faults import LedgerError
from procd.ledger.record import Record
from procd.ledger.schema import State
from procd.ledger.store import Store

Json = dict[str, object]

PAGE = 100  # tasks in one answer
SHOWN_BYTES = 24 * 1024  # of a task's data, and of its traceback
LINE = 300  # characters of an error in a list


class Desk:
    """Answers by the file alone. *on_retry* is told of tasks that are to run again."""

    def __init__(self, store: Store, on_retry: Callable[[Sequence[int]], None]) -> None:
        self.store = store
        self._on_retry = on_retry

    def answer(self, request: Json) -> Json:
        """Return {"ok": True, ...} or {"ok": False, "error": ...}; never raises LedgerError."""
        verbs = {
            "list": self.list,
            "show": self.show,
            "retry": self.retry,
            "cancel": self.cancel,
            "purge": self.purge,
        }
        verb = verbs.get(str(request.get("verb")))
        if verb is None:
            return {"ok": False, "exit": 2, "error": f"no verb {request.get('verb')!r}"}
        try:
            return {"ok": True} | verb(request)
        except LedgerError as error:
            return {"ok": False, "exit": 1, "error": str(error)}

    def list(self, request: Json) -> Json:
        """Return a page of the tasks in a state, the oldest first, and how many there are."""
        states = _states(request.get("state"))
        offset = _number(request.get("offset")) or 0
        counts = self.store.counts()
        found = self.store.page(states, PAGE, offset)
        return {
            "total": sum(counts.get(state, 0) for state in states),
            "tasks": [line(record) for record in found],
        }

    def show(self, request: Json) -> Json:
        """Return all that is known of one task."""
        number = _number(request.get("id"))
        record = None if number is None else self.store.show(number)
        if record is None:
            return {"task": None}
        data = self.store.data(record.id, SHOWN_BYTES)
        return {"task": page(record, data)}

    def retry(self, request: Json) -> Json:
        """Let dead letters run again."""
        found = self.store.retry(_numbers(request.get("ids")))
        self._on_retry(found)
        return _changed(request, found)

    def cancel(self, request: Json) -> Json:
        """Cancel what is named and not over."""
        return _changed(request, self.store.cancel(_numbers(request.get("ids")) or [], time.time()))

    def purge(self, request: Json) -> Json:
        """Forget dead letters, or what is named."""
        found = self.store.purge(_numbers(request.get("ids")))
        return _changed(request, found)


def line(record: Record) -> Json:
    """Return what a list says of a task."""
    return {
        "id": record.id,
        "state": str(record.state),
        "name": record.name,
        "priority": record.priority,
        "src_worker_id": record.src_worker_id,
        "attempts": record.attempts,
        "accepted_at": record.accepted_at,
        "due": record.due or None,
        "finished_at": record.finished_at,
        "how": record.how,
        "error": None if record.error is None else record.error[:LINE],
        "data_bytes": record.data_bytes,
    }


def page(record: Record, data: bytes | None) -> Json:
    """Return what is shown of one task; *data* is the beginning of it."""
    return line(record) | {
        "error": None if record.error is None else record.error[:SHOWN_BYTES],
        "traceback": None if record.traceback is None else record.traceback[-SHOWN_BYTES:],
        "data": None if data is None else base64.b64encode(data).decode(),
    }


def _changed(request: Json, found: list[int]) -> Json:
    return {"ids": found if request.get("ids") is not None else None, "count": len(found)}


def _states(name: object) -> tuple[State, ...]:
    if name is None:
        return (State.QUEUED, State.DELAYED, State.DEAD)
    return tuple(state for state in State if state == name)


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def _numbers(value: object) -> list[int] | None:
    if not isinstance(value, list):
        return None
    return [number for item in value if (number := _number(item)) is not None]
