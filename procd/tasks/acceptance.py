"""Whether a durable task is on the disk yet: until then nobody was promised anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator

from procd.errors import TaskRejected, TaskTimeout
from procd.ipc import layout
from procd.ipc.arena import Arena
from procd.tasks import failure

POLL_SECONDS = (0.0002, 0.005)  # first and longest pause of one who may not await


class Acceptance:
    """What the ledger says of one task that was just sent."""

    __slots__ = ("_arena", "_token", "_waiters", "error", "is_known")

    def __init__(self, arena: Arena, token: int) -> None:
        self._arena = arena
        self._token = token
        self.is_known = False
        self.error: str | None = None  # why it is refused
        self._waiters: list[Callable[[], None]] = []

    def look(self) -> bool:
        """Tell whether the ledger has spoken; before the slot is freed, or its word is lost."""
        if not self.is_known and not self._arena.is_held(self._token):
            self._know(self._refusal())
        return self.is_known

    def _know(self, error: str | None) -> None:
        self.is_known, self.error = True, error
        waiters, self._waiters = self._waiters, []
        for wake in waiters:
            wake()

    def _refusal(self) -> str | None:
        if not self._arena.is_rejected(self._token):
            return None
        try:
            _, error = failure.outcome(self._arena.result(self._token)[0], failed=True)
        except layout.Damaged as damaged:
            return f"not accepted: {damaged}"
        return str(error)

    async def wait(self) -> None:
        """Wait until the ledger has it; raises TaskRejected if it has no room."""
        if not self.look():
            waiter = asyncio.get_running_loop().create_future()
            self.then(lambda: None if waiter.done() else waiter.set_result(None))
            await waiter
        self.check()

    def then(self, call: Callable[[], None]) -> None:
        """Have *call* called once the ledger has spoken."""
        if self.is_known:
            call()
        else:
            self._waiters.append(call)

    def block(self, timeout: float | None) -> None:
        """As wait(), where there is no loop; raises TaskTimeout."""
        pause, longest = POLL_SECONDS
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.look():
            if deadline is not None and time.monotonic() >= deadline:
                raise TaskTimeout(f"not accepted within {timeout:g} s")
            time.sleep(pause)
            pause = min(longest, 2 * pause)
        self.check()

    def check(self) -> None:
        if self.error is not None:
            raise TaskRejected(self.error)


class Waiting:
    """What accepted() returns: to be awaited, or (it was waited for already) to be left."""

    __slots__ = ("_acceptance",)

    def __init__(self, acceptance: Acceptance | None) -> None:
        self._acceptance = acceptance

    def __await__(self) -> Generator[object, None, None]:
        if self._acceptance is not None:
            yield from self._acceptance.wait().__await__()


def has_loop() -> bool:
    """Tell whether one may await here."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
