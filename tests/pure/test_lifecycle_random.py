"""Random deaths, readiness, reloads, scales, pauses: what holds at each step and at the end."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import Kill, Stop, next_deadline, plan
from procd.master.reload import Counts, Phase
from procd.master.states import GOING, SEATED, UP, State
from tests.pure.world import BASE, BOTH, World

counts = st.integers(1, 3)
steps = st.lists(st.integers(0, 10**6), max_size=150)
PROGRESS, DEATH, PAUSE, RELOAD, SCALE, RETIRE = range(6)
OFTEN = (PROGRESS,) * 9 + (DEATH, PAUSE, RELOAD, RELOAD, SCALE, RETIRE)


def one_step(world: World, number: int, *, deaths: bool) -> None:
    kind = OFTEN[number % len(OFTEN)]
    number //= len(OFTEN)
    is_idle = world.reload.phase is Phase.IDLE and bool(world.reload.serving)
    if kind == PAUSE:
        world.pass_time((0.05, 0.5, 3.0, 40.0)[number % 4])
    elif kind == RELOAD and is_idle:
        world.begin((BOTH, (Role.TASK,))[number % 2])
    elif kind == SCALE and is_idle:
        world.counts = Counts(1 + number % 3, number % 4)
        world.settle()
    elif kind in (PROGRESS, DEATH, RETIRE) and world.rows:
        to_one(world, kind, sorted(world.rows)[number % len(world.rows)], deaths=deaths)


def to_one(world: World, kind: int, number: int, *, deaths: bool) -> None:
    if kind == PROGRESS:
        world.go_on(number)
    elif kind == DEATH and deaths:
        world.die(number)
    elif kind == RETIRE and world.rows[number].state is State.SERVING:
        world.retire(number)


def check_actions(world: World) -> None:
    """What was just done was right, given how the row stood before."""
    serving = set(world.reload.serving.items())
    for action, row in world.done:
        if row is None or row.seat.role not in SEATED:
            continue
        seat = row.seat
        wanted = (seat.role, seat.generation) in serving
        wanted = wanted and seat.number < world.counts.of(seat.role)
        if isinstance(action, Stop) and wanted:
            assert row.retires, f"{seat} serves and is stopped"
            heirs = [each for each in world.of(seat) if each.row != row.row]
            assert any(each.state is State.SERVING for each in heirs)
        if isinstance(action, Stop):
            assert seat.generation not in world.refused
        if isinstance(action, Kill):
            assert row.state not in UP, f"{seat} serves and is killed"
    world.done.clear()


def check_table(world: World) -> None:
    rows = list(world.rows.values())
    seats = Counter(each.seat for each in rows if each.state not in GOING and not each.retires)
    assert all(count == 1 for count in seats.values())
    draining = {
        each.seat.generation
        for each in rows
        if each.state is State.DRAINING and each.deadline > world.now
    }
    assert len(draining - world.want().generations) <= world.max_draining
    assert not plan(rows, world.want(), world.held, world.now)


def check_deadline(world: World) -> None:
    """Nothing becomes due by time alone before the next deadline."""
    due = next_deadline(world.rows.values(), world.want(), world.held, world.now)
    assert due > world.now
    for moment in (due - 1e-6, world.now + 1e6):
        if moment < due:
            assert not plan(world.rows.values(), world.want(), world.held, moment)


def check_service(world: World, before: dict[Role, int]) -> None:
    """Without deaths as many serve at every moment as did at the start."""
    for role, strength in before.items():
        generation = world.reload.serving[role]
        up = {
            each.seat.number
            for each in world.serving(generation)
            if each.seat.role is role and each.state is State.SERVING
        }
        assert len(up) >= min(strength, world.counts.of(role))


def check_end(world: World) -> None:
    """It has come to rest where it should."""
    wanted = {BASE}
    for share in world.want().shares:
        wanted |= {
            type(BASE)(share.role, number, share.generation) for number in range(share.count)
        }
    wanted |= {type(BASE)(Role.TEMPLATE, 0, number) for number in world.want().generations}
    assert world.reload.phase is Phase.IDLE
    assert Counter(each.seat for each in world.rows.values()) == Counter(wanted)
    for each in world.rows.values():
        assert each.state is (State.SERVING if each.seat.role in SEATED else State.READY)


@settings(max_examples=100)
@given(steps, counts, st.integers(0, 2), st.integers(1, 3), st.booleans())
def test_whatever_dies_it_comes_to_what_is_wanted(
    numbers: list[int],
    worker: int,
    task: int,
    max_draining: int,
    is_up: bool,  # noqa: FBT001 - a case
) -> None:
    world = World(worker, task, max_draining)
    world.begin()
    if is_up:
        world.calm_down()
    for number in numbers:
        if not world.reload.serving and world.reload.phase is Phase.IDLE:
            return  # the first generation was refused: the service ends
        one_step(world, number, deaths=True)
        check_actions(world)
        check_table(world)
        check_deadline(world)
    world.calm_down()
    if world.reload.serving:
        check_end(world)


@settings(max_examples=60)
@given(steps, counts, st.integers(0, 2), st.integers(1, 3))
def test_without_deaths_the_service_has_its_full_strength_all_the_time(
    numbers: list[int], worker: int, task: int, max_draining: int
) -> None:
    world = World(worker, task, max_draining)
    world.begin()
    world.calm_down()
    strength = {role: world.counts.of(role) for role in BOTH}
    for number in numbers:
        one_step(world, number, deaths=False)
        for role in BOTH:
            # More are asked for by a scale only; they count once they have come up.
            strength[role] = min(strength[role], world.counts.of(role))
        check_service(world, strength)
    world.calm_down()
    check_end(world)
