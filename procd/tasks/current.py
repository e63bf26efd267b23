"""The task that this process runs: a task worker runs one at a time."""

from __future__ import annotations

_here: list[object] = []  # none or one


def enter(task: object) -> None:
    """Say which task runs from now on."""
    _here[:] = [task]


def leave() -> None:
    """Say that none does."""
    _here.clear()


def find() -> object | None:
    """Return it, None where none runs."""
    return _here[0] if _here else None
