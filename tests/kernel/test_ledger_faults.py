"""The ledger's file when the disk is full, somebody wrote into it, or its writer is killed."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procd.ledger import files, schema
from procd.ledger.faults import (
    LedgerError,
    LedgerFull,
    LedgerLocked,
    LedgerNewer,
    LedgerReadOnly,
)
from procd.ledger.record import Ending, Entry
from procd.ledger.schema import State
from procd.ledger.store import open_store
from tests.kernel.forked import Say, as_nobody, forked, needs_root, outcome, wait_for_ever

KILLS = 25
BATCH = 40

# What the first version wrote. Never to be changed: such files are out there.
VERSION_1 = """
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, flags INTEGER NOT NULL, priority INTEGER NOT NULL,
    src_worker_id INTEGER NOT NULL, attempts INTEGER NOT NULL, accepted_at REAL NOT NULL,
    finished_at REAL, name TEXT, how TEXT, error TEXT, traceback TEXT, data BLOB
);
CREATE INDEX tasks_by_state ON tasks (state, finished_at, id);
INSERT INTO tasks VALUES (5, 'queued', 1, 5, 0, 0, 10.0, NULL, 'a', NULL, NULL, NULL, x'c0');
INSERT INTO tasks VALUES (6, 'dead', 0, 5, 1, 3, 11.0, 12.0, NULL, 'SIGSEGV', 'gone', '', x'c3');
PRAGMA application_id = 1886544740;
PRAGMA user_version = 1;
"""


def entry(number: int, data: bytes = b"\xc0") -> Entry:
    return Entry(number, data, 0, 5, 0, 1.0)


@pytest.fixture(name="path")
def a_path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def written(path: Path, script: str) -> Path:
    db = sqlite3.connect(path)
    db.executescript(script)
    db.close()
    return path


def asides(path: Path) -> list[Path]:
    return sorted(path.parent.glob("ledger.damaged-*.sqlite"))


def test_a_file_of_version_1_is_opened(path: Path) -> None:
    store = open_store(written(path, VERSION_1))
    assert store.entry(5) == Entry(5, b"\xc0", 1, 5, 0, 10.0, "a")
    letter = store.show(6)
    assert letter is not None
    assert (letter.state, letter.how, letter.attempts) == (State.DEAD, "SIGSEGV", 3)
    store.commit(accepted=[entry(1)], ended=[Ending(5, State.DONE, 1, 2.0)])
    assert store.counts() == {State.QUEUED: 1, State.DONE: 1, State.DEAD: 1}
    store.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, VERSION_1)
    steps = (*schema.STEPS, "CREATE TABLE more (x); INSERT INTO nowhere VALUES (1);")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "STEPS", steps)
        patch.setattr(schema, "VERSION", len(steps))
        with pytest.raises(LedgerError, match="no such table"):
            open_store(path)
    store = open_store(path)
    assert store.queued() == [5]
    store.close()


def test_a_file_of_a_newer_version_is_refused_by_name_and_not_touched(path: Path) -> None:
    written(path, VERSION_1 + "PRAGMA user_version = 99;")
    with pytest.raises(LedgerNewer, match=r"ledger\.sqlite: it is of version 99, this procd reads"):
        open_store(path)
    assert asides(path) == []
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_none_is_set_aside_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    store = open_store(path)
    store.commit(accepted=[entry(1)])
    store.close()
    (aside,) = asides(path)
    assert aside.read_bytes() == content


def test_damage_in_the_middle_is_found_at_the_opening(path: Path) -> None:
    store = open_store(path)
    store.commit(accepted=[entry(number, bytes(300)) for number in range(1000)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 & ~4095)
        file.write(random.Random(1).randbytes(8192))
    store = open_store(path)
    assert store.counts() == {}
    store.close()
    assert [aside.stat().st_size for aside in asides(path)] == [size]


def test_a_database_of_another_program_is_set_aside(path: Path) -> None:
    written(path, "CREATE TABLE tasks (id); INSERT INTO tasks VALUES (1);")
    open_store(path).close()
    assert len(asides(path)) == 1


def test_an_empty_file_is_an_empty_ledger(path: Path) -> None:
    path.touch()
    store = open_store(path)
    assert store.close()
    assert asides(path) == []


def test_a_second_process_is_told_that_it_is_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procd.ledger.store.BUSY_MS", 50)
    store = open_store(path)
    assert outcome(lambda: type(_error_of(path))) == repr(LedgerLocked)
    store.close()


def _error_of(path: Path) -> LedgerError | None:
    try:
        open_store(path)
    except LedgerError as error:
        return error
    return None


@needs_root
def test_a_file_that_may_not_be_written_is_refused_by_name(path: Path) -> None:
    open_store(path).close()
    path.parent.chmod(0o755)
    path.chmod(0o444)
    told = outcome(as_nobody(lambda: type(_error_of(path))))
    assert told == repr(LedgerReadOnly)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "procd", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@needs_root
def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        store = open_store(folder / "ledger.sqlite")
        store.commit(accepted=[entry(1)])
        with pytest.raises(LedgerFull, match="free some space"):
            store.commit(accepted=[entry(number, bytes(50_000)) for number in range(2, 50)])
        assert store.queued() == [1]
        store.commit(accepted=[entry(2)])  # and what has room goes on
        store.close()
        store = open_store(folder / "ledger.sqlite")
        assert store.queued() == [1, 2]
        store.close()


def test_an_interrupted_batch_leaves_nothing_of_it(path: Path) -> None:
    store = open_store(path)

    def broken() -> Iterator[Entry]:
        yield entry(1)
        raise LookupError

    with pytest.raises(LookupError):
        store.commit(accepted=broken())
    assert store.counts() == {}
    store.commit(accepted=[entry(1)])
    store.close()


def test_a_writer_killed_in_mid_commit_loses_nothing_that_it_said(path: Path) -> None:
    rng, said = random.Random(3), 0

    for turn in range(KILLS):

        def write(say: Say, first: int = turn * 10_000) -> None:
            store = open_store(path)
            for number in range(first, first + 10_000, BATCH):
                ids = range(number, number + BATCH)
                store.commit(
                    accepted=[entry(each, bytes(500)) for each in ids],
                    ended=[Ending(each - 10_000, State.DONE, 1, 2.0) for each in ids],
                )
                say(number)

        with forked(write) as child:
            for _ in range(rng.randrange(1, 8)):
                said = int(child.line())
            child.kill()
        store = open_store(path)
        with store._named() as db:
            found = {row[0] for row in db.execute("SELECT id FROM tasks")}
        newest = {number for number in found if number >= turn * 10_000}
        # All that it said, perhaps one more, and each batch whole.
        assert set(range(turn * 10_000, said + BATCH)) <= newest
        assert len(newest) % BATCH == 0
        store.close()
    assert asides(path) == []


def test_what_sqlite_leaves_beside_it_goes_with_it(path: Path) -> None:
    def write(say: Say) -> None:
        store = open_store(path)
        store.commit(accepted=[entry(1)])
        wait_for_ever(say)

    with forked(write) as child:
        assert child.line() == "ready"
    assert len(os.listdir(path.parent)) > 1
    files.remove(path)
    assert os.listdir(path.parent) == []
