"""What a process may do next, and what the master must do about it.

Pure: no clocks, no signals, no descriptors. The master feeds events and the time in; it
gets actions out and carries them out. Start, reload, crash, scale, recycle and stop only
change what is wanted or a row; every rule about who is forked, told to serve, stopped or
killed is in this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import inf

from procd.ipc.scoreboard import Role
from procd.master.backoff import Backoff

KILL_MARGIN = 0.5  # seconds that a process gets past its deadline to leave by itself

ORDERED_AHEAD = 8  # of each role, from a template that still imports: orders carry descriptors

SEATED = (Role.WORKER, Role.TASK)
BY_BASE = (Role.BASE, Role.SPARE)  # whose generations are those of bases


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

    Bases count their own generations; a spare is of the base that it was forked from.
    """

    role: Role
    number: int
    generation: int


def base_seat(number: int) -> Seat:
    return Seat(Role.BASE, 0, number)


def spare_seat(base: int) -> Seat:
    return Seat(Role.SPARE, 0, base)


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


@dataclass(frozen=True, slots=True)
class Share:
    """So many of a role, of this generation."""

    role: Role
    generation: int
    count: int
    serves: bool  # False: boots beside the serving one, and waits when it is ready


@dataclass(frozen=True, slots=True)
class Want:
    """What there should be. Templates and bases follow from it."""

    shares: tuple[Share, ...] = ()
    max_draining: int = 3
    base: int = 0  # the base that forks templates
    next_base: int | None = None  # one that boots beside it
    has_spare: bool = False  # a process is forked ahead, to become the next template

    @property
    def generations(self) -> frozenset[int]:
        return frozenset(share.generation for share in self.shares)

    @property
    def bases(self) -> frozenset[int]:
        numbers = (self.base, self.next_base) if self.shares else ()
        return frozenset(number for number in numbers if number is not None)


@dataclass(frozen=True, slots=True)
class Fork:
    """Have a process forked for a seat."""

    seat: Seat


@dataclass(frozen=True, slots=True)
class Call:
    """Tell a ready process to serve."""

    row: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell a process to finish and leave."""

    row: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """Its generation has drained long enough: its deadline is now."""

    row: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send SIGKILL."""

    row: int


Action = Fork | Call | Stop | Hurry | Kill


def plan(rows: Iterable[Row], want: Want, held: Mapping[Seat, Backoff], now: float) -> list[Action]:
    """Compare the table with what is wanted and say what to do, in the order of doing.

    Kills come first, then forks, calls and stops: a process is stopped only when the one
    that replaces it is there.
    """
    table = list(rows)
    return [
        *_overdue(table, now),
        *_missing(table, want, held, now),
        *_callable(table, want),
        *_outgoing(table, want),
        *_crowding(table, want, now),
    ]


def next_deadline(
    rows: Iterable[Row], want: Want, held: Mapping[Seat, Backoff], now: float
) -> float:
    """Return when plan() could say something new by time alone; inf = never."""
    table = list(rows)
    due = [_due(row) for row in table if row.state is not State.KILLED]
    due += [held[seat].not_before for seat in _forkable(table, want) if seat in held]
    return min((at for at in due if at > now or at == -inf), default=inf)


def _due(row: Row) -> float:
    return row.deadline + (KILL_MARGIN if row.state is State.DRAINING else 0)


def _overdue(table: list[Row], now: float) -> Iterator[Action]:
    for row in table:
        if row.state is not State.KILLED and now >= _due(row):
            yield Kill(row.row)


def _wanted(table: list[Row], want: Want) -> Iterator[Seat]:
    """Yield the seats of want that nobody fills, or whose process asks to be replaced."""
    filled = {row.seat for row in table if row.state not in GOING and not row.retires}
    for number in sorted(want.bases):
        if base_seat(number) not in filled:
            yield base_seat(number)
    if want.shares and want.has_spare and spare_seat(want.base) not in filled:
        yield spare_seat(want.base)
    for generation in sorted(want.generations):
        if Seat(Role.TEMPLATE, 0, generation) not in filled:
            yield Seat(Role.TEMPLATE, 0, generation)
    for share in want.shares:
        for number in range(share.count):
            seat = Seat(share.role, number, share.generation)
            if seat not in filled:
                yield seat


def _missing(
    table: list[Row], want: Want, held: Mapping[Seat, Backoff], now: float
) -> Iterator[Action]:
    for seat in _forkable(table, want):
        if seat not in held or now >= held[seat].not_before:
            yield Fork(seat)


def _forkable(table: list[Row], want: Want) -> Iterator[Seat]:
    """Yield the wanted seats for which somebody is there to fork them."""
    forkers = {row.seat for row in table if row.state is State.READY}
    # A template that still imports finds its first orders waiting when it is done.
    soon = {row.seat for row in table if row.state is State.BOOTING}
    for seat in _wanted(table, want):
        source = forked_from(seat, want.base)
        is_ahead = seat.role in SEATED and seat.number < ORDERED_AHEAD and source in soon
        if source is None or source in forkers or is_ahead:
            yield seat


def forked_from(seat: Seat, base: int) -> Seat | None:
    """Return whose fork a process of this seat is; None = the master's own."""
    if seat.role is Role.BASE:
        return None
    if seat.role in (Role.TEMPLATE, Role.SPARE):
        return base_seat(base)
    return Seat(Role.TEMPLATE, 0, seat.generation)


def _callable(table: list[Row], want: Want) -> Iterator[Action]:
    serving = {(share.role, share.generation) for share in want.shares if share.serves}
    for row in table:
        if row.state is State.READY and (row.seat.role, row.seat.generation) in serving:
            yield Call(row.row)


def _outgoing(table: list[Row], want: Want) -> Iterator[Action]:
    count = {(share.role, share.generation): share.count for share in want.shares}
    successors = {row.seat for row in table if row.state is State.SERVING and not row.retires}
    for row in table:
        if row.state in GOING:
            continue
        seat = row.seat
        if seat.role is Role.BASE:
            unwanted = seat.generation not in want.bases
        elif seat.role is Role.SPARE:
            unwanted = not want.shares or seat.generation != want.base
        elif seat.role is Role.TEMPLATE:
            unwanted = seat.generation not in want.generations
        else:
            unwanted = seat.number >= count.get((seat.role, seat.generation), 0)
        if unwanted and (row.state not in UP or seat.role not in SEATED):
            yield Kill(row.row)  # it holds nothing that could be finished
        elif unwanted or (row.retires and seat in successors):
            yield Stop(row.row)


def _crowding(table: list[Row], want: Want, now: float) -> Iterator[Action]:
    """Yield Hurry for the oldest generations beyond max_draining."""
    old = draining_generations(table, want)
    crowd = set(old[: max(0, len(old) - want.max_draining)])
    for row in table:
        if row.state is State.DRAINING and row.seat.generation in crowd and row.deadline > now:
            yield Hurry(row.row)


def draining_generations(rows: Iterable[Row], want: Want) -> list[int]:
    """Return the generations of which nothing is wanted but something still drains."""
    going = {row.seat.generation for row in rows if row.state is State.DRAINING}
    return sorted(going - want.generations)
