"""The ingress in lifecycle's plan: the master's own, of no generation, given time to leave."""

from __future__ import annotations

import pytest

from procd.ipc.scoreboard import Role
from procd.master.lifecycle import (
    Action,
    Call,
    Fork,
    Kill,
    Share,
    Stop,
    Want,
    draining_generations,
    forked_from,
    plan,
)
from procd.master.states import Row, Seat, State, base_seat, ingress_seat
from tests.pure.world import row

NOW = 100.0
FIRST, SECOND = ingress_seat(1), ingress_seat(2)
SERVING = Share(Role.WORKER, 1, 1, serves=True)
REST = [
    row(90, base_seat(0), State.READY),
    row(91, Seat(Role.TEMPLATE, 0, 1), State.READY),
    row(92, Seat(Role.WORKER, 0, 1), State.SERVING),
]


def planned(wanted: Seat | None, *rows: Row) -> list[Action]:
    return plan([*REST, *rows], Want((SERVING,), beside=(wanted,) if wanted else ()), {}, NOW)


def test_it_is_forked_by_the_master_and_told_to_serve_when_it_is_ready() -> None:
    assert forked_from(FIRST, 0) is None
    assert planned(FIRST) == [Fork(FIRST)]
    assert planned(FIRST, row(1, FIRST, State.BOOTING)) == []
    assert planned(FIRST, row(1, FIRST, State.READY)) == [Call(1)]
    assert planned(FIRST, row(1, FIRST, State.SERVING)) == []


def test_another_one_takes_over_and_the_old_one_is_given_time() -> None:
    old = row(1, FIRST, State.SERVING)
    assert planned(SECOND, old) == [Fork(SECOND), Stop(1)]
    assert planned(SECOND, row(1, FIRST, State.DRAINING, NOW + 1)) == [Fork(SECOND)]


@pytest.mark.parametrize("state", [State.BOOTING, State.READY])
def test_one_that_has_taken_nothing_yet_is_killed(state: State) -> None:
    assert planned(None, row(1, FIRST, state)) == [Kill(1)]


def test_none_is_wanted_at_a_stop() -> None:
    assert planned(None, row(1, FIRST, State.SERVING)) == [Stop(1)]


def test_one_that_asks_to_be_replaced_stays_until_the_next_one_serves() -> None:
    retiring = row(1, FIRST, State.SERVING, retires=True)
    assert planned(FIRST, retiring) == [Fork(FIRST)]
    assert planned(FIRST, retiring, row(2, FIRST, State.READY)) == [Call(2)]
    assert planned(FIRST, retiring, row(2, FIRST, State.SERVING)) == [Stop(1)]


def test_it_is_no_generation_that_drains() -> None:
    assert draining_generations([row(1, FIRST, State.DRAINING)], Want((SERVING,))) == []


def test_a_gate_beside_it_is_its_own() -> None:
    gate, ingress = Seat(Role.GATE, 0, 0), row(1, FIRST, State.SERVING)
    both = Want((SERVING,), beside=(FIRST, gate))
    assert forked_from(gate, 0) is None
    assert plan([*REST, ingress], both, {}, NOW) == [Fork(gate)]
    assert plan([*REST, ingress, row(2, gate, State.READY)], both, {}, NOW) == [Call(2)]
    assert planned(FIRST, ingress, row(2, gate, State.SERVING)) == [Stop(2)]
    leaving = row(2, gate, State.DRAINING, NOW + 1)
    assert plan([*REST, ingress, leaving], both, {}, NOW) == [Fork(gate)]
