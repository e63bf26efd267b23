"""A failed task's result: written down in a task worker, an error again where it was sent."""

from __future__ import annotations

from procd.errors import NoSuchTask, TaskFailed
from procd.ipc import wire

FRAME_BYTES = 32  # around two texts and a kind
UNKNOWN = "unknown"
_KINDS: dict[object, type[TaskFailed]] = {UNKNOWN: NoSuchTask}


def pack(text: str, trace: str, limit: int, kind: str = "") -> bytes:
    """Return a failure as a result; what does not fit a slot is cut, the traceback's top first.

    *kind* is one of those above if it is not the handler that failed.
    """
    text = _clean(text)[: limit // 8]  # a character has 4 bytes at most
    room = limit - len(text.encode()) - FRAME_BYTES
    tail = _clean(trace).encode()[-max(1, room) :].decode("utf-8", "ignore")
    return wire.pack([text, tail, kind])


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
