"""What a process may read of a slot that is another one's: its owner may free it at any moment.

So each answer is of a slot that was still the token's after it was read; None is of one that was
not. (Meta is written before the word that begins a new use of the slot, and never after.)
"""

from __future__ import annotations

from procd.ipc import layout as lay
from procd.ipc import words
from procd.ipc.arena import Arena
from procd.ipc.layout import Meta


def live_task(arena: Arena, token: int) -> tuple[int, bool] | None:
    """Return a live task's id and whether it is durable."""
    meta = _meta(arena, token)
    is_durable = bool(meta.flags & lay.DURABLE)
    return (meta.task_id or token, is_durable) if arena.is_live(token) else None


def done_task(arena: Arena, token: int) -> int | None:
    """Return a done task's id."""
    if words.slot_of(token) >= arena.layout.slots:
        return None
    task_id = _meta(arena, token).task_id or token
    return task_id if arena.is_done(token) else None


def ledger_word(arena: Arena, token: int) -> int | None:
    """Return what the ledger has noted of a task, also of one that is over and freed since."""
    noted = _meta(arena, token).ledger
    is_its = words.epoch_of(arena.word(words.slot_of(token))) == words.token_epoch(token)
    return noted if is_its else None


def _meta(arena: Arena, token: int) -> Meta:
    at = arena.layout.body_at(words.slot_of(token))
    return Meta.unpack(arena.map[at : at + lay.META_BYTES])
