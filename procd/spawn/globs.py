"""The globs of watch_extra: which files count, and in which folders such files can lie.

They mean what glob.glob(recursive=True) finds: `*` and `?` stay within one folder, `**` is any
number of folders, and a name that begins with a dot is only found by a pattern that does. Knows
nothing of inotify or of hashes. Every path is absolute.

The walk is our own: glob follows links, and two of them that point at the folder they lie in make
it walk 2^40 folders.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

# A tree where links cross can be walked in more ways than anybody waits for.
MOST_PATHS = 10_000

_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Found:
    """What the globs match now."""

    folders: list[str]  # that can hold what counts, and where each glob starts, be it there or not
    files: list[str]  # regular ones that count


class Globs:
    """A set of globs, asked about paths or about the disk."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._parts = tuple(_parts(os.path.normpath(pattern)) for pattern in patterns)

    def matches(self, path: str) -> bool:
        """Say whether *path* counts, by its name alone."""
        parts = _parts(path) if self._parts else ()
        return any(_matches(parts, pattern) for pattern in self._parts)

    def leads(self, folder: str) -> bool:
        """Say whether a path that counts could lie somewhere below *folder*."""
        parts = _parts(folder) if self._parts else ()
        return any(_leads(parts, pattern) for pattern in self._parts)

    def look(self, most: int = MOST_PATHS) -> Found:
        """Return what is on the disk, after looking at *most* folders or finding so many files."""
        folders: dict[str, None] = {}
        files: dict[str, None] = {}
        todo: deque[tuple[str, frozenset[_Inode]]] = deque()
        for pattern in self._parts:
            plain = [not glob.has_magic(part) for part in pattern]
            start = _path(pattern[: (plain.index(False) if False in plain else -1)])
            folders[start] = None
            if all(plain):
                files |= {path: None for path in (_path(pattern),) if _is_file(path)}
            else:
                todo.append((start, frozenset()))
        listed = set()
        while todo and len(folders) < most and len(files) < most:
            folder, above = todo.popleft()
            inode = _inode(folder)
            if folder in listed or inode is None or inode in above:
                continue  # the last: a link to a folder that it lies in
            listed.add(folder)
            folders[folder] = None
            for path, is_folder in _listing(folder):
                if is_folder and self.leads(path):
                    todo.append((path, above | {inode}))
                elif not is_folder and self.matches(path) and _is_file(path):
                    files[path] = None
        return Found(list(folders), list(files))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.split("/")[1:])


def _path(parts: tuple[str, ...]) -> str:
    return "/" + "/".join(parts)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (
            bool(parts) and not parts[0].startswith(".") and _matches(parts[1:], pattern)
        )
    return bool(parts) and _fits(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _leads(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not parts or not pattern:
        return bool(pattern)
    if pattern[0] == "**":
        return _leads(parts, pattern[1:]) or (
            not parts[0].startswith(".") and _leads(parts[1:], pattern)
        )
    return _fits(parts[0], pattern[0]) and _leads(parts[1:], pattern[1:])


def _fits(name: str, pattern: str) -> bool:
    is_hidden = name.startswith(".") and not pattern.startswith(".")
    return not is_hidden and fnmatchcase(name, pattern)


def _listing(folder: str) -> list[tuple[str, bool]]:
    """Return (path, is a folder) of what lies in *folder*, links followed."""
    try:
        with os.scandir(folder) as entries:
            return [(entry.path, _is_folder(entry)) for entry in entries]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _inode(path: str) -> _Inode | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
