"""What a successor does with results of tasks that its dead predecessor has sent.

The slots are not its own: it reads them, has on_finish called, and tells the master, who frees
them. It may die on the way; then the next one hears of them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from procd import logs
from procd.app import Handler
from procd.ipc import layout, others
from procd.ipc.arena import Arena
from procd.tasks import failure


@dataclass(frozen=True, slots=True)
class Inheriting:
    """*call* calls a handler and returns the task of an async one; *tell_master* as a channel."""

    arena: Arena
    handlers: dict[str, Handler]
    call: Callable[[str, Handler, int, object], asyncio.Task[object] | None]
    tell_master: Callable[[str, dict[str, object]], object]

    def take(self, tokens: Sequence[int]) -> None:
        """Call on_finish with the results of done tasks."""
        handler = self.handlers.get("finish")
        if handler is None:
            self._say(list(tokens), heard=False)
            return
        through: list[int] = []
        for token in tokens:
            running = self._hear(handler, token)
            if running is None:
                through.append(token)
            else:
                running.add_done_callback(partial(self._ended, token))
        if through:
            self._say(through, heard=True)

    def _hear(self, handler: Handler, token: int) -> asyncio.Task[object] | None:
        task_id = others.done_task(self.arena, token)
        if task_id is None:
            return None  # it has been freed meanwhile
        try:
            packed, failed = self.arena.result(token)
        except layout.Damaged as damaged:
            logs.error("result damaged", id=task_id, why=damaged)
            return None
        value, error = failure.outcome(packed, failed=failed)
        return self.call("finish", handler, task_id, value) if error is None else None

    def _ended(self, token: int, _running: object) -> None:
        self._say([token], heard=True)

    def _say(self, tokens: list[int], *, heard: bool) -> None:
        self.tell_master("through", {"ids": tokens, "heard": heard})
