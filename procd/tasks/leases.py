"""The slots that a process may write tasks into: those of the chunks that it has leased."""

from __future__ import annotations

from collections import deque

from procd.ipc.arena import Arena


class Leases:
    """One process's chunks, with their free slots in the order in which they came free."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._free: dict[int, deque[int]] = {}  # by chunk

    def chunks(self) -> list[int]:
        """Return the chunks that are leased."""
        return list(self._free)

    def take(self) -> int | None:
        """Return a free slot, of another chunk if need be; None when there is none."""
        for slots in self._free.values():
            if slots:
                return slots.popleft()
        leased = self._arena.lease()
        if not leased:
            return None
        slots = deque(leased)
        self._free[leased[0] // self._arena.layout.chunk_slots] = slots
        return slots.popleft()

    def give(self, slot: int) -> None:
        """Have a slot free again; a whole chunk goes back while another has room."""
        size = self._arena.layout.chunk_slots
        chunk = slot // size
        slots = self._free[chunk]
        slots.append(slot)
        # Others may need it more.
        if len(slots) == size and any(o is not slots and o for o in self._free.values()):
            del self._free[chunk]
            self._arena.give_back(chunk)
