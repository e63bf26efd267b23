"""What the master must do about its processes: compare what there is with what is wanted.

Pure: no clocks, no signals, no descriptors. The master feeds events and the time in; it
gets actions out and carries them out. Start, reload, crash, scale, recycle and stop only
change what is wanted or a row; every rule about who is forked, told to serve, stopped or
killed is in this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

from procd.ipc.scoreboard import Role
from procd.master import states
from procd.master.backoff import Backoff
from procd.master.states import GOING, SEATED, UP, Row, Seat, State, base_seat, spare_seat

KILL_MARGIN = 0.5  # seconds that a process gets past its deadline to leave by itself

ORDERED_AHEAD = 8  # of each role, from a template that still imports: orders carry descriptors


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
    beside: tuple[Seat, ...] = ()  # of roles that belong to no generation

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
    turns = _turns(table)
    filled = {row.seat for row in table if row.state not in GOING and row.row not in turns}
    for number in sorted(want.bases):
        if base_seat(number) not in filled:
            yield base_seat(number)
    if want.shares and want.has_spare and spare_seat(want.base) not in filled:
        yield spare_seat(want.base)
    yield from (seat for seat in want.beside if seat not in filled)
    for generation in sorted(want.generations):
        if Seat(Role.TEMPLATE, 0, generation) not in filled:
            yield Seat(Role.TEMPLATE, 0, generation)
    for share in want.shares:
        for number in range(share.count):
            seat = Seat(share.role, number, share.generation)
            if seat not in filled:
                yield seat


def _turns(table: list[Row]) -> set[int]:
    """Return the rows that are replaced now: of those of a role that ask for it, one."""
    others = {row.seat for row in table if row.state not in GOING and not row.retires}
    asking = [row for row in table if row.retires and row.state not in GOING]
    asking.sort(key=lambda row: (row.seat not in others, row.row))
    return {row.row for row in {row.seat.role: row for row in reversed(asking)}.values()}


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
    if seat.role in (Role.BASE, *states.BESIDE):
        return None
    if seat.role in (Role.TEMPLATE, Role.SPARE):
        return base_seat(base)
    return Seat(Role.TEMPLATE, 0, seat.generation)


def _callable(table: list[Row], want: Want) -> Iterator[Action]:
    serving = {(share.role, share.generation) for share in want.shares if share.serves}
    for row in table:
        is_wanted = (row.seat.role, row.seat.generation) in serving or row.seat in want.beside
        if row.state is State.READY and is_wanted:
            yield Call(row.row)


def _outgoing(table: list[Row], want: Want) -> Iterator[Action]:
    count = {(share.role, share.generation): share.count for share in want.shares}
    successors = {row.seat for row in table if row.state is State.SERVING and not row.retires}
    turns = _turns(table)
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
        elif seat.role in states.BESIDE:
            unwanted = seat not in want.beside
        else:
            unwanted = seat.number >= count.get((seat.role, seat.generation), 0)
        if unwanted and (row.state not in UP or seat.role not in states.DISPATCHING):
            yield Kill(row.row)  # it holds nothing that could be finished
        elif unwanted or (row.row in turns and seat in successors):
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
    leaving = [row.seat for row in rows if row.state is State.DRAINING]
    going = {seat.generation for seat in leaving if seat.role not in states.BESIDE}
    return sorted(going - want.generations)
