"""A burst of changes is acted on once, soon after its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procd.master.debounce import LIMIT, QUIET, Debounce


def test_nothing_is_due_before_a_touch() -> None:
    assert Debounce().due() is None


def test_one_touch_is_due_when_it_has_been_quiet() -> None:
    debounce = Debounce()

    debounce.touch(10.0)

    assert debounce.due() == 10.0 + QUIET


def test_each_touch_puts_it_off() -> None:
    debounce = Debounce()

    debounce.touch(10.0)
    debounce.touch(10.015)

    assert debounce.due() == 10.015 + QUIET


def test_endless_touches_cannot_put_it_off_beyond_the_limit() -> None:
    debounce = Debounce()

    for step in range(1000):
        debounce.touch(10.0 + step / 100)

    assert debounce.due() == 10.0 + LIMIT


def test_nothing_is_due_after_it_fired() -> None:
    debounce = Debounce()
    debounce.touch(10.0)

    debounce.fired(10.1)

    assert debounce.due() is None


def test_touch_after_it_fired_begins_anew() -> None:
    debounce = Debounce()
    debounce.touch(10.0)
    debounce.fired(10.1)

    debounce.touch(11.0)

    assert debounce.due() == 11.0 + QUIET


def test_touch_later_than_what_was_acted_on_stays() -> None:
    debounce = Debounce()
    debounce.touch(10.0)
    debounce.touch(10.2)

    debounce.fired(10.1)

    assert debounce.due() == 10.2 + QUIET


@given(st.lists(st.floats(0, 2), min_size=1, max_size=50))
def test_it_is_due_after_the_last_touch_or_at_the_limit(gaps: list[float]) -> None:
    debounce, now = Debounce(), 0.0
    for gap in gaps:
        now += gap
        due = debounce.due()
        if due is not None and due <= now:
            debounce.fired(now)
        debounce.touch(now)

    due = debounce.due()

    assert due is not None
    assert now <= due <= now + QUIET


def test_each_disturbance_doubles_the_quiet_up_to_the_limit_until_it_is_calm() -> None:
    debounce = Debounce()
    for factor in (2, 4, 8):
        debounce.disturbed()
        assert debounce.quiet == pytest.approx(factor * QUIET)
    for _ in range(20):
        debounce.disturbed()
    assert debounce.quiet == LIMIT
    debounce.calm()
    assert debounce.quiet == QUIET


def test_what_is_whole_is_acted_on_at_once_unless_something_is_pending_already() -> None:
    debounce = Debounce()
    debounce.touch(1.0, at_once=True)
    assert debounce.due() == 1.0
    debounce.fired(1.0)
    debounce.touch(2.0)
    debounce.touch(2.001, at_once=True)
    assert debounce.due() == pytest.approx(2.001 + QUIET)
