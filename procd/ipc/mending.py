"""What in the tables of an arena cannot be true. Pure.

Damage elsewhere costs one task, for its seal tells; but a word that is not true lets one task run
in the place of another, and a chunk that is nobody's has its tasks written over.
"""

from __future__ import annotations

from collections.abc import Sequence

from procd.ipc import words
from procd.ipc.layout import NOBODY, Layout

_SHIFT = 64 - words.EPOCH_BITS


def impossible_slots(layout: Layout, table: Sequence[int]) -> tuple[list[int], int]:
    """Return the slots with an epoch that no arena comes to, and the newest of the others."""
    least, last = layout.first_epoch, max(layout.first_epoch, words.LAST_EPOCH)
    epochs = [word >> _SHIFT for word in table]
    wrong = [number for number, epoch in enumerate(epochs) if not least <= epoch <= last]
    return wrong, max((epoch for epoch in epochs if least <= epoch <= last), default=least)


def ownerless_chunks(layout: Layout, owners: Sequence[int], table: Sequence[int]) -> list[int]:
    """Return the chunks that are nobody's though slots of theirs are in use."""
    size = layout.chunk_slots
    return [
        chunk
        for chunk, owner in enumerate(owners)
        if owner == NOBODY
        and any(word & words.STATE_MASK for word in table[chunk * size : (chunk + 1) * size])
    ]
