"""What can be wrong with the ledger's file, each with a name and a cure."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from procd.errors import ProcdError


class LedgerError(ProcdError):
    """The ledger's file cannot be used as asked; nothing was half-written."""


class LedgerFull(LedgerError):
    """Its disk has no room. What is in it can be read."""


class LedgerLocked(LedgerError):
    """Another process has it."""


class LedgerReadOnly(LedgerError):
    """It may not be written by this process."""


class LedgerDamaged(LedgerError):
    """It is no ledger, or what is in it cannot be trusted."""


class LedgerNewer(LedgerError):
    """A later version of procd has written it."""


_NAMED: dict[int, tuple[type[LedgerError], str]] = {
    sqlite3.SQLITE_FULL: (LedgerFull, "free some space there"),
    sqlite3.SQLITE_BUSY: (LedgerLocked, "another program has it open: end that"),
    sqlite3.SQLITE_LOCKED: (LedgerLocked, "another program has it open: end that"),
    sqlite3.SQLITE_READONLY: (LedgerReadOnly, "give it to the user of the service"),
    sqlite3.SQLITE_PERM: (LedgerReadOnly, "give it to the user of the service"),
    sqlite3.SQLITE_CANTOPEN: (LedgerReadOnly, "give its folder to the user of the service"),
    sqlite3.SQLITE_CORRUPT: (LedgerDamaged, "it is set aside at the next start"),
    sqlite3.SQLITE_NOTADB: (LedgerDamaged, "it is set aside at the next start"),
}


def named(error: sqlite3.Error, path: Path) -> LedgerError:
    """Return an error of SQLite as one of ours."""
    # A check that fails says so in words, without a code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    kind, cure = _NAMED.get(code & 0xFF, (LedgerError, "look at its disk"))
    return kind(f"{path}: {error}: {cure}")
