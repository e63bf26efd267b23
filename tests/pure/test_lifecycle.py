"""The rules of lifecycle.py one by one: who is forked, called, stopped or killed, and when."""

from __future__ import annotations

from math import inf

import pytest

from procd.ipc.scoreboard import Role
from procd.master.backoff import FIRST_DELAY, MAX_DELAY, STEADY_SECONDS, Backoff
from procd.master.lifecycle import (
    KILL_MARGIN,
    ORDERED_AHEAD,
    Action,
    Call,
    Fork,
    Hurry,
    Kill,
    Share,
    Stop,
    Want,
    forked_from,
    next_deadline,
    plan,
)
from procd.master.states import (
    GOING,
    Row,
    Seat,
    State,
    base_seat,
)
from tests.pure.world import BASE, BOTH, World, row

NOW = 100.0
S = State


def worker(number: int, generation: int = 1) -> Seat:
    return Seat(Role.WORKER, number, generation)


def template(generation: int = 1) -> Seat:
    return Seat(Role.TEMPLATE, 0, generation)


def share(generation: int = 1, count: int = 1, *, serves: bool = True) -> Share:
    return Share(Role.WORKER, generation, count, serves)


def planned(rows: list[Row], *shares: Share, now: float = NOW, most: int = 3) -> list[Action]:
    return plan(rows, Want(shares, most), {}, now)


def forkers(*generations: int) -> list[Row]:
    """A ready base and ready templates, in rows from 90 on."""
    seats = [BASE, *(template(generation) for generation in generations)]
    return [row(90 + index, seat, S.READY) for index, seat in enumerate(seats)]


# ---------------------------------------------------------------- what is forked


def test_everything_is_forked_in_its_turn() -> None:
    """First the base, by the ready base the template, by the one that imports the rest."""
    world = World(worker=2, task=1)
    world.begin()
    assert world.actions() == [Fork(BASE)]
    world.go_on(1)
    assert world.actions() == []
    world.go_on(1)
    assert world.actions() == [Fork(template())]
    world.go_on(2)
    assert world.actions() == [
        Fork(worker(0)),
        Fork(worker(1)),
        Fork(Seat(Role.TASK, 0, 1)),
    ]


def test_of_a_template_that_still_imports_only_so_many_are_ordered() -> None:
    imports = [forkers()[0], row(1, template(), S.BOOTING)]
    many = share(count=ORDERED_AHEAD + 3)
    assert planned(imports, many) == [Fork(worker(number)) for number in range(ORDERED_AHEAD)]
    assert len(planned(forkers(1), many)) == ORDERED_AHEAD + 3


def test_each_process_is_a_fork_of_its_own_generations_template() -> None:
    assert forked_from(BASE, 0) is None
    assert forked_from(template(3), 7) == base_seat(7)
    assert forked_from(worker(1, 3), 0) == forked_from(Seat(Role.TASK, 1, 3), 0) == template(3)
    assert planned([*forkers(1), row(1, template(2), S.FORKING)], share(2)) == [Kill(91)]


def test_the_wanted_seats_are_filled_and_no_others() -> None:
    rows = [*forkers(1), row(1, worker(1), S.BOOTING)]
    assert planned(rows, share(count=3)) == [Fork(worker(0)), Fork(worker(2))]


def test_a_leaving_process_fills_no_seat() -> None:
    for state in GOING:
        assert planned([*forkers(1), row(1, worker(0), state)], share()) == [Fork(worker(0))]


def test_a_dead_template_is_forked_again_and_costs_nobody() -> None:
    rows = [forkers(1)[0], row(1, worker(0), S.SERVING)]
    assert planned(rows, share()) == [Fork(template())]


def test_a_dead_base_is_forked_again_and_costs_nobody() -> None:
    rows = [forkers(1)[1], row(1, worker(0), S.SERVING)]
    assert planned(rows, share()) == [Fork(BASE)]


# ---------------------------------------------------------------- who serves


def test_a_new_generation_waits_for_the_word_when_it_is_ready() -> None:
    rows = [*forkers(1, 2), row(1, worker(0), S.SERVING), row(2, worker(0, 2), S.READY)]
    assert planned(rows, share(), share(2, serves=False)) == []
    assert planned(rows, share(), share(2)) == [Call(2)]


