"""What the files that count hold now: asked by the master, answered by the base process.

Reads the disk, which may be slow or hang (a network file system): never in the master. Knows
neither generations nor reloads. Nothing here raises for a file that is gone, unreadable or of a
strange kind.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence

from procd.spawn.globs import Globs

Fingerprint = tuple[int, int, int]  # mtime in ns, size in bytes, inode

MAX_READ_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
# Network file systems keep whole seconds, FAT two.
_SETTLED_NS = 2_000_000_000


def fingerprint(paths: Iterable[str], globs: Sequence[str]) -> dict[str, Fingerprint]:
    """Return what a look from outside tells of each regular file of *paths* and *globs*.

    A file that is absent (or is no file) is absent here. An equal fingerprint is no proof: see
    unsettled().
    """
    prints = {}
    for path in {*paths, *Globs(globs).look().files}:
        try:
            found = os.stat(path)
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            prints[path] = (found.st_mtime_ns, found.st_size, found.st_ino)
    return prints


def unsettled(prints: Mapping[str, Fingerprint], wall_ns: int) -> set[str]:
    """Return the paths whose fingerprint was taken too soon after their last change to be trusted.

    A second save of the same size within one tick of the file system's clock looks the same: these
    are to be hashed at the next look, whatever it shows. *wall_ns* is time.time_ns() at the look.
    """
    return {path for path, (mtime, _, _) in prints.items() if abs(wall_ns - mtime) < _SETTLED_NS}


def digest(paths: Iterable[str]) -> dict[str, str | None]:
    """Return the sha256 (hex) of what each file holds; None where it is no readable regular file.

    Of a file of more than MAX_READ_BYTES only so many are read; size and mtime stand for the rest.
    """
    return {path: _digest(path) for path in paths}


def _digest(path: str) -> str | None:
    try:
        # nonblocking: to open a fifo would wait for its writer
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return None
    try:
        found = os.fstat(fd)
        return _digest_of(fd, found) if stat.S_ISREG(found.st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _digest_of(fd: int, found: os.stat_result) -> str:
    seen = hashlib.sha256()
    left = MAX_READ_BYTES
    while left and (chunk := os.read(fd, min(left, _CHUNK_BYTES))):
        seen.update(chunk)
        left -= len(chunk)
    if not left:
        seen.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    return seen.hexdigest()
