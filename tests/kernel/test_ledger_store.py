"""The ledger's file: what a verb has done outlives everything, and nothing is half done."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from procd.ledger import store as room
from procd.ledger.record import Ending, Entry
from procd.ledger.schema import State
from procd.ledger.store import Store, open_store

ENTRY = Entry(7, b"\x93\xa1a\x90\x80", 1, 5, 0, 1000.0, "a")
END = Ending(7, State.DONE, 1, 2000.0)
LETTER = Ending(7, State.DEAD, 3, 2000.0, "given up", "", "SIGSEGV")


def entries(*ids: int) -> list[Entry]:
    return [replace(ENTRY, id=number) for number in ids]


@pytest.fixture(name="path")
def a_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture(name="store")
def a_store(path: Path) -> Iterator[Store]:
    store = open_store(path)
    yield store
    store.close()


def again(store: Store) -> Store:
    """The same file, opened by the next process."""
    store.close()
    return open_store(store.path)


def test_what_was_accepted_is_found_by_the_next_process(store: Store) -> None:
    store.commit(accepted=[ENTRY])
    assert again(store).entry(7) == ENTRY


def test_accepting_a_task_twice_changes_nothing(store: Store) -> None:
    store.commit(accepted=[ENTRY])
    store.commit(ended=[END])
    store.commit(accepted=[ENTRY])
    assert store.counts() == {State.DONE: 1}


def test_an_ended_task_is_history_without_its_data(store: Store) -> None:
    store.commit(accepted=[ENTRY])
    store.commit(ended=[replace(END, state=State.FAILED, error="no", traceback="line 1")])
    found = store.show(7)
    assert found is not None
    assert (found.state, found.error, found.traceback) == (State.FAILED, "no", "line 1")
    assert (found.accepted_at, found.finished_at, found.attempts) == (1000.0, 2000.0, 1)
    assert found.data_bytes is None
    assert store.queued() == []


def test_a_task_that_is_accepted_and_over_in_one_commit_is_history(store: Store) -> None:
    store.commit(accepted=[ENTRY], ended=[END])
    assert store.counts() == {State.DONE: 1}


def test_an_end_of_a_task_that_nobody_knows_is_no_fault(store: Store) -> None:
    store.commit(ended=[END])
    assert store.counts() == {}


@pytest.mark.parametrize("accepted", [[], [ENTRY]])
def test_a_dead_letter_keeps_its_data_and_how_it_died(store: Store, accepted: list[Entry]) -> None:
    store.commit(accepted=accepted)
    store.commit(buried=[(ENTRY, LETTER)])
    store.commit(buried=[(ENTRY, LETTER)])  # by a ledger that was killed before it could say so
    (found,) = store.page([State.DEAD], 10)
    assert (found.id, found.name, found.how, found.attempts) == (7, "a", "SIGSEGV", 3)
    assert store.data(7, 100) == ENTRY.data
    assert store.data(7, 2) == ENTRY.data[:2]


def test_a_retried_letter_is_queued_with_no_attempts(store: Store) -> None:
    store.commit(accepted=entries(1), buried=[(ENTRY, LETTER)])
    assert store.retry([1, 7, 9]) == [7]
    assert store.entry(7) == ENTRY
    store.commit(ended=[END])
    assert store.retry() == []


def test_all_letters_are_retried_oldest_first(store: Store) -> None:
    for number in (3, 1, 2):
        letter = replace(LETTER, id=number, at=10.0 - number)
        store.commit(buried=[(replace(ENTRY, id=number), letter)])
    assert store.retry() == [3, 2, 1]


def test_purge_takes_letters_and_never_what_will_run(store: Store) -> None:
    store.commit(accepted=entries(1, 2), ended=[replace(END, id=2)], buried=[(ENTRY, LETTER)])
    assert store.purge() == [7]
    assert store.purge([1, 2, 7]) == [2]
    assert store.counts() == {State.QUEUED: 1}


def test_what_was_purged_gives_its_room_back(store: Store) -> None:
    store.commit(buried=[(replace(ENTRY, data=bytes(3_000_000)), LETTER)])
    store = again(store)
    assert store.path.stat().st_size > 3_000_000
    store.purge()
    again(store)
    assert store.path.stat().st_size < 100_000


def test_queued_tasks_come_in_the_order_of_their_urgency_and_age(store: Store) -> None:
    store.commit(
        accepted=[
            replace(ENTRY, id=1, priority=9, accepted_at=1),
            replace(ENTRY, id=2, priority=5, accepted_at=3),
            replace(ENTRY, id=3, priority=5, accepted_at=2),
        ]
    )
    assert store.queued() == [3, 2, 1]


def test_pages_show_the_oldest_first(store: Store) -> None:
    store.commit(accepted=[replace(ENTRY, id=n, accepted_at=100 - n) for n in range(5)])
    first, second = store.page([State.QUEUED], 2), store.page([State.QUEUED], 2, 2)
    assert [found.id for found in first + second] == [4, 3, 2, 1]


def test_history_keeps_the_newest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "HISTORY", 10)
    monkeypatch.setattr(room, "TRIM_EVERY", 5)
    for number in range(33):
        store.commit(accepted=entries(number), ended=[replace(END, id=number, at=number)])
    kept = [found.id for found in store.page([State.DONE], 100)]
    assert 10 <= len(kept) < 15
    assert kept == list(range(33 - len(kept), 33))


def test_discarded_tasks_are_told_as_cancelled(store: Store) -> None:
    store.commit(accepted=entries(1, 2), buried=[(ENTRY, LETTER)])
    assert store.cancel(None, 3000.0) == [1, 2]
    assert store.counts() == {State.CANCELLED: 2, State.DEAD: 1}


def test_an_id_has_63_bits(store: Store) -> None:
    store.commit(accepted=entries(2**63 - 1))
    assert again(store).queued() == [2**63 - 1]


def test_it_is_empty_when_nothing_was_ever_in_it(store: Store) -> None:
    assert store.close()
    full = open_store(store.path)
    full.commit(accepted=[ENTRY])
    assert not full.close()


def test_nobody_else_may_read_the_file(store: Store) -> None:
    store.commit(accepted=[ENTRY])
    for name in os.listdir(store.path.parent):
        assert (store.path.parent / name).stat().st_mode & 0o777 == 0o600


def test_every_commit_is_synced_and_in_the_log(store: Store) -> None:
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_sqlite_itself_can_read_what_was_closed(store: Store) -> None:
    store.commit(accepted=[ENTRY])
    store.close()
    db = sqlite3.connect(store.path)
    assert db.execute("SELECT id, state FROM tasks").fetchall() == [(7, "queued")]
    db.close()
