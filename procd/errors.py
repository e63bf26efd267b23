"""Every error that procd raises on purpose, and the exit status that it ends a command with.

A message here is read by a person: what happened, to what, what to do.
"""

from __future__ import annotations


class ProcdError(Exception):
    """Base of all errors that the command line reports without a traceback."""

    exit_status = 1


class UsageError(ProcdError):
    """The command line or the environment asks for something that cannot be."""

    exit_status = 2


class ConfigError(ProcdError):
    """The config is not valid; the message has one line `FILE:LINE:COL: ...` per fault."""

    exit_status = 2


class NotRunning(ProcdError):
    """There is no master for this config."""

    exit_status = 3


class AlreadyRunning(ProcdError):
    """A master for this config (or one that owns its files) lives."""


class StartFailed(ProcdError):
    """The service could not come up; nothing of it is left running."""


class ReloadRefused(ProcdError):
    """The new generation did not come up; the old one serves untouched."""


class TaskError(ProcdError):
    """Base of what the task calls raise."""


class TaskQueueFull(TaskError):
    """No slot is free for another task: answer "busy", or wait with task_wait."""


class TaskRejected(TaskError):
    """What is too large for a slot could not be stored in a file; the text names file and cure."""


class TaskFailed(TaskError):
    """The task's handler raised, or its process died too often; the text tells which.

    *traceback* is the handler's, as text; empty where there is none.
    """

    def __init__(self, text: str, traceback: str = "") -> None:
        super().__init__(text)
        self.traceback = traceback


class TaskTimeout(TaskFailed):
    """It took too long: longer than the task's timeout, or than who waits for it would wait.

    Raised in the task's handler too, when its time is up.
    """


class TaskExpired(TaskFailed):
    """Its ttl was over before a task worker came to it: it has not been begun."""


class TaskCancelled(TaskFailed):
    """Somebody cancelled the task. Raised in its handler too, if it runs at that moment."""


class NoSuchTask(TaskFailed):
    """No task of this name, or no on_task handler, is in the app that should have run it."""


class ConnectionLost(TaskError):
    """The way to a service broke that a program outside of it uses; the text tells of the task.

    From a result: the task was accepted and runs, but its result is not to be had. From a send:
    nobody can tell whether the task was accepted.
    """


class MessageTooBig(ProcdError):
    """A payload is larger than the way that it should go."""


class InboxFull(ProcdError):
    """The process that should get the message has not read its earlier ones."""


class NoSuchWorker(ProcdError):
    """No worker or task worker has this id."""


class SendBufferFull(ProcdError):
    """A client reads too slowly: await conn.drain() before sending more to it."""
