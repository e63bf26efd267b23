"""What an import leaves open that does not survive a fork: threads, sockets, epoll.

A forked process has the parent's memory but one thread; its sockets and epoll sets are the
parent's own, shared. Who forks after such an import forks trouble (a lock that nobody will
release, two processes on one database connection). Here it is found and named by module.

Threads of BLAS pools are allowed: OpenBLAS and MKL end and remake them around a fork
(pthread_atfork), so numpy and scipy may be imported before one.
"""

from __future__ import annotations

import os
import select
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Protocol, cast

ALLOWED_THREADS = frozenset({"numpy", "scipy", "mkl"})
_KINDS = {
    "socket": "socket",
    "anon_inode:[eventpoll]": "epoll",
    "anon_inode:[io_uring]": "io_uring",
}
# A thread that was joined is still listed for a moment.
_LINGER_STEPS, _LINGER_SECONDS = 20, 0.001

Thing = tuple[str, str]  # what kind, and which one


class Finder(Protocol):
    """What stands in sys.meta_path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None: ...


class ModuleLoader(Protocol):
    """What a spec has: finds or makes a module, then runs its code in it."""

    def create_module(self, spec: ModuleSpec, /) -> ModuleType | None: ...
    def exec_module(self, module: ModuleType, /) -> None: ...


class Inspection:
    """Looks at the process after each module that is imported; see inspected()."""

    def __init__(self, whole: str, on_found: Callable[[ModuleSpec], None]) -> None:
        self.changes = 0  # how often a look found anything new, or gone
        self._whole = whole
        self._on_found = on_found
        self._before = _things()
        self._seen = set(self._before)
        self._culprits: dict[Thing, str] = {}
        self._running: list[str] = []  # modules whose code runs, the innermost last
        self._mark = _mark()

    def found(self, spec: ModuleSpec) -> None:
        """A module is about to be read."""
        if self._running:
            self.look(self._running[-1])
        self._on_found(spec)

    def begins(self, name: str) -> None:
        """A module's code is about to run."""
        self._running.append(name)

    def ended(self) -> None:
        """The code of the innermost module has run, or raised."""
        self.look(self._running.pop())

    def look(self, name: str) -> None:
        """What is new since the last look is the doing of *name*."""
        mark = _mark()
        if mark == self._mark:
            return
        self._mark = mark
        self.changes += 1
        things = _things()
        for thing in things - self._seen:
            self._culprits[thing] = name
        self._seen = things

    def unfit(self) -> dict[str, str]:
        """Return what stands open and why no fork should follow, by module: "2 threads, epoll".

        Empty = fit to be forked from.
        """
        left = self._left()
        for _ in range(_LINGER_STEPS):
            if not any(kind == "thread" for kind, _ in left):
                break
            select.select([], [], [], _LINGER_SECONDS)
            left = self._left()
        counts: dict[str, Counter[str]] = {}
        for thing in left:
            counts.setdefault(self._culprits.get(thing, self._whole), Counter())[thing[0]] += 1
        return {module: _text(counted) for module, counted in sorted(counts.items())}

    def _left(self) -> list[Thing]:
        left = []
        for thing in sorted(_things() - self._before):
            package = self._culprits.get(thing, self._whole).partition(".")[0]
            if not (thing[0] == "thread" and package in ALLOWED_THREADS):
                left.append(thing)
        return left


@contextmanager
def inspected(
    whole: str, on_found: Callable[[ModuleSpec], None] = lambda spec: None
) -> Iterator[Inspection]:
    """Have every import of the block looked at, at its innermost module.

    *whole* is named for what no module can be blamed for. *on_found* is told of each module
    before it is read.
    """
    inspection = Inspection(whole, on_found)
    finder = _Finder(inspection)
    sys.meta_path.insert(0, finder)
    try:
        yield inspection
    finally:
        with suppress(ValueError):  # the app rearranged it
            sys.meta_path.remove(finder)


class _Finder:
    """Stands before the other finders and lets them find."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    stand_in = _Loader(cast("ModuleLoader", spec.loader), self._inspection)
                    spec.loader = cast("Loader", stand_in)
                return spec
        return None


class _Loader:
    """Stands in for a module's loader until its code is about to run."""

    def __init__(self, loader: ModuleLoader, inspection: Inspection) -> None:
        self._loader = loader
        self._inspection = inspection

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        self._inspection.found(spec)
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = None if create is None else create(spec)
        # A shared library's constructors have run: OpenBLAS has its threads by now.
        self._inspection.look(spec.name)
        return module

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is as if nobody had looked.
        if module.__spec__ is not None:
            module.__spec__.loader = cast("Loader", self._loader)
        module.__loader__ = cast("Loader", self._loader)
        self._inspection.begins(module.__name__)
        try:
            self._loader.exec_module(module)
        finally:
            self._inspection.ended()


def _things() -> set[Thing]:
    found = {("thread", tid) for tid in os.listdir("/proc/self/task")}
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing's own
            link = os.readlink(f"/proc/self/fd/{fd}")
            kind = _KINDS.get(link) or _KINDS.get(link.partition(":[")[0])
            if kind is not None:
                found.add((kind, f"{fd} {link}"))
    return found


def _mark() -> tuple[int, int]:
    """Return what changes when a thread or descriptor comes or goes; a look costs ten times that.

    The lowest free descriptor tells of one that was opened in the usual way; what it misses,
    unfit() finds, without a name.
    """
    fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.close(fd)
    return os.stat("/proc/self/task").st_nlink, fd


def _text(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {kind}s" if n > 1 else kind for kind, n in sorted(counted.items()))
