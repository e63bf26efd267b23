"""What a program sends with which options: what Client, AsyncClient and their options() share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, Unpack

from procd.client.sent import Sent
from procd.ipc import wire
from procd.ipc.frames import Kind
from procd.tasks.options import PLAIN, Given, Options

T_co = TypeVar("T_co", covariant=True)


class Sending(Generic[T_co]):
    """*submit* has one task sent, and returns what the program holds of it."""

    def __init__(self, submit: Callable[[Sent], T_co], options: Options = PLAIN) -> None:
        self._submit = submit
        self._options = options

    def options(self, **given: Unpack[Given]) -> Sending[T_co]:
        """Return a way to send with other options: `client.options(delay=5).send("name", ...)`.

        They are those of a named task's options(), here for on_task as well. What the task's
        decorator says does not count. Raises TypeError, ValueError that name the option.
        """
        return Sending(self._submit, self._options.but(given))

    def send(self, name: str, /, *args: object, **kwargs: object) -> T_co:
        """Send a named task, as Client.send does."""
        return self._put(Kind.NAMED, [name, list(args), kwargs])

    def task(self, data: object) -> T_co:
        """Send a task for the app's on_task handler."""
        return self._put(Kind.DATA, data)

    def _put(self, kind: Kind, data: object) -> T_co:
        given = self._options.given()
        return self._submit(Sent(kind, wire.pack(data), wire.pack(given) if given else b""))
