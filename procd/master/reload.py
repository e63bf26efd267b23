"""A reload as a transaction: what may begin when, and when it is won, refused or over.

Pure. A new generation boots beside the old one; it takes over only when every process of
it is ready, and any failure until then is a refusal that the old one never notices. After
the switch a death is an ordinary crash. Reloads are serial; whatever is asked for during
one joins one more that begins when it is over, for only that one holds what is on disk
now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import Share, Want
from procd.master.states import Row, State

ACK_SECONDS = 1.0  # how long a switch waits for "I accept"


class Phase(Enum):
    """Where the transaction stands."""

    IDLE = auto()
    BOOTING = auto()
    CROWDED = auto()  # all are ready, but as many old generations drain as may
    SWITCHING = auto()


class Verdict(Enum):
    """What is to be done with the transaction now."""

    WAIT = auto()
    MAKE_ROOM = auto()  # all are ready: hurry the oldest draining generation first
    SWITCH = auto()  # all are ready: let the new generation serve
    FINISH = auto()  # the new one serves: let the old one go
    REFUSE = auto()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many processes of each role there should be."""

    worker: int
    task: int

    def of(self, role: Role) -> int:
        return self.worker if role is Role.WORKER else self.task


@dataclass(frozen=True, slots=True)
class Reload:
    """The transaction under way, and what serves meanwhile.

    *serving* maps a role to the generation that serves it; empty before the first.
    """

    phase: Phase = Phase.IDLE
    generation: int = 0  # the newest one that was ever begun
    roles: tuple[Role, ...] = ()  # which the transaction replaces
    began: float = 0.0
    deadline: float = 0.0
    failure: str | None = None
    serving: dict[Role, int] = field(default_factory=dict)

    def begin(self, roles: tuple[Role, ...], now: float, boot_timeout: float) -> Reload:
        return replace(
            self,
            phase=Phase.BOOTING,
            generation=self.generation + 1,
            roles=roles,
            began=now,
            deadline=now + boot_timeout,
            failure=None,
        )

    def fail(self, generation: int, reason: str) -> Reload:
        """Note the first failure of the booting generation; later than that it is none."""
        boots = self.phase in (Phase.BOOTING, Phase.CROWDED)
        if not boots or generation != self.generation or self.failure is not None:
            return self
        return replace(self, failure=reason)

    def again(self) -> Reload:
        """What boots is not wanted any more, and no failure: the same generation boots anew."""
        return replace(self, phase=Phase.BOOTING, failure=None)

    def make_room(self) -> Reload:
        return replace(self, phase=Phase.CROWDED)

    def switch(self, now: float) -> Reload:
        return replace(self, phase=Phase.SWITCHING, deadline=now + ACK_SECONDS)

    def finish(self) -> Reload:
        serving = self.serving | dict.fromkeys(self.roles, self.generation)
        return replace(self, phase=Phase.IDLE, serving=serving)

    def refuse(self) -> Reload:
        return replace(self, phase=Phase.IDLE)

    def judge(  # noqa: PLR0911 - a table of verdicts
        self, rows: Iterable[Row], counts: Counts, now: float, *, room: bool
    ) -> Verdict:
        """Say what is due; *room* = one more generation may begin to drain."""
        if self.phase is Phase.IDLE:
            return Verdict.WAIT
        mine = [row for row in rows if row.seat.generation == self.generation]
        if self.phase is Phase.CROWDED:
            if self.failure is not None:
                return Verdict.REFUSE
            return Verdict.SWITCH if room else Verdict.WAIT
        if self.phase is Phase.BOOTING:
            if self.failure is not None or now >= self.deadline:
                return Verdict.REFUSE
            if not (self._have(mine, counts, (State.READY,)) and self._has_template(mine)):
                return Verdict.WAIT
            return Verdict.SWITCH if room else Verdict.MAKE_ROOM
        done = self._have(mine, counts, (State.SERVING,)) or now >= self.deadline
        return Verdict.FINISH if done else Verdict.WAIT

    def _have(self, mine: list[Row], counts: Counts, states: tuple[State, ...]) -> bool:
        seats = {row.seat for row in mine if row.state in states}
        return all(
            sum(seat.role is role for seat in seats) >= counts.of(role) for role in self.roles
        )

    @staticmethod
    def _has_template(mine: list[Row]) -> bool:
        # With no worker at all it is the template alone that shows the code to be good.
        return any(row.seat.role is Role.TEMPLATE and row.state is State.READY for row in mine)

    def want(self, counts: Counts, coming: Counts, max_draining: int) -> Want:
        """Return what there should be while the transaction stands so.

        *counts* of what serves, *coming* of what may take over.
        """
        shares = [
            Share(role, generation, counts.of(role), serves=True)
            for role, generation in self.serving.items()
        ]
        if self.phase is not Phase.IDLE and self.failure is None:
            serves = self.phase is Phase.SWITCHING
            shares += [Share(role, self.generation, coming.of(role), serves) for role in self.roles]
        return Want(tuple(shares), max_draining - (self.phase is Phase.CROWDED))

    def late(self, rows: Iterable[Row], counts: Counts) -> str:
        """Say in words what was not ready by the deadline."""
        seconds = f"{self.deadline - self.began:g} s (boot_timeout)"
        mine = [row for row in rows if row.seat.generation == self.generation]
        if not self._has_template(mine):
            return f"not ready within {seconds}: the import of the app has not ended"
        ready = sum(row.state is State.READY for row in mine if row.seat.role in self.roles)
        total = sum(counts.of(role) for role in self.roles)
        return f"not ready within {seconds}: {ready} of {total} processes are, on_worker_start?"
