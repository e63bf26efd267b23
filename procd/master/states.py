"""One process as its master sees it: its seat, its state, and what can happen to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from procd.ipc.scoreboard import Role

SEATED = (Role.WORKER, Role.TASK)
BY_BASE = (Role.BASE, Role.SPARE)  # whose generations are those of bases
# Of no generation, each a fork of the master's.
BESIDE = (Role.INGRESS, Role.LEDGER, Role.GATE, Role.LOGGER)
# Who may hold tasks, and is given time to leave.
DISPATCHING = tuple(role for role in (*SEATED, *BESIDE) if role is not Role.LOGGER)


class State(Enum):
    """Where one process stands, as its master sees it."""

    FORKING = auto()  # asked for; its pid is not known yet
    BOOTING = auto()  # imports, or runs on_worker_start
    READY = auto()  # could serve; waits for its whole generation
    CALLED = auto()  # told to serve; has not said that it does
    SERVING = auto()
    DRAINING = auto()  # finishes what it holds and leaves
    KILLED = auto()  # SIGKILL sent, not reaped yet


class Event(Enum):
    """What can happen to a process. An exit is no event: its row is gone."""

    FORKED = auto()
    BECAME_READY = auto()
    TAKE = auto()  # a spare becomes a template
    CALL = auto()
    SERVES = auto()
    STOP = auto()
    KILL = auto()


_S, _E = State, Event

# A pair that is missing here cannot happen; step() raises on it.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.FORKING, _E.FORKED): _S.BOOTING,
    (_S.FORKING, _E.TAKE): _S.FORKING,
    (_S.FORKING, _E.STOP): _S.DRAINING,
    (_S.FORKING, _E.KILL): _S.KILLED,
    (_S.BOOTING, _E.BECAME_READY): _S.READY,
    (_S.BOOTING, _E.TAKE): _S.BOOTING,
    (_S.BOOTING, _E.STOP): _S.DRAINING,
    (_S.BOOTING, _E.KILL): _S.KILLED,
    (_S.READY, _E.TAKE): _S.BOOTING,
    (_S.READY, _E.CALL): _S.CALLED,
    (_S.READY, _E.STOP): _S.DRAINING,
    (_S.READY, _E.KILL): _S.KILLED,
    (_S.CALLED, _E.SERVES): _S.SERVING,
    (_S.CALLED, _E.STOP): _S.DRAINING,
    (_S.CALLED, _E.KILL): _S.KILLED,
    (_S.SERVING, _E.STOP): _S.DRAINING,
    (_S.SERVING, _E.KILL): _S.KILLED,
    # What a process says just after it was told to go changes nothing.
    (_S.DRAINING, _E.FORKED): _S.DRAINING,
    (_S.DRAINING, _E.BECAME_READY): _S.DRAINING,
    (_S.DRAINING, _E.SERVES): _S.DRAINING,
    (_S.DRAINING, _E.STOP): _S.DRAINING,
    (_S.DRAINING, _E.KILL): _S.KILLED,
    (_S.KILLED, _E.FORKED): _S.KILLED,
    (_S.KILLED, _E.BECAME_READY): _S.KILLED,
    (_S.KILLED, _E.SERVES): _S.KILLED,
    (_S.KILLED, _E.STOP): _S.KILLED,
    (_S.KILLED, _E.KILL): _S.KILLED,
}

UP = (State.CALLED, State.SERVING)
GOING = (State.DRAINING, State.KILLED)


class IllegalTransition(Exception):
    """An event came in a state that has no rule for it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One place to be filled: a role's number within a generation.

    Bases count their own generations; a spare is of the base that it was forked from. Ingress,
    ledger, gate and logger are of none (0): the number of an ingress's seat counts how often
    another one took over.
    """

    role: Role
    number: int
    generation: int


def base_seat(number: int) -> Seat:
    return Seat(Role.BASE, 0, number)


def spare_seat(base: int) -> Seat:
    return Seat(Role.SPARE, 0, base)


def ingress_seat(number: int) -> Seat:
    return Seat(Role.INGRESS, number, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """One process."""

    row: int
    incarnation: int
    seat: Seat
    state: State
    since: float  # monotonic seconds; when it was asked for
    deadline: float = inf  # when its time in this state is up
    retires: bool = False  # asked to be replaced (max_request)
    pid: int = 0

    def step(self, event: Event, deadline: float | None = None) -> Row:
        """Return this row after *event*; *deadline* belongs to a state that is entered.

        Raises IllegalTransition if the state has no rule for the event.
        """
        try:
            state = TRANSITIONS[self.state, event]
        except KeyError:
            raise IllegalTransition(f"{event.name} in {self.state.name}") from None
        if state is self.state:
            return self
        return replace(self, state=state, deadline=self.deadline if deadline is None else deadline)
