"""A failed task's result: written down in a task worker, an error again where it was sent."""

from __future__ import annotations

import traceback

from procd.errors import NoSuchTask, TaskCancelled, TaskExpired, TaskFailed, TaskTimeout
from procd.ipc import wire

FRAME_BYTES = 32  # around two texts and two words
TIMEOUT, EXPIRED, CANCELLED, UNKNOWN = "timeout", "expired", "cancelled", "unknown"
_KINDS: dict[object, type[TaskFailed]] = {
    TIMEOUT: TaskTimeout,
    EXPIRED: TaskExpired,
    CANCELLED: TaskCancelled,
    UNKNOWN: NoSuchTask,
}


def pack(text: str, trace: str, limit: int, kind: str = "", how: str = "") -> bytes:
    """Return a failure as a result; what does not fit a slot is cut, the traceback's top first.

    *kind* is one of those above if it is not the handler that failed; *how* is what ended its
    process, if it is that.
    """
    how = how[:50]
    room = limit - FRAME_BYTES - len(how)
    head = _clean(text).encode()[: room // 2 if trace else room]
    tail = _clean(trace).encode()[-max(1, room - len(head)) :]
    texts = [part.decode("utf-8", "ignore") for part in (head, tail)]
    return wire.pack([*texts, kind, how])


def told(error: BaseException) -> tuple[str, str]:
    """Return an exception in a line that ends with where it was raised, and its traceback."""
    trace = "".join(traceback.format_exception(error)).strip()
    text = "".join(traceback.format_exception_only(error)).strip()
    where = traceback.extract_tb(error.__traceback__)
    return text + (f" ({where[-1].filename}:{where[-1].lineno})" if where else ""), trace


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def outcome(packed: bytes, *, failed: bool) -> tuple[object, TaskFailed | None]:
    """Return a result's value, or None and the error; a result may be damaged, too."""
    try:
        value = wire.unpack(packed)
    except wire.Undecodable as undecodable:
        value, failed = [f"its result is damaged: {undecodable}"], True
    if not failed:
        return value, None
    parts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
    error = _KINDS.get(parts[2], TaskFailed) if len(parts) > 2 else TaskFailed
    return None, error(*parts[:2])