def test_the_old_generation_stops_only_when_it_is_not_wanted_any_more() -> None:
    rows = [*forkers(1, 2), row(1, worker(0), S.SERVING), row(2, worker(0, 2), S.CALLED)]
    assert planned(rows, share(), share(2)) == []
    assert planned(rows, share(2)) == [Kill(91), Stop(1)]


def test_kills_come_before_forks_before_calls_before_stops() -> None:
    rows = [
        *forkers(1, 2),
        row(1, worker(0), S.SERVING),
        row(2, worker(1), S.BOOTING, NOW),
        row(3, worker(0, 2), S.READY),
    ]
    actions = planned(rows, share(count=0), share(2, count=2))
    kinds = [type(action) for action in actions]
    assert actions[0] == Kill(2)
    assert kinds.index(Fork) < kinds.index(Call) < kinds.index(Stop)


@pytest.mark.parametrize("state", [S.FORKING, S.BOOTING, S.READY])
def test_a_refused_generation_is_killed_and_never_drained(state: State) -> None:
    rows = [*forkers(1, 2), row(1, worker(0), S.SERVING), row(2, worker(0, 2), state)]
    assert planned(rows, share()) == [Kill(92), Kill(2)]


def test_of_a_smaller_count_the_highest_numbers_drain() -> None:
    rows = [*forkers(1), *(row(n + 1, worker(n), S.SERVING) for n in range(3))]
    assert planned(rows, share(count=1)) == [Stop(2), Stop(3)]


def test_a_retiring_worker_is_replaced_before_it_goes() -> None:
    world = World(worker=1, task=0)
    world.begin()
    world.calm_down()
    old = world.of(worker(0))[0].row
    world.actions()
    world.retire(old)
    assert world.actions() == [Fork(worker(0))]
    new = world.of(worker(0))[1].row
    for _ in range(2):
        world.go_on(new)
    assert world.actions() == [Call(new)]
    world.go_on(new)
    assert world.actions() == [Stop(old)]
    world.go_on(old)
    assert [each.row for each in world.of(worker(0))] == [new]


def test_of_several_that_retire_one_goes_at_a_time() -> None:
    world = World(worker=1, task=3)
    world.begin()
    world.calm_down()
    old = {each.row for each in world.rows.values() if each.seat.role is Role.TASK}
    for number in sorted(old):
        world.retire(number)
    for left in (3, 2, 1):
        up = [row for row in world.serving(1) if row.seat.role is Role.TASK]
        assert len([row for row in up if row.row in old]) == left
        # One is replaced: until its successor serves and it is told to go, nobody else is.
        young = [row for row in world.rows.values() if row.seat.role is Role.TASK]
        (new,) = [row.row for row in young if row.row not in old and row.state is S.FORKING]
        while world.rows[new].state is not S.SERVING:
            assert len([row for row in world.serving(1) if row.seat.role is Role.TASK]) >= 3
            world.go_on(new)
        for number in [n for n in old if n in world.rows and world.rows[n].state is S.DRAINING]:
            world.go_on(number)
    world.calm_down()
    assert not old & world.rows.keys()
    assert len(world.serving(1)) == 4


def test_when_nothing_is_wanted_base_and_templates_are_killed_and_the_rest_drains() -> None:
    rows = [*forkers(1), row(1, worker(0), S.SERVING), row(2, worker(1), S.DRAINING, 1e9)]
    assert planned(rows) == [Kill(90), Kill(91), Stop(1)]


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("state", [S.FORKING, S.BOOTING])
def test_what_has_not_booted_by_its_deadline_is_killed(state: State) -> None:
    rows = [*forkers(1), row(1, worker(0), state, NOW)]
    assert planned(rows, share(), now=NOW - 0.001) == []
    assert planned(rows, share()) == [Kill(1)]


def test_a_draining_process_gets_a_margin_past_its_deadline() -> None:
    rows = [*forkers(1), row(1, worker(1), S.DRAINING, NOW)]
    assert planned(rows, share(count=0), now=NOW + KILL_MARGIN - 0.01) == []
    assert planned(rows, share(count=0), now=NOW + KILL_MARGIN) == [Kill(1)]


def test_a_killed_process_is_not_killed_again_however_long_it_takes() -> None:
    assert planned([*forkers(1), row(1, worker(5), S.KILLED, 0.0)], share(count=0)) == []


