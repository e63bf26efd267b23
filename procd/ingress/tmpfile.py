"""Files in which foreign programs leave what is too large for a message: Swoole's TMPFILE.

The name comes from whoever may send, and the file is read and deleted with this process's
rights, so nothing about it is believed:
- It lies in task_tmpdir itself: no other folder, no subfolder, no `..`, no symlink.
- It is a regular file without a second name, as large as the message says and allowed.
- It belongs to this process's user; or, with message_queue_group, to that group and may be read
  by it, in a folder that belongs to this user or root.
- Where others than this user may send, others than the group must not write into the folder: one
  of them could have put a file of this user's there.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from procd import logs
from procd.ipc.foreign.message import Reason, Refused
from procd.ipc.foreign.swoole import TmpFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# NONBLOCK: a fifo that comes in the file's place between two calls must not hold us.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held, and which file it was."""

    data: bytes
    name: str
    identity: tuple[int, int]


class TmpDir:
    """task_tmpdir. *group* and *is_shared*: message_queue_group, and whether others may send."""

    def __init__(self, path: Path, max_bytes: int, group: int | None, *, is_shared: bool) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._group = group
        self._is_shared = is_shared

    def read(self, file: TmpFile) -> Content:
        """Return all of a file; raises Refused, and the file is untouched then."""
        if file.data_bytes > self._max_bytes:
            raise Refused(
                Reason.TOO_BIG,
                f"a file of {file.data_bytes} bytes: task_max_bytes is {self._max_bytes}",
            )
        name = self._name(file)
        try:
            folder = os.open(self.path, _FOLDER)
            try:
                return self._read(folder, name, file.data_bytes)
            finally:
                os.close(folder)
        except OSError as error:
            raise _refused(name, os.strerror(error.errno or 0)) from None

    def _name(self, file: TmpFile) -> str:
        folder, slash, name = os.fsdecode(file.path).rpartition("/")
        mine = {str(self.path), os.path.realpath(self.path)}
        if name in ("", ".", "..") or (slash and os.path.normpath(folder or "/") not in mine):
            raise _refused(os.fsdecode(file.path), f"it is not in {self.path} (task_tmpdir)")
        return name

    def _read(self, folder: int, name: str, size: int) -> Content:
        self._check(name, os.stat(name, dir_fd=folder, follow_symlinks=False), folder, size)
        with open(os.open(name, _FILE, dir_fd=folder), "rb", buffering=0) as opened:
            found = os.fstat(opened.fileno())
            self._check(name, found, folder, size)  # it may be another one by now
            data = bytearray()
            while len(data) <= size and (more := opened.read(size + 1 - len(data))):
                data += more
        if len(data) != size:
            raise _refused(name, f"it has not the {size} bytes that its message says")
        return Content(bytes(data), name, (found.st_dev, found.st_ino))

    def _check(self, name: str, found: os.stat_result, folder: int, size: int) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise _refused(name, "it is no regular file")
        if found.st_nlink != 1:
            raise _refused(name, f"it has {found.st_nlink} names")
        if found.st_size != size:
            raise _refused(name, f"it has {found.st_size} bytes, and its message says {size}")
        around = os.fstat(folder)
        if self._is_shared and around.st_mode & stat.S_IWOTH:
            raise _refused(name, "everybody may write into task_tmpdir, and not we alone may send")
        if found.st_uid != os.geteuid() and not self._is_of_group(found, around):
            raise _refused(name, f"it belongs to uid {found.st_uid}")

    def _is_of_group(self, found: os.stat_result, around: os.stat_result) -> bool:
        is_theirs = found.st_gid == self._group and bool(found.st_mode & stat.S_IRGRP)
        return is_theirs and around.st_uid in (os.geteuid(), 0)

    def remove(self, content: Content) -> None:
        """Delete a file that was read, if it is still the same."""
        path = self.path / content.name
        try:
            found = os.stat(path, follow_symlinks=False)
            if (found.st_dev, found.st_ino) == content.identity:
                os.unlink(path)
        except OSError as error:
            logs.warning("payload file not deleted", file=path, why=error.strerror)


def _refused(name: str, why: str) -> Refused:
    return Refused(Reason.FILE, f"{name!a}: {why}")
