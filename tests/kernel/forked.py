"""Something done in a process of its own, and what came of it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

DEADLINE = 20.0  # seconds that anything here may take
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes users or namespaces")


@dataclass(frozen=True, slots=True)
class Child:
    """A child, and the pipe on which it says what it has to say."""

    pid: int
    said: int

    def line(self, timeout: float = DEADLINE) -> str:
        """The next line; "" when nobody holds the pipe any more. Raises TimeoutError."""
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self.said], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} says nothing")
            byte = os.read(self.said, 1)
            if not byte:
                break
            text += byte
        return text.decode().rstrip("\n")

    def kill(self) -> None:
        """SIGKILL, and reap."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


Say = Callable[[object], None]


@contextlib.contextmanager
def forked(body: Callable[[Say], object]) -> Iterator[Child]:
    """Run *body* in a child, which says what it passes to say() and what it returns or raises."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run(body, lambda what: _say(writer, what))
    os.close(writer)
    child = Child(pid, reader)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            child.kill()
        os.close(reader)


def outcome(body: Callable[[], object]) -> str:
    """What *body* returns in a child, as repr; or what it raises."""
    with forked(lambda _say: repr(body())) as child:
        return child.line()


def as_nobody(body: Callable[[], object]) -> Callable[[], object]:
    """Have *body*, which runs in a child, do it as a user without rights."""

    def demoted() -> object:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return body()

    return demoted


def wait_for_ever(say: Say) -> None:
    """End of a body: the child stands until it is killed."""
    say("ready")
    while True:
        signal.pause()


def _run(body: Callable[[Say], object], say: Say) -> None:
    try:
        say(body(say))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test wants to see it
        say(repr(error))
    finally:
        os._exit(0)


def _say(fd: int, what: object) -> None:
    os.write(fd, f"{what}\n".encode())
