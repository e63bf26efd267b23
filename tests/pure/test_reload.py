"""A reload as a transaction: when it is won, refused or over, and what is wanted meanwhile."""

from __future__ import annotations

import pytest

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import Share, Want
from procd.master.reload import ACK_SECONDS, Counts, Phase, Reload, Verdict
from procd.master.states import Row, Seat, State
from tests.pure.world import BASE, BOOT, BOTH, World, row

NOW = 50.0
COUNTS = Counts(2, 1)
S = State


def seats(generation: int) -> list[Seat]:
    numbers = [(Role.WORKER, 0), (Role.WORKER, 1), (Role.TASK, 0)]
    return [Seat(role, number, generation) for role, number in numbers]


def rows(state: State, generation: int = 1, template: State = S.READY) -> list[Row]:
    """A whole generation, its template in front."""
    first = 10 * generation
    found = [row(first, Seat(Role.TEMPLATE, 0, generation), template)]
    return found + [row(first + 1 + n, seat, state) for n, seat in enumerate(seats(generation))]


def booting(roles: tuple[Role, ...] = BOTH) -> Reload:
    return Reload().begin(roles, NOW, BOOT)


def judged(
    reload: Reload,
    table: list[Row],
    *,
    now: float = NOW,
    room: bool = True,
    counts: Counts = COUNTS,
) -> Verdict:
    return reload.judge(table, counts, now, room=room)


def serving(generation: int = 1) -> Reload:
    return Reload(generation=generation, serving=dict.fromkeys(BOTH, generation))


# ---------------------------------------------------------------- until the switch


def test_nothing_is_due_while_nothing_is_under_way() -> None:
    assert judged(Reload(), rows(S.READY)) is Verdict.WAIT


def test_the_switch_waits_for_the_last_process() -> None:
    table = rows(S.READY)
    assert judged(booting(), table) is Verdict.SWITCH
    for missing in range(len(table)):
        assert judged(booting(), table[:missing] + table[missing + 1 :]) is Verdict.WAIT


@pytest.mark.parametrize("state", [S.FORKING, S.BOOTING, S.DRAINING, S.KILLED])
def test_a_process_that_is_not_ready_does_not_count(state: State) -> None:
    table = rows(S.READY)
    last = row(table[-1].row, table[-1].seat, state)
    assert judged(booting(), [*table[:-1], last]) is Verdict.WAIT


def test_two_processes_in_one_seat_count_once() -> None:
    table = rows(S.READY)
    doubled = row(99, table[1].seat, S.READY)
    assert judged(booting(), [table[0], table[1], doubled, table[3]]) is Verdict.WAIT


def test_processes_of_another_generation_do_not_count() -> None:
    assert judged(serving().begin(BOTH, NOW, BOOT), rows(S.READY, 1)) is Verdict.WAIT


def test_with_no_process_at_all_the_template_shows_the_code_to_be_good() -> None:
    none = Counts(0, 0)
    only = rows(S.READY)[:1]
    assert judged(booting(), [], counts=none) is Verdict.WAIT
    assert judged(booting(), rows(S.READY, template=S.BOOTING)[:1], counts=none) is Verdict.WAIT
    assert judged(booting(), only, counts=none) is Verdict.SWITCH


def test_only_the_replaced_roles_are_waited_for() -> None:
    table = rows(S.READY)
    assert judged(booting((Role.TASK,)), [table[0], table[3]]) is Verdict.SWITCH


def test_a_failure_refuses_even_if_all_are_ready() -> None:
    assert judged(booting().fail(1, "x"), rows(S.READY)) is Verdict.REFUSE


def test_the_boot_deadline_refuses() -> None:
    assert judged(booting(), rows(S.BOOTING), now=NOW + BOOT - 0.001) is Verdict.WAIT
    assert judged(booting(), rows(S.BOOTING), now=NOW + BOOT) is Verdict.REFUSE


def test_the_first_failure_is_the_one_that_is_told() -> None:
    assert booting().fail(1, "first").fail(1, "second").failure == "first"


def test_a_failure_of_another_generation_or_after_the_switch_is_none() -> None:
    assert booting().fail(7, "x").failure is None
    assert booting().switch(NOW).fail(1, "x").failure is None
    assert serving().fail(1, "x").failure is None


def test_an_earlier_failure_is_forgotten_by_the_next_attempt() -> None:
    again = booting().fail(1, "x").refuse().begin(BOTH, NOW, BOOT)
    assert again.failure is None
    assert again.generation == 2


# ---------------------------------------------------------------- room


