"""Reloads that were asked for and not begun, how one may end, and who waits to hear it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from procd.ipc.scoreboard import Role


class Ended(Enum):
    """How an attempt ended."""

    WON = auto()  # a new generation serves
    REFUSED = auto()
    APPLIED = auto()  # an edit of the config that takes no new generation, or nothing at all


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reload ended, for who asked for it."""

    exit_status: int
    text: str


Waiter = Callable[[Outcome], None]


@dataclass(slots=True)
class Request:
    """All that was asked for until it is begun."""

    roles: tuple[Role, ...] = ()
    causes: dict[str, None] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)
    is_edit: bool = True  # nothing but the config file is known to have changed
    reads_config: bool = False  # it may have


class Asked:
    """One request waits at most: what comes meanwhile joins it."""

    def __init__(self) -> None:
        self._next: Request | None = None
        self._waiters: list[Waiter] = []

    def __bool__(self) -> bool:
        return self._next is not None

    def ask(
        self,
        roles: tuple[Role, ...],
        causes: Iterable[str],
        waiter: Waiter | None = None,
        *,
        is_edit: bool = False,
        reads_config: bool = True,
    ) -> None:
        """Ask for a new generation of *roles*, or for what an edit of the config makes due.

        Without *reads_config* the file of the config is known to be as it was.
        """
        request = self._next = self._next or Request()
        if len(roles) > len(request.roles):
            request.roles = roles
        request.causes |= dict.fromkeys(causes)
        request.is_edit = request.is_edit and is_edit
        request.reads_config = request.reads_config or reads_config
        if waiter is not None:
            request.waiters.append(waiter)

    def take(self) -> Request | None:
        """Return what is asked for, to be begun; its waiters hear the next tell()."""
        request, self._next = self._next, None
        if request is not None:
            self._waiters += request.waiters
        return request

    def tell(self, outcome: Outcome) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter(outcome)

    def refuse_all(self, why: str) -> None:
        """Answer everybody: the service is about to stop."""
        self.take()
        self.tell(Outcome(1, why))
