"""The master's pid file, which is a lock, and the workers' pid file, which is a list.

Rules:
- The flock says whether a master lives; the number in the file only says which. A pid alone is
  never believed: it may be stale, foreign, or used again by a stranger (gunicorn #3383).
- The lock belongs to the open file, so every process forked from the master holds it too until
  it closes `fd`: a child does that first, or the lock outlives the master.
- Paths may lie in folders that others can write: no symbolic link is followed, and nothing but
  a regular file is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from procd.errors import AlreadyRunning, ProcdError
from procd.linux import process

_PID_BYTES = 32  # what is read of a file: more is no pid
# A command that asks whether a master lives holds the lock for some microseconds.
_ASKED_FOR, _ASK_AGAIN = 0.1, 0.002
_WHY = {
    errno.ENOENT: "the folder {folder} does not exist: create it",
    errno.ENOTDIR: "{folder} is no folder",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENXIO: "it is no regular file: remove it",
    errno.ELOOP: "it is a symbolic link, and procd writes through none: remove it",
    errno.EACCES: "uid {uid} may not write it in {folder}: change its owner",
    errno.EPERM: "uid {uid} may not write it in {folder}: change its owner",
    errno.EROFS: "{folder} is on a read-only file system: choose another place",
    errno.ENOSPC: "no space is left in {folder}: make room",
    errno.EDQUOT: "the quota of uid {uid} in {folder} is used up: make room",
}


class MasterPidFile:
    """The file that the master holds locked for life; with *path* None nothing happens at all."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.fd: int | None = None  # for a forked child to close

    def acquire(self) -> None:
        """Lock the file and empty it, whatever stood in it.

        Raises AlreadyRunning if another process holds the lock, ProcdError if the file cannot
        be made or written.
        """
        if self.path is None:
            return
        try:
            self.fd = _locked(self.path)
            os.ftruncate(self.fd, 0)
        except OSError as error:
            self.release()
            raise _unusable("master pid file", self.path, error) from error

    def write(self, pid: int) -> None:
        """Put *pid* into the file. Raises ProcdError, as of a full disk."""
        if self.path is None or self.fd is None:
            return
        text = f"{pid}\n".encode()
        try:
            os.pwrite(self.fd, text, 0)
            os.ftruncate(self.fd, len(text))
        except OSError as error:
            raise _unusable("master pid file", self.path, error) from error

    def release(self) -> None:
        """Empty the file, remove it if the path still leads to it, and free the lock."""
        if self.path is None or self.fd is None:
            return
        with contextlib.suppress(OSError):  # a stop goes on whatever became of the folder
            os.ftruncate(self.fd, 0)
            # Removed while locked: who opened it before finds it is not the path's file any more.
            if _is_at(self.path, self.fd):
                os.unlink(self.path)
        os.close(self.fd)
        self.fd = None


def running_pid(path: Path) -> int | None:
    """The pid of the master that holds *path*, or None: no file, no lock, or no way to tell."""
    try:
        fd = _open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        # Only a living pid is worth asking for the lock, because asking takes it for a moment.
        pid = _pid_in(fd)
        if pid is None or not process.is_alive(pid, None):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return pid
        return None
    except OSError:
        return None
    finally:
        os.close(fd)


def write_worker_pids(path: Path | None, pids: Sequence[int]) -> None:
    """Replace the list at *path* by *pids*, one a line: a reader sees the old or the new one.

    Raises ProcdError; the old list stands then.
    """
    if path is None:
        return
    # One name for good, so that masters killed in here leave one file and not many.
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        with open(os.open(new, flags, 0o644), "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o644)  # for monitors, whatever the umask
            file.writelines(f"{pid}\n" for pid in pids)
        os.rename(new, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise _unusable("worker pid file", path, error) from error


def remove(path: Path | None) -> None:
    """Remove a worker pid file; nothing happens if it cannot be."""
    if path is not None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _locked(path: Path) -> int:
    """Return an fd of the file that *path* leads to, exclusively locked."""
    give_up = time.monotonic() + _ASKED_FOR
    while True:
        fd = _open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, fd):
                return fd
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise _taken(path, fd) from None
        except BaseException:
            os.close(fd)
            raise
        # Locked, but removed meanwhile by the master that let go; or held by one who asks.
        os.close(fd)
        time.sleep(_ASK_AGAIN)


def _taken(path: Path, fd: int) -> AlreadyRunning:
    """Name who holds the lock; closes *fd*."""
    pid = _pid_in(fd)
    if pid is None or not process.is_alive(pid, None):
        # A master that has not written its pid yet, or somebody else's lock.
        found = os.fstat(fd)
        pids = [pid for pid in process.holders(found.st_dev, found.st_ino) if pid != os.getpid()]
        pid = pids[0] if pids else None
    os.close(fd)
    who = f"process {pid}" if pid else "another user's process"
    return AlreadyRunning(
        f"already running: {who} holds {path}; stop it first, or give this service a"
        " master_pid_file of its own"
    )


def _open(path: Path, flags: int) -> int:
    # O_NONBLOCK: what stands there may be a fifo.
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
    return fd


def _is_at(path: Path, fd: int) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, _PID_BYTES, 0).strip()
    return int(text) if text.isdigit() and len(text) < _PID_BYTES and int(text) > 0 else None


def _unusable(what: str, path: Path, error: OSError) -> ProcdError:
    why = _WHY.get(error.errno or 0) or error.strerror or str(error)
    return ProcdError(f"{what} {path}: " + why.format(folder=path.parent, uid=os.geteuid()))
