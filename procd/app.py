"""What an app sees of procd: Server, Connection, Task.

Importing this starts nothing: an app can be imported by a test, by `procd check` and by a
template alike. In a worker or task worker procd gives the Server its host, and only then
its verbs work.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, cast

from procd.errors import ProcdError
from procd.ipc import wire
from procd.tasks import current
from procd.tasks.ref import TaskRef
from procd.tasks.registry import NotInService

Handler = Callable[..., object]
H = TypeVar("H", bound=Handler)

EVENTS = (
    "worker_start",
    "worker_stop",
    "connect",
    "receive",
    "resume",
    "close",
    "task",
    "finish",
    "pipe_message",
)


class Connection(Protocol):
    """One client's connection, as its handlers see it.

    A reload may move it to a worker of the new generation, between two messages and unnoticed
    by the client: a new Connection there has the same id, remote, local and state, and
    neither on_close nor on_connect is called. It moves only if nobody but procd holds this
    object or its state, and if the state comes back the same from MessagePack (None, bool, int,
    float, str, bytes, list, dict, datetime; aware ones in UTC). So keep in `state` what belongs
    to a connection. What an app keeps elsewhere by `id` is not seen, and is not there in the
    new process: register on_resume then.
    """

    id: int  # unique in the service while it is open
    remote: str
    local: str
    state: dict[object, object]  # the app's own

    def send(self, data: bytes) -> None:
        """Queue bytes for the client.

        Raises SendBufferFull if it has `send_buffer_bytes` unsent already: await drain().
        Bytes for a client that has gone are dropped.
        """

    async def drain(self) -> None:
        """Wait until the client has taken enough; ConnectionResetError if it is gone."""

    def close(self) -> None:
        """Close after what was sent has gone out."""


class Task(Protocol):
    """A task in the task worker that runs it."""

    id: int
    data: object
    name: str | None  # of a named task
    src_worker_id: int
    attempt: int  # 1 = the first

    def finish(self, result: object) -> None:
        """Send the result now; the first one counts.

        Raises TypeError, MessageTooBig, TaskRejected.
        """

    def progress(self, value: object) -> None:
        """Tell who sent it how far it is: `async for value in ref.progress()`.

        Nobody waits, and nothing of it is stored: a dispatcher that does not read in time, or has
        died, misses it. Raises TypeError for what cannot travel, MessageTooBig over 8,000 bytes.
        """


def current_task() -> Task | None:
    """Return the task that runs here, as in a named task's function; None where none does."""
    return cast("Task | None", current.find())


class Host(Protocol):
    """The process behind a Server: a worker or a task worker."""

    generation: int
    is_task_worker: bool

    @property
    def worker_id(self) -> int: ...
    def task(self, payload: bytes, dst_worker_id: int | None) -> TaskRef: ...
    async def task_wait(self, payload: bytes, timeout: float | None) -> object: ...
    def cancel_task(self, task_id: int) -> bool: ...
    def send_message(self, data: object, dst_worker_id: int) -> None: ...
    def stats(self) -> dict[str, int]: ...


class Server:
    """The app's handlers, and its way to tasks and other processes.

    Handlers may be `def` or `async def`. A plain one runs on the worker's event loop: it
    must not wait for anything; slow work belongs into a task.
    """

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}
        self._host: Host | None = None

    # Handlers

    def on(self, event: str, handler: H) -> H:
        """Register a handler; raises ValueError for an unknown event."""
        if event not in EVENTS:
            raise ValueError(f"no event {event!r}; there are {', '.join(EVENTS)}")
        if not callable(handler):
            raise TypeError(f"the handler of {event!r} is a {type(handler).__name__}")
        self.handlers[event] = handler
        return handler

    def on_worker_start(self, handler: H) -> H:
        """Called in every worker and task worker before it counts as ready."""
        return self.on("worker_start", handler)

    def on_worker_stop(self, handler: H) -> H:
        """Called in every worker and task worker that leaves in peace."""
        return self.on("worker_stop", handler)

    def on_connect(self, handler: H) -> H:
        """Called with the Connection when a client was accepted."""
        return self.on("connect", handler)

    def on_receive(self, handler: H) -> H:
        """Called with the Connection and the bytes that came, one call at a time each."""
        return self.on("receive", handler)

    def on_resume(self, handler: H) -> H:
        """Called with the Connection in the worker that a reload has moved it to.

        In place of on_connect, before anything that the client sends from then on. An app that
        registers it says that it copes with Connections that move although it holds them (in
        a dict, in a task): the old object is closed then without on_close, and what it is
        given to send goes nowhere.
        """
        return self.on("resume", handler)

    def on_close(self, handler: H) -> H:
        """Called with the Connection once it is gone, whoever closed it."""
        return self.on("close", handler)

    def on_task(self, handler: H) -> H:
        """Called with the Task in a task worker; its return value is the result."""
        return self.on("task", handler)

    def on_finish(self, handler: H) -> H:
        """Called with task id and result in the process that dispatched the task."""
        return self.on("finish", handler)

    def on_pipe_message(self, handler: H) -> H:
        """Called with the sender's worker id and the data."""
        return self.on("pipe_message", handler)

    def is_async(self, *events: str) -> bool:
        """Tell whether any of these handlers is `async def`."""
        return any(inspect.iscoroutinefunction(self.handlers.get(event)) for event in events)

    # Verbs, in a worker or task worker

    def attach(self, host: Host) -> None:
        """Say which process this is; procd does it before on_worker_start."""
        self._host = host

    @property
    def _process(self) -> Host:
        if self._host is None:
            raise NotInService("this works in a worker or task worker that procd started")
        return self._host

    def _need(self, event: str, verb: str) -> None:
        if event not in self.handlers:
            raise ProcdError(f"{verb}: this app has no on_{event} handler")

    def task(self, data: object, dst_worker_id: int | None = None) -> TaskRef:
        """Hand *data* to a task worker (to one, by its worker id); returns at once.

        Raises TaskQueueFull, TaskRejected, MessageTooBig, TypeError, NoSuchWorker.
        """
        self._need("task", "task")
        return self._process.task(wire.pack(data), dst_worker_id)

    def task_wait(self, data: object, timeout: float | None = None) -> Awaitable[object]:
        """Wait for room as well as for the result.

        Raises TaskTimeout after *timeout* seconds, TaskFailed, TaskRejected, MessageTooBig,
        TypeError.
        """
        self._need("task", "task_wait")
        return self._process.task_wait(wire.pack(data), timeout)

    def cancel_task(self, task_id: int) -> bool:
        """Cancel a task by its id, whoever sent it; as TaskRef.cancel()."""
        return self._process.cancel_task(task_id)

    def send_message(self, data: object, dst_worker_id: int) -> None:
        """Send *data* to the on_pipe_message handler of any worker or task worker.

        Raises NoSuchWorker, InboxFull, MessageTooBig, TypeError.
        """
        self._need("pipe_message", "send_message")
        self._process.send_message(data, dst_worker_id)

    @property
    def worker_id(self) -> int:
        """0 .. worker_num + task_worker_num - 1, workers first; as in `procd status`."""
        return self._process.worker_id

    @property
    def worker_pid(self) -> int:
        return os.getpid()

    @property
    def is_task_worker(self) -> bool:
        return self._process.is_task_worker

    @property
    def generation(self) -> int:
        return self._process.generation

    def stats(self) -> dict[str, int]:
        """Return this process's counters."""
        return self._process.stats()
