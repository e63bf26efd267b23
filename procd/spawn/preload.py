"""What the base imports before it forks templates: third-party modules, and no app code.

A module is imported by the name under which the app was seen to use it, and only if that
name still means the same file here. Each file's fingerprint is taken before it is read, so
that a later change on the disk (`pip install` under a running service) is seen: a base that
has read what is no longer there is not forked from again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from itertools import islice
from pathlib import Path

from procd import logs
from procd.spawn.fitness import inspected
from procd.spawn.shield import shielded
from procd.spawn.sources import Fingerprint, fingerprint
from procd.spawn.territory import FOREIGN_NAMES, Territory

_SUFFIXES = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)  # of a module's file


@dataclass(slots=True)
class Preloaded:
    """What was imported."""

    names: frozenset[str] = frozenset()  # in sys.modules now, and not before
    prints: dict[str, Fingerprint] = field(
        default_factory=dict
    )  # of their files, as they were read
    packages: frozenset[str] = frozenset()  # the first parts of those names
    folders: dict[str, int] = field(default_factory=dict)  # where pip installs → mtime, before
    culprit: str = ""  # one that no fork may follow; the rest was not imported then
    why: str = ""  # the innermost module and what it opened

    def will_read(self, spec: ModuleSpec) -> None:
        """Take a module's fingerprint before it is read."""
        if spec.has_location and spec.origin:
            self.prints |= fingerprint((spec.origin,), ())

    def changed(self) -> str | None:
        """Return a file that is not any more what was read, or a folder with another content.

        The latter: a module that was looked for in vain, or its version, may be there now.
        """
        now = fingerprint(self.prints, ())
        changed = [path for path, seen in self.prints.items() if now.get(path) != seen]
        if not changed:
            folders = installed()
            changed = [path for path, seen in self.folders.items() if folders.get(path) != seen]
        return next(iter(changed), None)


def installed() -> dict[str, int]:
    """Return the folders of sys.path that packages are installed in, and when that last was."""
    found = {}
    for place in sys.path:
        if os.path.basename(place) in FOREIGN_NAMES:
            with suppress(OSError):
                found[place] = os.stat(place).st_mtime_ns
    return found


def preload(
    modules: Mapping[str, str | None],
    chdir: Path,
    on_package: Callable[[str], object] = lambda package: None,
) -> Preloaded:
    """Import *modules* (name → the file it must come from), without a word of app code.

    None instead of a file means that a person has named the module. Stops at the first that
    leaves threads or sockets open, for this process is unfit then. What fails otherwise is
    logged and left out. *on_package* is told of each package before it is begun.
    """
    before = set(sys.modules)
    path = list(sys.path)
    territory = Territory(str(chdir))
    # `python -m procd` puts the folder it was started in first: that is often the app's.
    sys.path[:] = [place for place in path if not territory.owns(place or os.getcwd())]
    done = Preloaded(folders=installed())
    package = ""
    try:
        with shielded(), inspected("preload", done.will_read) as inspection:
            for name, origin in modules.items():
                if name not in sys.modules:
                    if name.partition(".")[0] != package:
                        package = name.partition(".")[0]
                        on_package(package)
                    _import(name, origin)
                if inspection.changes and (unfit := inspection.unfit()):
                    done.culprit = name
                    done.why = said(unfit)
                    break
    finally:
        sys.path[:] = path
        importlib.invalidate_caches()
    done.names = frozenset(sys.modules) - before
    done.packages = frozenset(name.partition(".")[0] for name in done.names)
    return done


def _import(name: str, origin: str | None) -> None:
    try:
        if origin is None or _origin_of(name) == origin:
            importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody else's module
        # One that the app was seen to use may need what the app does first.
        say = logs.log.error if origin is None else logs.log.debug
        say("%s", logs.line("preload failed", module=name, why=repr(error)))


def _origin_of(name: str) -> str | None:
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def said(unfit: Mapping[str, str]) -> str:
    """Return what Inspection.unfit() found as a person reads it."""
    return "; ".join(f"{module} opened {what}" for module, what in unfit.items())


def used(count: int, territory: Territory) -> dict[str, str]:
    """Return what was imported after the first *count* modules and is not the app's.

    name → its spec's origin, in the order in which the imports ended: the innermost first.
    Folders without code (namespace packages) and modules that are only another name of one are
    left out. The older modules are not even looked at: in a forked process each look copies a
    page.
    """
    found = {}
    for name in [*islice(reversed(sys.modules), max(0, len(sys.modules) - count))][::-1]:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or spec.name != name or not isinstance(spec.origin, str):
            continue
        if not (spec.has_location and territory.owns(os.path.dirname(spec.origin))):
            found[name] = spec.origin
    return found


def unhide(packages: frozenset[str], territory: Territory) -> None:
    """Forget preloaded *packages* whose name is a module of the app: the app's own comes first."""
    places = [place or os.getcwd() for place in sys.path if territory.owns(place or os.getcwd())]
    for top in {top for place in places for top in _modules_in(place) if top in packages}:
        for name in [n for n in sys.modules if n == top or n.startswith(f"{top}.")]:
            del sys.modules[name]


def _modules_in(folder: str) -> Iterator[str]:
    """Yield the names that can be imported from a folder; folders without code hide nothing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, dot, _ = entry.name.partition(".")
            if entry.name.endswith(_SUFFIXES) or (
                not dot and os.path.exists(f"{entry.path}/__init__.py")
            ):
                yield name
