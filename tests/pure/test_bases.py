"""Which base there should be: bases.py alone, and lifecycle's plan with two of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from procd.config.schema import Config
from procd.ipc.scoreboard import Role
from procd.master.bases import Bases, Recipe
from procd.master.lifecycle import Fork, Kill, Share, Want, forked_from, plan
from procd.master.states import Row, Seat, State, base_seat, spare_seat
from tests.pure.configs import loaded
from tests.pure.world import BASE, row

NOW = 100.0
COLD = Recipe()
S = State
NUMPY = {"numpy": "/lib/numpy/__init__.py", "numpy.linalg": "/lib/numpy/linalg.py"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return loaded(tmp_path, "")


def warm(config: Config) -> Bases:
    bases = Bases(config)
    bases.learn(NUMPY)
    bases.settle(config)
    bases.became_ready(1)
    assert bases.take_over()
    return bases


def test_the_first_base_is_cold_and_a_warm_one_is_made_beside_it(config: Config) -> None:
    bases = Bases(config)
    assert bases.recipe(0) == COLD
    bases.settle(config)
    assert (bases.number, bases.next_number) == (0, None)  # nothing is known to be wanted
    bases.learn(NUMPY)
    bases.settle(config)
    assert (bases.number, bases.next_number) == (0, 1)
    assert bases.recipe(1) == Recipe(NUMPY, {})
    took_over = [bases.take_over()]  # it still imports
    bases.became_ready(1)
    took_over += [bases.take_over(), bases.take_over()]
    assert took_over == [False, True, False]
    assert (bases.number, bases.next_number, bases.is_warm) == (1, None, True)


def test_modules_that_a_person_names_are_there_from_the_start(tmp_path: Path) -> None:
    bases = Bases(loaded(tmp_path, "preload: [json, decimal]"))
    assert bases.recipe(0).modules == {"json": None, "decimal": None}
    assert bases.is_warm


def test_preload_off_stays_cold(tmp_path: Path) -> None:
    config = loaded(tmp_path, "preload: off")
    bases = Bases(config)
    bases.learn(NUMPY)
    bases.settle(config)
    assert (bases.next_number, bases.is_warm, bases.preloaded) == (None, True, 0)


def test_what_is_imported_later_makes_another_one(config: Config) -> None:
    bases = warm(config)
    bases.settle(config)
    assert (bases.number, bases.next_number) == (1, None)
    bases.learn({"pandas": "/lib/pandas.py"})
    bases.settle(config)
    assert bases.next_number == 2
    assert list(bases.recipe(2).modules) == [*NUMPY, "pandas"]


def test_another_environment_begins_cold_and_is_warmed_anew(config: Config) -> None:
    bases = warm(config)
    edited = replace(config, env={"OMP_NUM_THREADS": "1"})
    bases.begin(edited)
    assert (bases.number, bases.recipe(bases.number)) == (2, COLD)
    bases.settle(edited)
    assert bases.recipe(3) == Recipe(NUMPY, {"OMP_NUM_THREADS": "1"})


def test_one_that_warms_in_another_environment_never_takes_over(config: Config) -> None:
    bases = Bases(config)
    bases.learn(NUMPY)
    bases.settle(config)
    bases.begin(replace(config, env={"A": "1"}))
    bases.became_ready(1)
    assert not bases.take_over()
    assert bases.recipe(bases.number) == COLD


def test_a_package_that_is_unfit_to_fork_is_left_out_with_all_of_its_modules(
    config: Config,
) -> None:
    bases = Bases(config)
    bases.learn({**NUMPY, "grpc": "/lib/grpc/__init__.py", "grpc._channel": "/lib/grpc/c.py"})
    bases.settle(config)
    bases.is_unfit(1, "grpc._channel", "grpc._cython opened 2 threads")
    assert bases.recipe(2).modules == NUMPY
    assert bases.next_number == 2
    assert bases.left_out == {"grpc": "grpc._cython opened 2 threads"}


def died(bases: Bases, number: int, *, lived: float = 0.1, is_late: bool = False) -> str | None:
    return bases.died(number, "its import ends the base", lived, is_late=is_late)


def warming(config: Config) -> Bases:
    bases = Bases(config)
    bases.learn({**NUMPY, "pandas": "/lib/pandas.py"})
    bases.settle(config)
    return bases


def test_one_that_dies_while_it_warms_is_made_again(config: Config) -> None:
    bases = warming(config)
    bases.imports(1, "numpy")
    assert died(bases, 1) is None
    assert (bases.number, bases.next_number, bases.left_out) == (0, 2, {})


def test_a_package_at_which_bases_keep_dying_is_left_out(config: Config) -> None:
    bases = warming(config)
    bases.imports(1, "numpy")
    assert died(bases, 1) is None
    bases.imports(2, "numpy")
    assert died(bases, 2) == "numpy"
    assert list(bases.recipe(3).modules) == ["pandas"]
    assert bases.left_out == {"numpy": "its import ends the base"}


def test_a_package_that_never_ends_is_left_out_the_first_time(config: Config) -> None:
    bases = warming(config)
    bases.imports(1, "pandas")
    assert died(bases, 1, lived=120, is_late=True) == "pandas"
    assert bases.recipe(2).modules == NUMPY


def test_bases_that_die_of_no_package_are_given_up_until_more_is_known(config: Config) -> None:
    bases = warming(config)
    assert [died(bases, 1), died(bases, 2)] == [None, ""]
    bases.settle(config)
    assert (bases.number, bases.next_number) == (0, None)
    bases.learn({"scipy": "/lib/scipy.py"})
    bases.settle(config)
    assert bases.next_number == 3


def test_what_was_given_up_is_tried_again_when_somebody_asks_for_a_reload(config: Config) -> None:
    bases = warming(config)
    assert [died(bases, 1), died(bases, 2)] == [None, ""]
    bases.forgive()
    bases.settle(config)
    assert bases.next_number == 3


def test_one_that_has_lived_was_killed_by_somebody(config: Config) -> None:
    bases = warm(config)
    for _ in range(5):
        assert died(bases, bases.number, lived=3600) is None
        bases.settle(config)
        assert bases.next_number is not None
        bases.became_ready(bases.next_number)
        assert bases.take_over()


def test_what_was_left_out_is_tried_again_when_the_disk_has_changed(config: Config) -> None:
    bases = warming(config)
    bases.imports(1, "pandas")
    died(bases, 1, is_late=True)
    bases.disk_changed()
    assert (bases.left_out, bases.recipe(bases.number)) == ({}, COLD)
    bases.settle(config)
    assert bases.next_number is not None
    assert "pandas" in bases.recipe(bases.next_number).modules


def test_a_warm_one_that_dies_is_replaced_by_a_cold_one_at_once(config: Config) -> None:
    bases = warm(config)
    died(bases, 1)
    assert (bases.number, bases.recipe(1)) == (1, COLD)
    bases.settle(config)
    assert bases.recipe(2) == Recipe(NUMPY, {})


def test_the_death_of_one_that_was_told_to_go_changes_nothing(config: Config) -> None:
    bases = warm(config)
    assert died(bases, 0) is None
    assert (bases.number, bases.recipe(1).modules) == (1, NUMPY)


def test_the_first_one_is_made_anew_without_what_is_unfit(tmp_path: Path) -> None:
    bases = Bases(loaded(tmp_path, "preload: [json, grpc]"))
    bases.is_unfit(0, "grpc", "grpc opened thread")
    assert died(bases, 0) is None
    assert (bases.number, dict(bases.recipe(1).modules)) == (1, {"json": None})


# ---------------------------------------------------------------- the plan


def template(generation: int = 1) -> Seat:
    return Seat(Role.TEMPLATE, 0, generation)


def worker(number: int, generation: int = 1) -> Seat:
    return Seat(Role.WORKER, number, generation)


def share(generation: int = 1, *, serves: bool = True) -> Share:
    return Share(Role.WORKER, generation, 1, serves)


def forkers(*generations: int) -> list[Row]:
    """A ready base and ready templates, in rows from 90 on."""
    seats = [BASE, *(template(generation) for generation in generations)]
    return [row(90 + index, seat, S.READY) for index, seat in enumerate(seats)]


def test_a_base_that_warms_stands_beside_the_one_that_forks() -> None:
    want = Want((share(),), base=0, next_base=1)
    serving = [*forkers(1), row(1, worker(0), S.SERVING)]
    assert plan(serving, want, {}, NOW) == [Fork(base_seat(1))]
    both = [*serving, row(2, base_seat(1), S.READY)]
    assert plan(both, want, {}, NOW) == []
    # The template of a new generation is forked from the one that forks, warm or not.
    coming = Want((share(), share(2, serves=False)), base=0, next_base=1)
    assert forked_from(template(2), coming.base) == BASE
    assert plan(both, Want((share(),), base=1), {}, NOW) == [Kill(90)]


def test_while_a_new_base_boots_nothing_is_forked_from_the_old_one() -> None:
    table = [*forkers(1), row(1, worker(0), S.SERVING), row(2, base_seat(1), S.BOOTING)]
    want = Want((share(), share(2, serves=False)), base=1)
    assert plan(table, want, {}, NOW) == [Kill(90)]


# ---------------------------------------------------------------- the spare


def test_a_spare_is_forked_where_one_is_wanted_and_stays_while_a_generation_boots() -> None:
    serving = [*forkers(1), row(1, worker(0), S.SERVING)]
    idle = Want((share(),), has_spare=True)
    assert plan(serving, idle, {}, NOW) == [Fork(spare_seat(0))]
    with_one = [*serving, row(2, spare_seat(0), S.READY)]
    assert plan(with_one, idle, {}, NOW) == []
    boots = Want((share(), share(2, serves=False)))
    assert plan(with_one, boots, {}, NOW) == [Fork(template(2))]


def test_a_spare_goes_with_its_base_and_at_the_end() -> None:
    table = [*forkers(1), row(1, worker(0), S.SERVING), row(2, spare_seat(0), S.READY)]
    other = [*table, row(3, base_seat(1), S.READY)]
    assert plan(other, Want((share(),), base=1), {}, NOW) == [Kill(90), Kill(2)]
    assert Kill(2) in plan(table, Want(()), {}, NOW)


def test_another_allowance_takes_another_base_also_back(config: Config) -> None:
    bases = warm(config)
    edited = replace(config, nice=5, rlimits={"nofile": 1024})
    bases.begin(edited)
    assert bases.number == 2
    assert (bases.recipe(2).allowance.nice, bases.recipe(2).modules) == (5, {})
    bases.begin(edited)
    assert bases.number == 2
    bases.settle(config)  # it was refused
    assert bases.recipe(bases.next_number or 0) == Recipe(NUMPY, {})
