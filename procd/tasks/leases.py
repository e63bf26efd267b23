"""The slots that a process may write tasks into: those of the chunks that it has leased."""

from __future__ import annotations

from collections import deque

from procd.ipc.arena import Arena


class Leases:
    """One process's chunks, with their free slots in the order in which they came free."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._free: dict[int, deque[int]] = {}  # by chunk
        self._with_room: dict[int, deque[int]] = {}  # those of them that are not empty

    def chunks(self) -> list[int]:
        """Return the chunks that are leased."""
        return list(self._free)

    def take(self) -> int | None:
        """Return a free slot, of another chunk if need be; None when there is none."""
        if not self._with_room:
            leased = self._arena.lease()
            if not leased:
                return None
            chunk = leased[0] // self._arena.layout.chunk_slots
            self._free[chunk] = self._with_room[chunk] = deque(leased)
        chunk, slots = next(iter(self._with_room.items()))
        slot = slots.popleft()
        if not slots:
            del self._with_room[chunk]
        return slot

    def give(self, slot: int) -> None:
        """Have a slot free again; a whole chunk goes back while another has room."""
        size = self._arena.layout.chunk_slots
        chunk = slot // size
        slots = self._with_room[chunk] = self._free[chunk]
        slots.append(slot)
        # Others may need it more.
        if len(slots) == size and len(self._with_room) > 1:
            del self._free[chunk], self._with_room[chunk]
            self._arena.give_back(chunk)