def test_without_room_the_oldest_is_hurried_first_and_then_waited_for() -> None:
    table = rows(S.READY)
    assert judged(booting(), table, room=False) is Verdict.MAKE_ROOM
    crowded = booting().make_room()
    assert judged(crowded, table, room=False) is Verdict.WAIT
    assert judged(crowded, table, room=False, now=NOW + 10 * BOOT) is Verdict.WAIT
    assert judged(crowded, table) is Verdict.SWITCH
    assert crowded.want(COUNTS, COUNTS, 3).max_draining == 2


def test_a_death_while_it_waits_for_room_refuses() -> None:
    failed = booting().make_room().fail(1, "x")
    assert judged(failed, rows(S.READY)) is Verdict.REFUSE


def test_draining_generations_never_outnumber_what_may_drain() -> None:
    world = World(worker=1, task=0, max_draining=1)
    world.begin()
    world.calm_down()
    for generation in (2, 3, 4):
        world.begin()
        for _ in range(12):  # boots, but nobody who drains comes to an end
            for each in list(world.rows.values()):
                if each.state not in (S.DRAINING, S.KILLED):
                    world.go_on(each.row)
                elif each.state is S.KILLED or each.deadline <= world.now:
                    world.die(each.row)
        draining = [each for each in world.rows.values() if each.state is S.DRAINING]
        assert [each.seat.generation for each in draining] == [generation - 1]
        assert set(world.reload.serving.values()) == {generation}


# ---------------------------------------------------------------- the switch


def test_the_old_one_goes_when_all_have_said_that_they_serve() -> None:
    switching = booting().switch(NOW)
    assert judged(switching, rows(S.CALLED)) is Verdict.WAIT
    assert judged(switching, rows(S.SERVING)) is Verdict.FINISH


def test_who_does_not_say_so_is_waited_for_a_second_only() -> None:
    switching = booting().switch(NOW)
    assert judged(switching, rows(S.CALLED), now=NOW + ACK_SECONDS - 0.001) is Verdict.WAIT
    assert judged(switching, rows(S.CALLED), now=NOW + ACK_SECONDS) is Verdict.FINISH


def test_a_death_after_the_switch_rolls_nothing_back() -> None:
    world = World(worker=2, task=0)
    world.begin()
    world.calm_down()
    world.begin()
    seat = Seat(Role.WORKER, 0, 2)
    while world.reload.phase is not Phase.SWITCHING:
        for number in list(world.rows):
            if world.rows[number].state is not S.CALLED:
                world.go_on(number)
    world.die(world.of(seat)[0].row)
    assert world.reload.phase is Phase.SWITCHING
    world.calm_down()
    assert set(world.reload.serving.values()) == {2}
    assert world.refused == []
    assert world.standing()[seat] is S.SERVING


# ---------------------------------------------------------------- what is wanted


def test_the_new_generation_is_wanted_beside_the_old_one_and_serves_from_the_switch_on() -> None:
    old = tuple(Share(role, 1, COUNTS.of(role), serves=True) for role in BOTH)
    coming = Counts(5, 0)
    for reload, serves in (
        (serving().begin(BOTH, NOW, BOOT), False),
        (serving().begin(BOTH, NOW, BOOT).make_room(), False),
        (serving().begin(BOTH, NOW, BOOT).switch(NOW), True),
    ):
        new = tuple(Share(role, 2, coming.of(role), serves) for role in BOTH)
        assert reload.want(COUNTS, coming, 3).shares == old + new


def test_a_refused_generation_is_not_wanted_any_more_and_the_old_one_as_before() -> None:
    before = serving()
    refused = before.begin(BOTH, NOW, BOOT).fail(2, "x").refuse()
    assert refused.want(COUNTS, COUNTS, 3) == before.want(COUNTS, COUNTS, 3)
    assert refused.serving == {Role.WORKER: 1, Role.TASK: 1}


def test_a_reload_of_the_task_workers_leaves_the_workers_where_they_are() -> None:
    done = serving().begin((Role.TASK,), NOW, BOOT).switch(NOW).finish()
    assert done.serving == {Role.WORKER: 1, Role.TASK: 2}
    assert done.want(COUNTS, COUNTS, 3).generations == {1, 2}


def test_before_the_first_generation_and_after_its_refusal_nothing_is_wanted() -> None:
    assert Reload().want(COUNTS, COUNTS, 3) == Want((), 3)
    assert booting().refuse().want(COUNTS, COUNTS, 3) == Want((), 3)


# ---------------------------------------------------------------- words


def test_a_late_generation_is_told_by_what_it_waits_for() -> None:
    reload = booting()
    importing = [row(1, BASE, S.READY), *rows(S.READY, template=S.BOOTING)[:1]]
    assert "30 s (boot_timeout): the import of the app has not ended" in reload.late(
        importing, COUNTS
    )
    table = rows(S.READY)[:2] + rows(S.BOOTING)[2:]
    assert "1 of 3 processes are" in reload.late(table, COUNTS)
