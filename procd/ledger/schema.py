"""The ledger's tables, and how a file of an older version becomes one of this.

The version stands in the file's user_version. A step is never changed once it was released: a
new version is one step more, and its test opens a file of each version before it.

    tasks   a row for each task that was handed to the ledger, by its id
            state        queued, done, failed, dead, cancelled (State; delayed is said of queued)
            data         the payload as it stood in the arena; kept while it could run (again)
            attempts     how often it was begun, as far as it is known to have ended
            how          what ended its last process: a signal's name, an exit status
    terms        what its sender asked for beyond "run it", as it stood in the arena (ipc.terms)
    due          the time of the wall clock before which it is not run; 0 = none
"""

from __future__ import annotations

import sqlite3
from enum import StrEnum

APPLICATION_ID = 0x70726364  # "prcd": file(1) and we know the file by it


class State(StrEnum):
    """Where a task stands, as the ledger knows it."""

    QUEUED = "queued"  # it will run; whether it runs now the arena knows
    DELAYED = "delayed"  # the same, and is not due yet: never written, but read
    DONE = "done"
    FAILED = "failed"  # its handler raised
    DEAD = "dead"  # a dead letter: it has used up its attempts
    CANCELLED = "cancelled"


ENDED = (State.DONE, State.FAILED, State.CANCELLED)  # history: only the newest are kept

_FIRST = """
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    flags INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    src_worker_id INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    finished_at REAL,
    name TEXT,
    how TEXT,
    error TEXT,
    traceback TEXT,
    data BLOB
);
CREATE INDEX tasks_by_state ON tasks (state, finished_at, id);
"""

_SECOND = """
ALTER TABLE tasks ADD COLUMN terms BLOB NOT NULL DEFAULT x'';
ALTER TABLE tasks ADD COLUMN due REAL NOT NULL DEFAULT 0;
"""

STEPS = (_FIRST, _SECOND)
VERSION = len(STEPS)


class NewerVersion(Exception):
    """The file is of a later procd than this one."""


class NotOurs(Exception):
    """The file is a database of another program."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file to this version, wholly or not at all.

    Raises NewerVersion, NotOurs, sqlite3.Error.
    """
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    has_tables = db.execute("SELECT 1 FROM sqlite_master").fetchone() is not None
    if owner != APPLICATION_ID and (owner or found or has_tables):
        raise NotOurs("it is a database of another program")
    if found > VERSION:
        raise NewerVersion(f"it is of version {found}, this procd reads up to {VERSION}")
    if found == VERSION:
        return
    # executescript() commits what is open before it begins: the transaction is in the script.
    steps = "".join(STEPS[found:])
    stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
    try:
        db.executescript(f"BEGIN IMMEDIATE; {steps} {stamp} COMMIT;")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
