"""What a name in a watched folder means: which counting files are behind it.

inotify tells (folder, name). A counting path is reached through folders and symbolic links, each
of which may be replaced: a release is switched by one link, a checkout moves a folder. So this
walks each path as the kernel does and notes every turn. Asks the disk for links and folders, knows
no inotify.

Folders are keyed by their real path: under two names one would have one watch only.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

_MOST_ENTRIES = 10_000
_MAX_LINKS = 40  # as the kernel (man 7 path_resolution)


@dataclass(slots=True)
class Folder:
    """One folder to watch."""

    path: str  # without links
    files: dict[str, set[str]] = field(
        default_factory=dict
    )  # name → the counting paths that end here
    turns: set[str] = field(
        default_factory=set
    )  # folders and links on the way: all paths may differ
    aliases: set[str] = field(
        default_factory=set
    )  # its names for Python and globs; none: turns only

    @property
    def has_counting(self) -> bool:
        """Say whether a file in it counts, or may come to."""
        return bool(self.files or self.aliases)

    def add(self, other: Folder) -> None:
        """Take over what *other* knows: a bind mount shows one folder at two real paths."""
        for name, paths in other.files.items():
            self.files.setdefault(name, set()).update(paths)
        self.turns |= other.turns
        self.aliases |= other.aliases


@dataclass(frozen=True, slots=True)
class Plan:
    """What to watch; true as long as the links point where they did."""

    folders: dict[str, Folder]
    links: dict[str, str]  # path of each link on the way → its text

    def is_current(self) -> bool:
        """Say whether no link has been switched since."""
        return all(read_link(path) == text for path, text in self.links.items())


def plan(files: Iterable[str], folders: Iterable[str], roots: Sequence[str]) -> Plan:
    """Return the folders to watch, so that no change to *files* or in *folders* goes unseen.

    *roots*: folders between a path and its root are watched too. All paths are absolute.
    """
    walk = _Walk(roots)
    for path in folders:
        walk.folder(path)
    for path in files:
        walk.file(path)
    return Plan(walk.folders, walk.links)


def read_link(path: str) -> str | None:
    """Return the text of the link at *path*, None where there is none."""
    try:
        return os.readlink(path)
    except (OSError, ValueError):
        return None


def is_barred(path: str) -> bool:
    """Say whether there is such a folder, but not for us."""
    return os.path.isdir(path) and not os.access(path, os.R_OK, effective_ids=True)


def nearest(path: str) -> str:
    """Return the nearest existing folder above *path*."""
    while path != "/":
        path = os.path.dirname(path)
        if os.path.isdir(path):
            break
    return path


def listing(path: str) -> list[tuple[str, bool]]:
    """Return (name, is a folder) of what lies in the folder; links are no folders here."""
    try:
        with os.scandir(path) as entries:
            found = islice(entries, _MOST_ENTRIES)
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    except OSError:
        return []


def hides(path: str, sources: Collection[str]) -> bool:
    """Say whether *path* makes a package that Python takes before the module of its name."""
    folder, name = os.path.split(path)
    return name == "__init__.py" and f"{folder}.py" in sources


def is_below(path: str, folder: str) -> bool:
    """Say whether *path* is *folder* or lies below it, by name."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


class _Walk:
    def __init__(self, roots: Sequence[str]) -> None:
        self.folders: dict[str, Folder] = {}
        self.links: dict[str, str] = {}
        self._roots = roots
        self._links: dict[str, str | None] = {}
        self._real: dict[str, str] = {}  # by the folder's name as given

    def file(self, path: str) -> None:
        folder, name = os.path.split(path)
        real = self.folder(folder)
        if read_link(f"{real.rstrip('/')}/{name}") is not None:
            real, name = os.path.split(self._resolve(f"{real}/{name}"))
        self._settle(real).files.setdefault(name, set()).add(path)

    def folder(self, named: str) -> str:
        """Note the folder *named* and those between it and its root; return its real path."""
        if (known := self._real.get(named)) is not None:
            return known
        real = self._real[named] = self._resolve(named)
        self._settle(real).aliases.add(named)
        above = os.path.dirname(named)
        while any(is_below(above, root) for root in self._roots) and above not in self._real:
            step = self._real[above] = self._resolve(above)
            self._settle(step).aliases.add(above)
            above = os.path.dirname(above)
        return real

    def _settle(self, real: str) -> Folder:
        """Note that the folder at *real* matters, and so does its going and coming."""
        if real in self.folders and self.folders[real].aliases:
            return self.folders[real]
        path = real
        while path != "/":
            above, name = os.path.split(path)
            self._at(above).turns.add(name)
            if os.path.isdir(above):
                break
            path = above  # what is not there is awaited where it would come
        return self._at(real)

    def _resolve(self, path: str) -> str:
        """Return *path* with its links followed as far as they go, and note each of them."""
        done = "/"
        todo = path.split("/")[::-1]
        hops = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                done = os.path.dirname(done)
                continue
            child = f"{done.rstrip('/')}/{name}"
            text = self._link(child)
            if text is None or hops == _MAX_LINKS:
                done = child
                continue
            hops += 1
            self.links[child] = text
            self._at(done).turns.add(name)
            done = "/" if text.startswith("/") else done
            todo += text.split("/")[::-1]
        return done

    def _link(self, path: str) -> str | None:
        if path not in self._links:
            self._links[path] = read_link(path)
        return self._links[path]

    def _at(self, real: str) -> Folder:
        return self.folders.setdefault(real, Folder(real))
