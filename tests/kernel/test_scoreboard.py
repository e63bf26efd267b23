"""The scoreboard: who sits where, as every process sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from procd.ipc.scoreboard import Cell, Role, Scoreboard, Seat, Standing
from tests.kernel.forked import Say, forked, outcome, wait_for_ever

SERVING = Standing.SERVING


def seat(
    row: int,
    role: Role = Role.TASK,
    number: int = 0,
    generation: int = 1,
    standing: Standing = SERVING,
) -> Seat:
    return Seat(row, 100 + row, 1000 + row, generation, role, number, standing)


@pytest.fixture(name="board")
def a_scoreboard() -> Scoreboard:
    return Scoreboard(16)


def told(look: Callable[[], object]) -> str:
    """What another process sees."""
    return outcome(look)


def test_who_sits_in_a_row_is_seen_by_every_process(board: Scoreboard) -> None:
    largest = Seat(15, 2**32 - 1, 2**22, 2**31, Role.TASK, 511, Standing.LEAVING)
    for each in (seat(1, Role.BASE), seat(2, Role.WORKER, 7, 3), largest):
        board.seat(each)
        assert told(partial(board.look, each.row)) == repr(each)


def test_a_change_of_standing_keeps_everything_else(board: Scoreboard) -> None:
    before = seat(3, Role.WORKER, 5, 9, Standing.BOOTING)
    board.seat(before._replace(pid=0))
    for standing in (Standing.BOOTING, SERVING, Standing.LEAVING):
        board.stand(3, before.pid, standing)
        assert board.look(3) == before._replace(standing=standing)


def test_a_row_begins_with_nothing_of_the_one_before(board: Scoreboard) -> None:
    board.seat(seat(1))
    for cell in Cell:
        board.set(1, cell, 77)
    board.seat(seat(1)._replace(incarnation=500))
    assert [board.get(1, cell) for cell in Cell] == [0] * len(Cell)


def test_a_process_writes_its_own_cells_and_others_see_them(board: Scoreboard) -> None:
    board.seat(seat(1))
    board.seat(seat(2))

    def body(say: Say) -> None:
        cells = board.row(1)
        cells[Cell.DONE] += 3
        cells[Cell.CURRENT] = 2**63 - 1
        wait_for_ever(say)

    with forked(body) as child:
        assert child.line() == "ready"
        assert (board.get(1, Cell.DONE), board.get(1, Cell.CURRENT)) == (3, 2**63 - 1)
        assert board.get(2, Cell.DONE) == 0
        board.set(1, Cell.MISSED, 1)
    assert board.row(1)[Cell.MISSED] == 1  # the dead one's words stay for the master to read


def test_worker_ids_count_workers_first(board: Scoreboard) -> None:
    board.set_counts(2, 3)
    assert told(board.counts) == "(2, 3)"
    seats = [board.address(number) for number in range(-1, 6)]
    worker, task = Role.WORKER, Role.TASK
    assert seats == [None, (worker, 0), (worker, 1), (task, 0), (task, 1), (task, 2), None]
    assert [board.worker_id(*each) for each in seats if each] == [0, 1, 2, 3, 4]


def test_a_seat_is_found_in_ones_own_generation_else_in_the_newest(board: Scoreboard) -> None:
    for row, generation in ((1, 3), (2, 1), (3, 2)):
        board.seat(seat(row, generation=generation))
    assert [board.find(Role.TASK, 0, g).row for g in (1, 2, 3, 4)] == [2, 3, 1, 1]  # type: ignore[union-attr]
    assert board.find(Role.TASK, 1, 1) is None
    assert board.find(Role.WORKER, 0, 1) is None


@pytest.mark.parametrize("standing", [Standing.BOOTING, Standing.LEAVING])
def test_who_does_not_serve_is_not_found(board: Scoreboard, standing: Standing) -> None:
    board.seat(seat(1, generation=2, standing=standing))
    board.seat(seat(2, generation=1))
    found = board.find(Role.TASK, 0, 2)
    assert found is not None
    assert found.row == 2


def test_an_emptied_row_is_nobodys_and_hides_no_other(board: Scoreboard) -> None:
    board.seat(seat(1))
    board.seat(seat(2, Role.WORKER))
    board.clear(1)
    assert [each.row for each in board.seats()] == [2]
    assert board.find(Role.WORKER, 0, 1) == seat(2, Role.WORKER)
    assert board.look(1) is None


def test_a_row_that_was_never_used_can_be_looked_at(board: Scoreboard) -> None:
    assert board.look(5) is None


def test_readers_beside_the_master_that_fills_rows_see_no_half(board: Scoreboard) -> None:
    """seat() sets the whole word of the standing to 0 before it writes the new one."""
    board.seat(seat(1))

    def fill(say: Say) -> None:
        say("ready")
        while True:
            board.seat(seat(1))

    with forked(fill) as child:
        assert child.line() == "ready"
        seen = {board.find(Role.TASK, 0, 1) for _ in range(20_000)}
        # A writer that the kernel has put aside half way shows an empty row all the while.
        deadline = time.monotonic() + 20
        while seat(1) not in seen and time.monotonic() < deadline:
            seen.add(board.find(Role.TASK, 0, 1))
    assert seen == {None, seat(1)} or seen == {seat(1)}
