"""What of an arena is set aside, and what a stop leaves under its name."""

from __future__ import annotations

import os
import time
from math import inf
from pathlib import Path

from procd.ipc import layout as lay
from procd.ipc import wire
from procd.ipc.scoreboard import Role
from procd.ipc.words import SlotState
from procd.master import inheritance
from tests.kernel.arenas import serving


def test_what_was_set_aside_is_never_written_over(tmp_path: Path) -> None:
    """In a container every master has the same pid, and may be started twice a second."""
    now = time.time()
    kept = {}
    for number in range(4):
        (tmp_path / "arena").write_text(str(number))
        kept[inheritance.set_aside(tmp_path / "arena", now)] = str(number)
    assert len(kept) == 4
    assert {path: path.read_text() for path in tmp_path.iterdir()} == kept


def test_tasks_in_an_arena_that_somebody_removed_are_kept_by_a_stop(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        worker = service.someone(Role.WORKER)
        tokens = [worker.dispatcher.dispatch(wire.pack(n)).id for n in range(5)]
        service.path.unlink()
        service.path.write_text("somebody else's")
        assert service.stop() == 5
    (aside,) = tmp_path.glob("arena.damaged-*")
    assert aside.read_text() == "somebody else's"
    with serving(tmp_path) as service:
        assert service.recovery.adopt(0.0) == 5
        assert sorted(service.queued()) == sorted(tokens)
        service.stop(discard=True)


def test_what_stands_in_the_place_of_an_empty_arena_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.path.unlink()
        service.path.write_text("somebody else's")
        service.stop()
    assert (tmp_path / "arena").read_text() == "somebody else's"


def test_an_arena_that_is_cut_short_reads_as_empty_and_is_set_aside(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        worker = service.someone(Role.WORKER)
        token = worker.dispatcher.dispatch(wire.pack(1)).id
        assert service.file.lost == ""
        os.truncate(service.path, lay.PAGE)
        assert f"{lay.PAGE} bytes instead of" in service.file.lost
        assert service.file.count() == (0, 0)
        assert service.slot(token).state is SlotState.FREE
        service.recovery.tick(inf)
        assert service.stop() == 0
    (aside,) = tmp_path.glob("arena.damaged-*")
    assert aside.stat().st_size == lay.PAGE
    assert not (tmp_path / "arena").exists()
