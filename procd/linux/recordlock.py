"""POSIX record locks on one byte of a file: whoever holds one is alive.

The kernel's rules, fcntl(2) "Advisory record locking":
- A lock belongs to the process, not to the fd: a fork inherits none, death of any kind frees
  all, and **closing any fd of that file in the process drops all its locks on it**. So such a
  file is opened once in a process and never closed or opened again.
- The same process always gets its own lock again: this guards processes from one another,
  never threads or coroutines of one.
- Not on NFS.
"""

from __future__ import annotations

import errno
import os
import struct
from fcntl import F_GETLK, F_RDLCK, F_UNLCK, LOCK_EX, LOCK_NB, LOCK_UN, fcntl, lockf

# struct flock: l_type, l_whence, l_start, l_len, l_pid, padded to its C size.
_FLOCK = struct.Struct("@hhqqi0q")
_TRY = LOCK_EX | LOCK_NB


def try_lock(fd: int, offset: int) -> bool:
    """Take the exclusive lock on byte *offset*; False if another process holds it.

    *fd* must be open for writing. Raises OSError (ENOLCK) where the file system has no locks.
    """
    # lockf(3) is F_SETLK with the struct filled in C: 1.0 us a call, packed here 1.35.
    try:
        lockf(fd, _TRY, 1, offset)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):  # POSIX allows either
            return False
        raise
    return True


def unlock(fd: int, offset: int) -> None:
    """Give byte *offset* back; nothing happens if this process does not hold it."""
    lockf(fd, LOCK_UN, 1, offset)


def holder(fd: int, offset: int) -> int:
    """The pid of the other process that holds byte *offset*; 0 = nobody else.

    One's own lock is not seen, and a holder in another pid namespace shows as 0 as well: ask
    from a process that never takes these locks and lives beside those that do.
    """
    # Asked as a read lock: an exclusive one of another process is in its way all the same.
    answer = fcntl(fd, F_GETLK, _FLOCK.pack(F_RDLCK, os.SEEK_SET, offset, 1, 0))
    kind, _, _, _, pid = _FLOCK.unpack(answer)
    return 0 if kind == F_UNLCK else int(pid)
