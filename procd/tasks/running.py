"""A task in the task worker that runs it: what procd.Task shows to an app."""

from __future__ import annotations

from typing import Protocol

from procd import logs
from procd.ipc import wire
from procd.ipc.inbox import Post
from procd.ipc.layout import Meta
from procd.ipc.scoreboard import Cell
from procd.ipc.terms import Terms
from procd.tasks import failure
from procd.tasks.progress import Telling

_ENDINGS = {failure.EXPIRED: Cell.EXPIRED, failure.CANCELLED: Cell.CANCELLED}


class Publisher(Protocol):
    """Who runs it."""

    limit: int  # bytes of a failure

    def publish(
        self, task: RunningTask, packed: bytes, counter: Cell, *, is_dead: bool = False
    ) -> bool: ...


class RunningTask:
    """See procd.Task for what an app may use."""

    __slots__ = (
        "_post",
        "_runner",
        "_telling",
        "attempt",
        "data",
        "id",
        "is_finished",
        "meta",
        "name",
        "src_worker_id",
        "terms",
        "token",
    )

    def __init__(
        self, runner: Publisher, post: Post, token: int, meta: Meta, attempt: int, terms: Terms
    ) -> None:
        self._runner = runner
        self._post = post
        self._telling: Telling | None = None
        self.meta = meta
        self.terms = terms
        self.token = token
        self.id = meta.task_id or token
        self.attempt = attempt + 1
        self.src_worker_id = meta.src_worker_id
        self.name: str | None = None
        self.data: object = None
        self.is_finished = False

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.name or ''}>"

    def finish(self, result: object) -> None:
        if not self.is_finished:
            packed = wire.pack(result)
            self._say_the_last()
            self._runner.publish(self, packed, Cell.DONE)

    def fail(self, text: str, trace: str = "", kind: str = "", *, is_dead: bool = False) -> None:
        """End it without a result. *is_dead*: as a dead letter, until somebody looks at it."""
        if not self.is_finished:
            packed = failure.pack(text, trace, self._runner.limit, kind)
            self._say_the_last()
            counter = _ENDINGS.get(kind, Cell.FAILED)
            if not self._runner.publish(self, packed, counter, is_dead=is_dead):
                why = trace or text
                logs.log.error("task failed id=%d, its dispatcher is gone: %s", self.id, why)

    def progress(self, value: object) -> None:
        if self._telling is None:
            meta = self.meta
            self._telling = Telling(self._post, self.token, meta.src_row, meta.src_incarnation)
        self._telling.tell(value)

    def _say_the_last(self) -> None:
        """Send what was held back of its progress: before the result is there to be found."""
        if self._telling is not None:
            self._telling.flush()
