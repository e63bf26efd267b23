"""Named tasks: `@task` on a function, callable by name from any process of the service.

Called plainly, a task runs here and now. send() hands it to a task worker; that needs a
procd process, whose dispatcher enter() names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar, Unpack, overload

from procd.errors import ProcdError
from procd.ipc import layout, wire
from procd.tasks.dispatcher import Dispatcher
from procd.tasks.options import PLAIN, Given, Options
from procd.tasks.ref import TaskRef

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

TASKS: dict[str, NamedTask[..., object]] = {}
_here: list[Dispatcher] = []  # one, once this is a worker or task worker


class NotInService(ProcdError):
    """A task can only be sent from a worker or task worker of procd."""


class NamedTask(Generic[P, R_co]):
    """A function that task workers know by name."""

    def __init__(self, function: Callable[P, R_co], name: str, options: Options = PLAIN) -> None:
        self.function = function
        self.name = name
        self._options = options
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)
        self.__wrapped__ = function

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function here and now."""
        return self.function(*args, **kwargs)

    def options(self, **given: Unpack[Given]) -> NamedTask[P, R_co]:
        """Return the same task to be sent with other options: `name.options(delay=5).send(...)`.

        Raises TypeError, ValueError that name the option and what it takes.
        """
        return NamedTask(self.function, self.name, self._options.but(given))

    def send(self, *args: P.args, **kwargs: P.kwargs) -> TaskRef:
        """Hand a call over to any free task worker; returns at once.

        With delivery="durable" it is not accepted yet then: see TaskRef.accepted().
        Raises TaskQueueFull, TaskRejected, MessageTooBig, TypeError for arguments that cannot
        travel, NotInService outside of a procd process.
        """
        payload = wire.pack([self.name, args, kwargs])
        return here().dispatch(payload, flags=layout.NAMED, options=self._options)


@overload
def task(function: Callable[P, R_co], /) -> NamedTask[P, R_co]: ...
@overload
def task(
    *, name: str | None = None, **given: Unpack[Given]
) -> Callable[[Callable[P, R_co]], NamedTask[P, R_co]]: ...
def task(
    function: Callable[P, R_co] | None = None,
    /,
    *,
    name: str | None = None,
    **given: Unpack[Given],
) -> NamedTask[P, R_co] | Callable[[Callable[P, R_co]], NamedTask[P, R_co]]:
    """Make a function a named task: `@task`, `@task(name="resize", retries=3, timeout=30)`.

    The name is `module.function` unless given; tasks.options.Given tells the options. Raises
    ProcdError if another function of that name is a task already, TypeError and ValueError
    that name an option and what it takes.
    """
    options = PLAIN.but(given) if given else PLAIN

    def decorate(function: Callable[P, R_co]) -> NamedTask[P, R_co]:
        full = name or f"{function.__module__}.{function.__qualname__}"
        known = TASKS.get(full)
        # The same place again is a module that is imported again.
        if known is not None and known.function.__code__ != function.__code__:
            same = known.function.__code__.co_filename == function.__code__.co_filename
            if name is not None and not same:
                raise ProcdError(f"two functions claim the task name {full!r}")
        made = NamedTask(function, full, options)
        TASKS[full] = made
        return made

    return decorate if function is None else decorate(function)


def enter(dispatcher: Dispatcher) -> None:
    """Say through whom this process sends its tasks."""
    _here[:] = [dispatcher]


def here() -> Dispatcher:
    """Return this process's dispatcher; raises NotInService."""
    if not _here:
        raise NotInService(
            "send() works in a worker or task worker of procd; call the task plainly to run "
            "it here and now"
        )
    return _here[0]
