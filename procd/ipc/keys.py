"""Keys of message queues: as libc makes them of a file, and as a person writes them."""

from __future__ import annotations

import os


def ftok(path: str | os.PathLike[str], proj: int | str) -> int:
    """Make the key that libc makes of a file and a project letter (or number).

    As ftok(3). Both sides must name the same file, and that is the trouble with it:
    - The key is made of inode and device, not of the name. Editors, git and deployments
      replace files: same path, new inode, another key, and the two sides no longer meet. Use a
      file that nobody ever touches, or better a fixed number as the key.
    - 16 bits of the inode and 8 of the device are in it: two files can give the same key.
    - It may be negative, as key_t is signed; `ipcs` shows the same 32 bits unsigned.
    - PHP's returns -1 where it fails, and -1 is a valid key: everybody who fails meets there.
      This one raises OSError for a missing file, and ValueError for a *proj* whose low 8 bits
      are 0 (POSIX leaves that undefined).
    """
    low = (ord(proj) if isinstance(proj, str) else proj) & 0xFF
    if not low:
        raise ValueError(f"{proj!r} is no project id: its low 8 bits are 0")
    stat = os.stat(path)
    key = low << 24 | (stat.st_dev & 0xFF) << 16 | stat.st_ino & 0xFFFF
    return key - 2**32 if key >= 2**31 else key


def parse_key(text: str) -> int:
    """Return the key that *text* names: 1963150487, 0x75034c97, -1, or FILE:LETTER for ftok().

    Raises ValueError, which says what is wrong with it.
    """
    path, colon, proj = text.rpartition(":")
    if colon and path:
        if len(proj) != 1:
            raise ValueError(f"{text}: one letter goes behind the colon, as in {path}:a")
        try:
            return ftok(path, proj)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}: ftok needs the file") from None
    try:
        key = int(text, 0)
    except ValueError:
        raise ValueError(
            f"{text} is no key: write a number, 0x... as `ipcs -q` does, or FILE:LETTER"
        ) from None
    if not -(2**31) <= key < 2**32:
        raise ValueError(f"{text} is no key: it has 32 bits")
    if not key:
        raise ValueError("key 0 names no queue: those are private, known by their id (ipcs, ipcrm)")
    return key - 2**32 if key >= 2**31 else key
