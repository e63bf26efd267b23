"""The arena lease: two masters' processes never write one arena.

A flock on state_dir/lease that every process of the service inherits. The kernel holds it
as long as one of them lives, so whoever gets it knows that the arena is nobody else's. The
processes of a master that was killed die with it at once; should one linger, it is ended
after LINGER_SECONDS, for it can do nothing useful any more.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from procd import logs
from procd.errors import AlreadyRunning, StartFailed
from procd.linux import process

LINGER_SECONDS = 2.0
STEP_SECONDS = 0.01


class Lease:
    """Hold it from acquire() to release()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.queue = (0, 0)  # key and id of the token queue that an earlier master left

    def acquire(self) -> None:
        """Raises AlreadyRunning if its master lives, StartFailed if its rest cannot be ended."""
        deadline = time.monotonic() + LINGER_SECONDS
        killed = False
        while not self._try():
            self._check_master()
            if time.monotonic() >= deadline:
                if killed:
                    raise StartFailed(
                        f"{self.path} is held by {self._names()}: processes of an earlier procd "
                        "that cannot be ended; wait for them, or restart the machine"
                    )
                killed = self._kill_holders()
                deadline = time.monotonic() + LINGER_SECONDS
            # Nobody tells when the last holder's death has closed its descriptors.
            select.select([], [], [], STEP_SECONDS)

    def _try(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StartFailed(f"cannot open {self.path}: {error.strerror}") from None
        if not self._lock(fd):
            os.close(fd)
            return False
        self.fd = fd
        self.queue = self._left_queue()
        try:
            self.note_queue(*self.queue)
        except OSError as error:
            self.release()
            raise StartFailed(f"cannot write {self.path}: {error.strerror}") from None
        return True

    def _lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last owner unlinks it: then this is no longer the file that others find.
            return os.stat(self.path).st_ino == os.fstat(fd).st_ino
        except OSError:
            return False

    def note_queue(self, key: int, number: int) -> None:
        """Keep who holds the lease, and which queue goes with it."""
        pid = os.getpid()
        text = f"{pid} {process.start_time(pid)} {key} {number}\n".encode()
        os.pwrite(self.fd, text, 0)
        os.ftruncate(self.fd, len(text))

    def _left_queue(self) -> tuple[int, int]:
        try:
            return noted_queue(self.path)
        except OSError:
            return 0, 0

    def _check_master(self) -> None:
        """A living master's processes are not ours to end."""
        try:
            pid, start, *_ = self.path.read_text(encoding="ascii").split()
            if process.is_alive(int(pid), int(start)):
                raise AlreadyRunning(
                    f"pid {pid} runs with this state_dir already ({self.path.parent}): stop it, or "
                    "give this service its own"
                )
        except (OSError, ValueError):
            pass

    def _holders(self) -> list[int]:
        with suppress(OSError):
            found = os.stat(self.path)
            mine = os.getpid()
            return [pid for pid in process.holders(found.st_dev, found.st_ino) if pid != mine]
        return []

    def _names(self) -> str:
        return ", ".join(f"pid {pid}" for pid in self._holders()) or "an unknown process"

    def _kill_holders(self) -> bool:
        for pid in self._holders():
            logs.warning("ending a process of an earlier master", pid=pid)
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return True

    def release(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@contextmanager
def borrowed(path: Path) -> Iterator[None]:
    """Keep every service from starting meanwhile, and leave what a killed master has noted there.

    Raises AlreadyRunning where one runs, StartFailed.
    """
    is_new = not path.exists()
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StartFailed(f"cannot open {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"a procd runs with this state_dir ({path.parent})") from None
        yield
        if is_new:
            with suppress(OSError):
                os.unlink(path)
    finally:
        os.close(fd)


def noted_queue(path: Path) -> tuple[int, int]:
    """Key and id of the token queue that goes with a lease; 0 and 0 if there is none.

    Raises OSError where the lease is not there, or not to be read by this user.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _, _, key, number = os.read(fd, 4096).decode("ascii").split()
        return int(key), int(number)
    except ValueError:
        return 0, 0
    finally:
        os.close(fd)
