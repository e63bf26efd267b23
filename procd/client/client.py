"""procd.Client: tasks from any Python program of the service's user (or root), and their results.

The program needs nothing of procd but this: no worker, no app. What it sends is accepted with the
same promises as what a worker sends; a reload of the service is not noticed, and the program's own
death costs no task.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from types import TracebackType
from typing import Self, Unpack

from procd.client.line import Line
from procd.client.sending import Sending
from procd.client.sent import AwaitedTask, Sent, SentTask
from procd.config.find import find
from procd.errors import ProcdError
from procd.tasks.options import Given

_lines: weakref.WeakSet[Line] = weakref.WeakSet()


def _forked() -> None:
    for line in list(_lines):
        line.abandon()


os.register_at_fork(after_in_child=_forked)


class Client:
    """A way to the running service of a config, by the config's path as `procd -c` has it.

    It connects when it first sends, and again when it has to. May be used by several threads, and
    by a child after a fork. `with Client(...) as client` closes it; `async with` gives an
    AsyncClient.
    """

    def __init__(
        self, config: str | os.PathLike[str] | None = None, *, connect_timeout: float = 30.0
    ) -> None:
        """*connect_timeout*: seconds that a service which starts may take to answer.

        Without *config* it is the one that the command line would find. Raises UsageError.
        """
        path = find(None if config is None else os.fspath(config))
        self._line = Line(path, connect_timeout)
        _lines.add(self._line)
        self._awaited: AsyncClient | None = None
        self._close = weakref.finalize(self, self._line.close)

    def send(self, name: str, /, *args: object, **kwargs: object) -> SentTask:
        """Send a named task; return when it is accepted: it will run, whoever dies.

        *name* is what `@task` made of the function: `module.function`, or the name given there.
        Raises NotRunning, TaskQueueFull, TaskRejected, MessageTooBig, TypeError for arguments
        that cannot travel, ConnectionLost if it cannot be told whether it was accepted.
        """
        return Sending(self._sent).send(name, *args, **kwargs)

    def task(self, data: object) -> SentTask:
        """Send a task for the app's on_task handler; as send()."""
        return Sending(self._sent).task(data)

    def options(self, **given: Unpack[Given]) -> Sending[SentTask]:
        """Return a way to send with options: `client.options(delay=5).send("name", ...)`.

        With delivery="durable" send() does not wait for the disk: see SentTask.accepted().
        Raises TypeError, ValueError that name the option and what it takes.
        """
        return Sending(self._sent).options(**given)

    def _sent(self, sent: Sent) -> SentTask:
        self._line.submit(sent)
        sent.written.wait(None)
        return SentTask(sent, self, self._line)

    def close(self) -> None:
        """Leave. Tasks that were accepted run on; who waits for a result gets ConnectionLost."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncClient:
        self._awaited = AsyncClient(self, self._line)
        return self._awaited

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._awaited is not None:
            await self._awaited.answered()
        self._line.close(wait=False)


class AsyncClient:
    """What `async with Client(...)` gives: as Client, and never blocks the event loop."""

    def __init__(self, client: Client, line: Line) -> None:
        self._client = client
        self._line = line
        self._unanswered: set[Sent] = set()

    def send(self, name: str, /, *args: object, **kwargs: object) -> AwaitedTask:
        """Send a named task, and return at once: `await` gives the result.

        `await ref.accepted()` waits until it is accepted; so does the end of `async with`.
        Raises TypeError for arguments that cannot travel; the rest is raised where it is awaited.
        """
        return Sending(self._sent).send(name, *args, **kwargs)

    def task(self, data: object) -> AwaitedTask:
        """Send a task for the app's on_task handler; as send()."""
        return Sending(self._sent).task(data)

    def options(self, **given: Unpack[Given]) -> Sending[AwaitedTask]:
        """As Client.options()."""
        return Sending(self._sent).options(**given)

    def _sent(self, sent: Sent) -> AwaitedTask:
        self._unanswered.add(sent)
        sent.accepted.then(lambda: self._unanswered.discard(sent))
        self._line.submit(sent)
        return AwaitedTask(sent, self._client, self._line)

    async def answered(self) -> None:
        """Wait until each task that was sent is accepted, or refused."""
        for sent in list(self._unanswered):
            with suppress(ProcdError):  # whoever awaits it is told
                await sent.accepted.come()
