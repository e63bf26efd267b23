"""The spool: a folder of files for what is too large for a slot, one for each payload and result.

The arena alone tells which files there should be. Rules of this room:
- A file is named after its task's token, which is never used twice. It is written whole before
  the slot's word tells of it, and removed before that word says FREE. So a death in between
  leaves a file that no slot tells of, for sweep() to find, and never a slot without its file.
- What lies under a name that is to be written was left by such a death, and nobody reads it: it
  is removed and made anew, never written over.
- The folder is reached by the descriptor that the master opened: the way to it may be closed to
  the user of the processes.
- The master makes the folder, reads names and unlinks. It never reads or writes a file: they
  are large, and others wait for it.
- Nothing is synced: the spool outlives every process and, as the arena, no power cut.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

from procd.errors import MessageTooBig, StartFailed, TaskRejected
from procd.ipc.layout import Damaged

TASK, RESULT = "task", "result"
_OURS = re.compile(r"([0-9a-f]{16})\.(?:task|result)")
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_TOO_BIG = {
    TASK: "leave the data in a file and send its path",
    RESULT: "leave it in a file and return its path",
}
_CURES = {
    errno.ENOSPC: "free some space there, or move state_dir",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EACCES: "give the folder back to the user of the service",
    errno.EPERM: "give the folder back to the user of the service",
    errno.ENOENT: "somebody removed the folder: restart the service",
    errno.EMFILE: "close descriptors, or raise their limit (ulimit -n)",
}


class Spool:
    """The folder, made at *path* if it is not there. Raises StartFailed where that cannot be.

    A process may store up to *max_bytes* at once; reading knows no limit, for it may have been
    a higher one when the task was accepted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.max_bytes = 0
        try:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            os.fchmod(self.fd, 0o700)
        except OSError as error:
            raise StartFailed(f"cannot make the folder {path}: {error.strerror}") from None

    def give_to(self, uid: int, gid: int) -> None:
        """Make it the processes' own, kept tasks of another user's time included."""
        old = os.fstat(self.fd).st_uid
        os.fchown(self.fd, uid, gid)
        for name in os.listdir(self.fd) if old != uid else ():
            with suppress(OSError), self._open(name) as file:
                found = os.fstat(file.fileno())
                # A second name of somebody else's file must not become theirs.
                if stat.S_ISREG(found.st_mode) and found.st_uid == old and found.st_nlink == 1:
                    os.fchown(file.fileno(), uid, gid)

    def check(self, size: int, kind: str) -> None:
        """Raises MessageTooBig for more bytes than may be stored."""
        if size > self.max_bytes:
            raise MessageTooBig(
                f"a {kind} of {size} bytes; {self.max_bytes} are allowed (task_max_bytes): "
                + _TOO_BIG[kind]
            )

    def write(self, token: int, kind: str, data: bytes) -> None:
        """Store a payload or result whole.

        Raises MessageTooBig, and TaskRejected where the disk has no room or refuses it;
        nothing of it is left then.
        """
        self.check(len(data), kind)
        name = _name(token, kind)
        try:
            fd = self._create(name)
            try:
                _write_whole(fd, data)
            finally:
                os.close(fd)  # some file systems tell only now that they are full
        except OSError as error:
            self.remove(token, kind)
            cure = _CURES.get(error.errno or 0, "look at its disk")
            raise TaskRejected(
                f"a {kind} of {len(data)} bytes cannot be stored in {self.path / name}: "
                f"{error.strerror}: {cure}"
            ) from None

    def _create(self, name: str) -> int:
        with suppress(FileExistsError):
            return os.open(name, _WRITE, 0o600, dir_fd=self.fd)
        os.unlink(name, dir_fd=self.fd)
        return os.open(name, _WRITE, 0o600, dir_fd=self.fd)

    def read(self, token: int, kind: str, size: int) -> bytes:
        """Return what was stored; raises Damaged unless it is there, *size* bytes long."""
        name = _name(token, kind)
        try:
            with self._open(name) as file:
                found = os.fstat(file.fileno()).st_size
                data = file.readall() if found == size else b""
        except OSError as error:
            raise Damaged(f"its file {self.path / name}: {error.strerror}") from None
        if len(data) != size:
            raise Damaged(f"its file {self.path / name} has {found} bytes instead of {size}")
        return data

    def _open(self, name: str) -> FileIO:
        return FileIO(name, opener=lambda name, _: os.open(name, _READ, dir_fd=self.fd))

    def remove(self, token: int, *kinds: str) -> None:
        """Remove a task's files, by default both, if they are there."""
        for kind in kinds or (TASK, RESULT):
            with suppress(OSError):
                os.unlink(_name(token, kind), dir_fd=self.fd)

    def sweep(self, is_needed: Callable[[int], bool]) -> list[str]:
        """Remove the files of all tokens that are not needed.

        Returns the names of whatever else is in the folder; that is not ours and stays.
        """
        strange = []
        with os.scandir(self.fd) as found:
            entries = list(found)
        for entry in entries:
            ours = _OURS.fullmatch(entry.name)
            if ours is None or not entry.is_file(follow_symlinks=False):
                strange.append(entry.name)
            elif not is_needed(int(ours[1], 16)):
                with suppress(OSError):
                    os.unlink(entry.name, dir_fd=self.fd)
        return strange

    def close(self) -> None:
        os.close(self.fd)


def _name(token: int, kind: str) -> str:
    return f"{token:016x}.{kind}"


def _write_whole(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
