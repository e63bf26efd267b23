"""A failed task's result: written down in a task worker, an error again where it was sent."""

from __future__ import annotations

from procd.errors import NoSuchTask, TaskFailed
from procd.ipc import wire

_NO_SUCH_TASK = "no such task"  # behind text and traceback of one


def pack(text: str, trace: str, limit: int, *, is_unknown: bool = False) -> bytes:
    """Return a failure as a result; what does not fit a slot is cut, the traceback's top first.

    *is_unknown*: it will be NoSuchTask.
    """
    text = _clean(text)[: limit // 8]  # a character has 4 bytes at most
    more = [_NO_SUCH_TASK] if is_unknown else []
    room = limit - len(text.encode()) - 32
    tail = _clean(trace).encode()[-max(1, room) :].decode("utf-8", "ignore")
    return wire.pack([text, tail, *more])


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
    kind = NoSuchTask if parts[2:] == [_NO_SUCH_TASK] else TaskFailed
    return None, kind(*parts[:2])
