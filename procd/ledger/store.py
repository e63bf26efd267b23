"""The ledger's file: tasks on a disk, in SQLite.

One process at a time has it open; it holds the lock from open() to close(). Each verb is one
transaction: when it returns, what it did outlives a power cut, and when it raises a LedgerError
nothing of it was done. Knows nothing of arenas and processes.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from procd import logs
from procd.ledger import faults, files, schema
from procd.ledger.faults import LedgerDamaged, LedgerError, LedgerNewer, LedgerReadOnly
from procd.ledger.record import Ending, Entry, Record
from procd.ledger.schema import ENDED, State

HISTORY = 10_000  # ended tasks that are kept
TRIM_EVERY = 500  # beyond that, for each look at the oldest costs
BUSY_MS = 2000  # a ledger that was killed may still be dying
WAL_BYTES = 16 << 20  # what the log may keep of the disk when it is empty

_NOW = "(julianday('now') - 2440587.5) * 86400"
_STATE = f"CASE WHEN state = 'queued' AND due > {_NOW} THEN 'delayed' ELSE state END"
_COLUMNS = (
    f"id, {_STATE}, priority, src_worker_id, attempts, accepted_at, finished_at, name, how, error, "
    "traceback, length(data), due"
)
_ENTRY = "id, data, flags, priority, src_worker_id, accepted_at, name, attempts, terms, due"
_ACCEPT = f"""
INSERT INTO tasks ({_ENTRY}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued')
ON CONFLICT (id) DO NOTHING
"""  # noqa: S608 - constants
_BURY = f"""
INSERT INTO tasks ({_ENTRY}, state, finished_at, error, traceback, how)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    state = excluded.state, attempts = excluded.attempts, finished_at = excluded.finished_at,
    error = excluded.error, traceback = excluded.traceback, how = excluded.how,
    terms = excluded.terms, due = excluded.due
"""  # noqa: S608
_END = """
UPDATE tasks SET
    state = ?, attempts = ?, finished_at = ?, error = ?, traceback = ?, how = ?, data = NULL
WHERE id = ? AND state = 'queued'
"""
_AGE = "coalesce(finished_at, accepted_at), id"


class Store:
    """An open ledger. Made by open_store()."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db
        self._ended = sum(self.counts().get(state, 0) for state in ENDED)

    # Writing

    def commit(
        self,
        accepted: Iterable[Entry] = (),
        ended: Iterable[Ending] = (),
        buried: Iterable[tuple[Entry, Ending]] = (),
    ) -> None:
        """Write down what has come, in one transaction.

        Doing it twice changes nothing: a task is known by its id. One that has ended keeps no
        data; a dead letter does, and may be one that was never accepted here.
        """
        endings = [_end_row(ending) for ending in ended]
        with self._transaction() as db:
            db.executemany(_ACCEPT, map(_row, accepted))
            db.executemany(_BURY, (_letter_row(*letter) for letter in buried))
            count = self._ended
            count += db.executemany(_END, endings).rowcount if endings else 0
            if count >= HISTORY + TRIM_EVERY:
                _trim(db, count - HISTORY)
                count = HISTORY
        self._ended = count

    def retry(self, ids: Sequence[int] | None = None) -> list[int]:
        """Let dead letters run again, all or those that are named; return which."""
        with self._transaction() as db:
            found = self._ids(db, (State.DEAD,), ids)
            change = "UPDATE tasks SET state = 'queued', attempts = 0, finished_at = NULL"
            db.executemany(f"{change} WHERE id = ?", ((number,) for number in found))
        return found

    def purge(self, ids: Sequence[int] | None = None) -> list[int]:
        """Forget all dead letters, or the tasks that are named unless they will still run."""
        states = (State.DEAD,) if ids is None else (State.DEAD, *ENDED)
        with self._transaction() as db:
            found = self._ids(db, states, ids)
            db.executemany("DELETE FROM tasks WHERE id = ?", ((number,) for number in found))
        self._ended = sum(self.counts().get(state, 0) for state in ENDED)
        with suppress(sqlite3.Error):  # the room that it took is used again in any case
            # A script, because execute() takes one step of it, which is one page.
            self._db.executescript("PRAGMA incremental_vacuum")
        return found

    def cancel(self, ids: Sequence[int] | None, at: float) -> list[int]:
        """Drop what would still run, all or those that are named; return which."""
        with self._transaction() as db:
            found = self._ids(db, (State.QUEUED,), ids)
            change = "UPDATE tasks SET state = 'cancelled', finished_at = ?, data = NULL"
            db.executemany(f"{change} WHERE id = ?", ((at, number) for number in found))
        self._ended += len(found)
        return found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it already
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise faults.named(error, self.path) from error

    @staticmethod
    def _ids(
        db: sqlite3.Connection, states: Sequence[State], ids: Sequence[int] | None
    ) -> list[int]:
        select = f"SELECT id FROM tasks WHERE state IN {_names(states)}"  # noqa: S608 - constants
        if ids is None:
            return [row[0] for row in db.execute(f"{select} ORDER BY {_AGE}")]
        rows = (db.execute(f"{select} AND id = ?", (number,)).fetchone() for number in ids)
        return [row[0] for row in rows if row]

    # Reading

    def counts(self) -> dict[State, int]:
        """Return how many tasks there are in each state that has any."""
        with self._named() as db:
            rows = db.execute(f"SELECT {_STATE}, count(*) FROM tasks GROUP BY 1")  # noqa: S608 - constants
            return {State(state): count for state, count in rows}

    def page(self, states: Sequence[State], limit: int, offset: int = 0) -> list[Record]:
        """Return tasks in these states, the oldest first."""
        select = f"SELECT {_COLUMNS} FROM tasks WHERE {_STATE} IN {_names(states)} ORDER BY {_AGE}"  # noqa: S608 - constants
        with self._named() as db:
            return [
                _record(row) for row in db.execute(f"{select} LIMIT ? OFFSET ?", (limit, offset))
            ]

    def show(self, number: int) -> Record | None:
        """Return what is known of one task."""
        with self._named() as db:
            row = db.execute(f"SELECT {_COLUMNS} FROM tasks WHERE id = ?", (number,)).fetchone()  # noqa: S608 - constants
        return _record(row) if row else None

    def data(self, number: int, limit: int) -> bytes | None:
        """Return the first *limit* bytes of a task's data; None where it is not kept."""
        with self._named() as db:
            found = db.execute("SELECT substr(data, 1, ?) FROM tasks WHERE id = ?", (limit, number))
            row = found.fetchone()
        return row[0] if row else None

    def queued(self) -> list[int]:
        """Return the ids of all tasks that will run, in the order in which they should."""
        with self._named() as db:
            select = (
                "SELECT id FROM tasks WHERE state = 'queued' ORDER BY priority, accepted_at, id"
            )
            return [row[0] for row in db.execute(select)]

    def entry(self, number: int) -> Entry | None:
        """Return a task that will run, with its data."""
        with self._named() as db:
            select = f"SELECT {_ENTRY} FROM tasks WHERE id = ? AND state = 'queued'"  # noqa: S608 - constants
            row = db.execute(select, (number,)).fetchone()
        return Entry(*row) if row else None

    @contextmanager
    def _named(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._db
        except sqlite3.Error as error:
            raise faults.named(error, self.path) from error

    def close(self) -> bool:
        """Close the file; return whether nothing is in it."""
        is_empty = False
        with suppress(LedgerError, sqlite3.Error):
            is_empty = not self.counts()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._db.close()
        return is_empty


def open_store(path: Path) -> Store:
    """Open the ledger, or make an empty one; raises LedgerError.

    A file that is damaged is set aside first, with what SQLite keeps beside it, and said.
    """
    try:
        return _open(path)
    except LedgerDamaged as damaged:
        logs.error("ledger set aside", file=files.set_aside(path), why=damaged)
    return _open(path)


def _open(path: Path) -> Store:
    _make_file(path)
    db = None
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)
        _prepare(db)
        return Store(path, db)
    except (sqlite3.Error, schema.NewerVersion, schema.NotOurs) as error:
        if db is not None:
            db.close()
        if isinstance(error, schema.NewerVersion):
            cure = "run that version, or move the file away"
            raise LedgerNewer(f"{path}: {error}: {cure}") from None
        if isinstance(error, sqlite3.Error):
            raise faults.named(error, path) from None
        raise LedgerDamaged(f"{path}: {error}") from None


def _make_file(path: Path) -> None:
    """Have a file there that nobody else may read: SQLite would go by the umask."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise LedgerDamaged(f"{path} is no regular file")
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise LedgerReadOnly(f"{path}: uid {os.geteuid()} may not write it: change its owner")
        return
    except FileNotFoundError:
        pass
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # else a power cut may take the name away
        finally:
            os.close(folder)
    except OSError as error:
        raise LedgerError(f"cannot make the ledger {path}: {error.strerror}") from None


def _prepare(db: sqlite3.Connection) -> None:
    """Raises sqlite3.Error, NewerVersion, NotOurs."""
    for pragma in (
        # Until close(): no index of the log in shared memory, no look at what others did.
        "locking_mode = EXCLUSIVE",
        "auto_vacuum = INCREMENTAL",  # in effect in a new file only
        "journal_mode = WAL",
        "synchronous = FULL",
        f"journal_size_limit = {WAL_BYTES}",
        "temp_store = MEMORY",
        "cell_size_check = ON",
    ):
        db.execute(f"PRAGMA {pragma}").fetchall()
    told = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if told != "ok":
        raise sqlite3.DatabaseError(told)
    schema.migrate(db)
    db.execute("SELECT id FROM tasks LIMIT 1").fetchall()


def _names(states: Sequence[State]) -> str:
    return f"({', '.join(repr(str(state)) for state in states)})"


def _trim(db: sqlite3.Connection, count: int) -> None:
    oldest = f"SELECT id FROM tasks WHERE state IN {_names(ENDED)} ORDER BY {_AGE} LIMIT ?"  # noqa: S608 - constants
    db.execute(f"DELETE FROM tasks WHERE id IN ({oldest})", (count,))  # noqa: S608


def _row(entry: Entry) -> tuple[object, ...]:
    return (
        *(entry.id, entry.data, entry.flags, entry.priority, entry.src_worker_id),
        *(entry.accepted_at, entry.name, entry.attempts, entry.terms, entry.due),
    )


def _letter_row(entry: Entry, ending: Ending) -> tuple[object, ...]:
    return (
        *_row(replace(entry, attempts=ending.attempts)),
        *(str(ending.state), ending.at, ending.error, ending.traceback, ending.how),
    )


def _end_row(ending: Ending) -> tuple[object, ...]:
    return (
        *(str(ending.state), ending.attempts, ending.at, ending.error, ending.traceback),
        *(ending.how, ending.id),
    )


def _record(row: tuple[object, ...]) -> Record:
    number, state, *rest = row
    return Record(number, State(str(state)), *rest)  # type: ignore[arg-type] # as the schema says