def test_a_seat_is_restarted_at_once_then_after_doubling_delays_up_to_a_cap() -> None:
    backoff, delays = Backoff(), []
    for _ in range(40):
        backoff = backoff.after_death(0.5, NOW)
        delays.append(round(backoff.not_before - NOW, 6))
    assert delays[:7] == [0.0, FIRST_DELAY, 0.2, 0.4, 0.8, 1.6, MAX_DELAY]
    assert set(delays[7:]) == {MAX_DELAY}


def test_five_seconds_alive_forget_earlier_deaths() -> None:
    assert STEADY_SECONDS == 5.0
    assert Backoff(7, 0.0).after_death(5.0, NOW) == Backoff(1, NOW)
    assert Backoff(7, 0.0).after_death(4.99, NOW) == Backoff(8, NOW + MAX_DELAY)


def test_a_seat_in_backoff_is_filled_when_its_time_comes() -> None:
    held = {worker(0): Backoff(2, NOW)}
    want = Want((share(count=2),))
    assert plan(forkers(1), want, held, NOW - 0.01) == [Fork(worker(1))]
    assert plan(forkers(1), want, held, NOW) == [Fork(worker(0)), Fork(worker(1))]


# ---------------------------------------------------------------- crowding


def test_beyond_max_draining_the_oldest_generations_are_hurried() -> None:
    rows = [
        *forkers(5),
        row(9, worker(0, 5), S.SERVING),
        *(row(n, worker(0, n), S.DRAINING, NOW + 20) for n in (1, 2, 3, 4)),
    ]
    assert planned(rows, share(5)) == [Hurry(1)]
    assert planned(rows, share(5), most=4) == []
    assert planned(rows, share(5), most=1) == [Hurry(1), Hurry(2), Hurry(3)]


def test_who_has_been_hurried_is_not_hurried_again() -> None:
    rows = [*forkers(3), row(9, worker(0, 3), S.SERVING)]
    rows += [row(n, worker(0, n), S.DRAINING, NOW + n - 1) for n in (1, 2)]
    assert planned(rows, share(3), most=1) == []


def test_a_scaled_away_process_of_the_serving_generation_does_not_crowd() -> None:
    rows = [*forkers(1), *(row(n, worker(n), S.DRAINING, NOW + 9) for n in (1, 2, 3))]
    assert planned([*rows, row(9, worker(0), S.SERVING)], share(), most=1) == []


def test_a_refused_generation_hurries_nobody() -> None:
    rows = [
        *forkers(2),
        row(1, worker(0, 1), S.DRAINING, NOW + 20),
        row(2, worker(0, 2), S.SERVING),
        row(3, worker(0, 3), S.KILLED),
    ]
    assert planned(rows, share(2), most=1) == []


# ---------------------------------------------------------------- the next deadline


def due(rows: list[Row], *shares: Share, held: dict[Seat, Backoff] | None = None) -> float:
    return next_deadline(rows, Want(shares), held or {}, NOW)


def test_without_anything_under_way_there_is_no_deadline() -> None:
    assert due([*forkers(1), row(1, worker(0), S.SERVING)], share()) == inf
    assert due([row(1, worker(0), S.KILLED, NOW + 1)]) == inf


def test_the_nearest_of_all_deadlines_is_next() -> None:
    rows = [
        *forkers(1),
        row(1, worker(0), S.BOOTING, NOW + 5),
        row(2, worker(7), S.DRAINING, NOW + 4),
    ]
    assert due(rows, share()) == NOW + 4 + KILL_MARGIN
    held = {worker(1): Backoff(3, NOW + 2), worker(9): Backoff(3, NOW + 1)}
    assert due(rows, share(count=2), held=held) == NOW + 2


def test_a_seat_whose_template_is_not_ready_wakes_nobody() -> None:
    rows = [forkers(1)[0], row(1, template(), S.FORKING, NOW + 30)]
    assert due(rows, share(), held={worker(0): Backoff(3, NOW + 1)}) == NOW + 30


def test_both_roles_have_their_own_generation() -> None:
    world = World(worker=1, task=1)
    world.begin(BOTH)
    world.calm_down()
    world.begin((Role.TASK,))
    world.calm_down()
    serving = {worker(0, 1), Seat(Role.TASK, 0, 2)}
    assert set(world.standing()) == {BASE, template(1), template(2), *serving}
