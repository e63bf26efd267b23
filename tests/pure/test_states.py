"""What can happen to one process, and what cannot."""

from __future__ import annotations

import itertools

import pytest

from procd.ipc.scoreboard import Role
from procd.master.states import GOING, TRANSITIONS, Event, IllegalTransition, Seat, State
from tests.pure.world import row

S = State


def worker(number: int) -> Seat:
    return Seat(Role.WORKER, number, 1)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_each_event_in_each_state_has_a_rule_or_raises(state: State, event: Event) -> None:
    before = row(1, worker(0), state, 5.0)
    if (state, event) in TRANSITIONS:
        after = before.step(event, 9.0)
        assert after.state is TRANSITIONS[state, event]
        assert after.deadline == (5.0 if after.state is state else 9.0)
    else:
        with pytest.raises(IllegalTransition, match=f"^{event.name} in {state.name}$"):
            before.step(event)


def test_every_process_can_be_stopped_and_killed_in_every_state() -> None:
    for state in State:
        assert TRANSITIONS[state, Event.STOP] in GOING
        assert TRANSITIONS[state, Event.KILL] is S.KILLED


def test_nothing_that_a_leaving_process_says_brings_it_back() -> None:
    for (state, _), after in TRANSITIONS.items():
        if state in GOING:
            assert after in GOING
    assert (S.SERVING, Event.BECAME_READY) not in TRANSITIONS


def test_a_spare_is_taken_wherever_it_stands_on_its_way() -> None:
    taken = {state for state, event in TRANSITIONS if event is Event.TAKE}
    assert taken == {S.FORKING, S.BOOTING, S.READY}
    assert TRANSITIONS[S.READY, Event.TAKE] is S.BOOTING
