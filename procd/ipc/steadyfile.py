"""A file of one size, read and written in place, that somebody may cut short meanwhile.

Who maps such a file is killed (SIGBUS); who reads it gets fewer bytes than there should be, at
any place of his code. So here it reads as zeros from then on and takes nothing more, and `lost`
says why: whoever has it looks at that once in a while instead of at every call.
"""

from __future__ import annotations

import os


class SteadyFile:
    """*size* in bytes; *fd* stays its owner's."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.lost = ""  # why it cannot be used any more

    def read(self, count: int, at: int) -> bytes:
        if not self.lost:
            try:
                data = os.pread(self.fd, count, at)
            except OSError as error:  # the disk
                self.lost = f"it cannot be read: {error.strerror}"
                return bytes(count)
            if len(data) == count:
                return data
            self.check()
        return bytes(count)

    def write(self, data: bytes, at: int) -> None:
        """Raises OSError."""
        if not self.lost:
            os.pwrite(self.fd, data, at)

    def check(self) -> None:
        """Look whether it is whole."""
        found = os.fstat(self.fd).st_size
        if found < self.size and not self.lost:
            self.lost = f"somebody has cut it short: {found} bytes instead of {self.size}"
