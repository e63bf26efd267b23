"""Large data in the gate's memory: one after the other, in the order of asking."""

from __future__ import annotations

from procd.gate.budget import Budget, seconds_for


def test_so_much_may_go_at_once_and_the_rest_in_its_turn() -> None:
    budget: Budget[str] = Budget(100)
    assert [budget.ask("a", 60), budget.ask("b", 40), budget.ask("c", 50)] == [True, True, False]
    assert budget.ask("d", 1) is False  # behind c, though it would fit
    assert budget.free("b") == []
    assert budget.free("a") == ["c", "d"]
    assert budget.holds("c")
    assert not budget.waits("d")


def test_one_alone_may_be_larger_than_all() -> None:
    budget: Budget[str] = Budget(100)
    assert budget.ask("a", 500)
    assert not budget.ask("b", 1)
    assert budget.free("a") == ["b"]


def test_one_that_waits_may_go_without_having_had_its_turn() -> None:
    budget: Budget[str] = Budget(100)
    assert budget.ask("a", 100)
    assert not budget.ask("b", 200)
    assert not budget.ask("c", 50)
    assert budget.free("b") == []
    assert budget.free("a") == ["c"]
    assert budget.free("nobody") == []


def test_the_largest_task_has_more_than_a_minute() -> None:
    assert seconds_for(0) < seconds_for(64 << 20)
    assert seconds_for(64 << 20) > 60
