"""Which connections of a draining worker go to an heir, and when.

It looks at all of them at the start and now and then, at those under way whenever a handler
has returned or the heir has answered. One that does not move is served as before; the log
says how many, and why.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from math import inf

from procd import logs
from procd.tasks.host import ProcessHost
from procd.worker.connection import CLOSING, HANDLING, Connection
from procd.worker.handover import Giver, Offer
from procd.worker.movable import HELD, MAX_BYTES, UNREAD, Holds, Stays, holds, packed

LOOK_SECONDS = 0.05  # how often it looks for connections that have become idle or movable
MAX_LOOK_SECONDS = 1.0  # where looking has not helped for a while
SETTLED_SECONDS = 0.5  # from then on the log says what stays: before, much is so for a moment
NO_HEIR = "no other worker serves"
NO_DESCRIPTORS = "the other worker is out of descriptors"


class Mover:
    """Finds connections that can move, and has them given to an heir."""

    def __init__(
        self,
        host: ProcessHost,
        connections: set[Connection],
        nobody: Holds,
        gone: Callable[[Connection], None],
    ) -> None:
        self.next_look = inf
        self._host = host
        self._connections = connections
        self._nobody = nobody
        self._giver = Giver(gone, host.changed.set)
        self._moves = False
        self._copes = "resume" in host.handlers
        self._began = self._asked = -inf
        self._pause = LOOK_SECONDS / 2
        self._had_heir = False
        self._busy: set[Connection] = set()  # looked at again whenever a handler has returned
        self._waiting: set[Connection] = set()  # for the heir to answer
        self._stays: dict[str, list[str]] = {}  # why → which, as last looked at
        self._has_collected = self._has_told = False
        self._moved = self._told = 0  # as last looked at, and as the log has it

    def begin(self, fds: Sequence[int]) -> None:
        """Move from now on, to the heir at the end of the pipe, if there is one."""
        if not self._moves:
            self._moves = True
            self._began = self.next_look = time.monotonic()
        self.meet(fds)

    def meet(self, fds: Sequence[int]) -> None:
        """Take the master's answer: the pipe to an heir, or none."""
        for fd in fds:
            self._giver.open(fd)
            self.next_look = 0
        self._host.changed.set()

    def end(self) -> None:
        """Give nothing more; what is on its way arrives."""
        self._moves, self.next_look = False, inf
        for connection in self._busy | self._waiting:
            connection.go_on()
        self._waiting.clear()

    def wants(self, connection: Connection) -> bool:
        """Tell whether a connection should handle no more here: the next look gives it away.

        Or has it go on. The look comes when the handler that has just returned is off the
        stack: before, it holds the connection.
        """
        if self._moves and self._giver.room:
            self._busy.add(connection)
            return True
        return False

    def is_about_to_move(self, connection: Connection) -> bool:
        return self._giver.has_heir and connection in self._waiting

    # Looking

    def look(self, now: float) -> None:
        """Give what can move now. Looks at all when that is due, else at what may be new."""
        if not self._moves:
            return
        lost, self._had_heir = self._had_heir and not self._giver.has_heir, self._giver.has_heir
        everything = lost or now >= self.next_look
        self._stays = {}
        self._look_at(everything=everything)
        self._ask(now)
        if not everything:
            return
        refused, self._giver.refused = self._giver.refused, []
        if refused:
            self._stays[NO_DESCRIPTORS] = refused
        moved, self._moved = self._giver.moved - self._moved, self._giver.moved
        self._pause = LOOK_SECONDS if moved else min(2 * self._pause, MAX_LOOK_SECONDS)
        self.next_look = now + self._pause
        if HELD in self._stays and not self._has_collected:
            # An exception that was caught holds its frames in a circle.
            self._has_collected = True
            gc.collect()
            self.next_look = now
        elif now - self._began > SETTLED_SECONDS:
            self._tell_once()

    def _look_at(self, *, everything: bool) -> None:
        among = self._connections if everything else self._busy | self._waiting
        rests, busy = self._sorted(among)
        del among  # it holds them, too, and is no app
        self._busy, self._waiting = busy, set()
        offers, looked = self._choose(rests)
        given = self._giver.give(offers)
        left = [offer.connection for offer in offers[given:]] + rests[looked:]
        if not self._giver.has_heir:
            for each in left:
                self._stay(each, NO_HEIR)
        self._waiting = set(left)
        for each in rests:
            each.go_on()  # nothing to do for one that was given

    def _sorted(self, among: set[Connection]) -> tuple[list[Connection], set[Connection]]:
        """Return those that rest, and those whose handler runs."""
        rests, busy = [], set()
        for connection in among:
            occupation = connection.occupation
            if occupation is None:
                rests.append(connection)
            elif occupation is not CLOSING:
                self._stay(connection, occupation)
                if occupation is HANDLING:
                    busy.add(connection)
        return rests, busy

    def _choose(self, rests: list[Connection]) -> tuple[list[Offer], int]:
        """Return what there is room for, and how many of *rests* it was chosen from."""
        offers: list[Offer] = []
        room = self._giver.room
        for index in range(len(rests)):
            if len(offers) >= room:
                return offers, index
            try:
                if not self._copes and holds(rests, index) != self._nobody:
                    raise Stays(HELD)  # noqa: TRY301 - an answer like the other one
                state = packed(rests[index].state)
                if len(state) + rests[index].unread_bytes > MAX_BYTES:
                    raise Stays(UNREAD)  # noqa: TRY301 - as above
                offers.append(Offer(rests[index], state))
            except Stays as stays:
                self._stay(rests[index], stays.why, stays.detail)
        return offers, len(rests)

    def _stay(self, connection: Connection, why: str, detail: str = "") -> None:
        where = f"{connection.remote} {detail}".strip()
        self._stays.setdefault(why, []).append(where)

    def _ask(self, now: float) -> None:
        """Ask the master for an heir; it answers."""
        if self._waiting and not self._giver.has_heir and now - self._asked > SETTLED_SECONDS:
            self._asked = now
            self._host.context.channel.send("heir")

    # Telling

    def _tell_once(self) -> None:
        if not self._has_told:
            self._has_told = True
            self._tell_moved()
            for why, which in self._stays.items():
                logs.info("connections stay", count=len(which), why=why, one=which[0])

    def _tell_moved(self) -> None:
        if self._giver.moved != self._told:
            self._told = self._giver.moved
            logs.info("connections moved", count=self._told)

    def close(self) -> None:
        """The worker leaves; what the heir has not answered for stands in the pipe, for it."""
        self._tell_moved()
        if self._giver.unanswered:
            logs.warning("connections left to an heir that hangs", count=self._giver.unanswered)
