"""Code objects on disk, keyed by the hash of their source: no source is compiled twice.

A .pyc is keyed by mtime in whole seconds and size, so two saves within a second share one. Here the
key is sha256 of the source, its path (it stands in the code's tracebacks) and the interpreter. An
entry is the sha256 of a marshal text, then that text: marshal itself crashes on garbage, so what
does not match is no entry. Only a folder of our own that nobody else may enter is used, for to load
code is to run it.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import logging
import marshal
import os
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import CodeType

_log = logging.getLogger("procd.loader")
_INTERPRETER = f"{sys.version} {importlib.util.MAGIC_NUMBER.hex()} {sys.flags.optimize}"
_HASH_BYTES = hashlib.sha256().digest_size
_SUFFIX = ".code"
_DAY = 86_400.0


class CodeCache:
    """A folder of compiled code; without *folder*, or with one that cannot be used, always empty.

    It never raises: a cache that fails costs time, and one logged line.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else _own_folder(folder)
        self._may_write = self._folder is not None

    def has(self, path: str, digest: str) -> bool:
        """Say whether there is an entry, sound or not."""
        return self._folder is not None and (self._folder / _entry(path, digest)).exists()

    def get(self, path: str, digest: str) -> CodeType | None:
        """Return the code of the source at *path* that hashes to *digest*, None if not here."""
        if self._folder is None:
            return None
        try:
            fd = os.open(
                self._folder / _entry(path, digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            with open(fd, "rb") as file:
                entry = file.read()
        except OSError:
            return None
        text = entry[_HASH_BYTES:]
        if hashlib.sha256(text).digest() != entry[:_HASH_BYTES]:
            return None  # truncated or overwritten; put() makes it anew
        code = marshal.loads(text)  # noqa: S302 - our own folder, and the hash fits
        return code if isinstance(code, CodeType) else None

    def put(self, path: str, digest: str, code: CodeType) -> None:
        """Keep *code*; whoever reads meanwhile sees the old entry or the new, never a part."""
        if self._folder is None or not self._may_write:
            return
        text = marshal.dumps(code)
        entry = self._folder / _entry(path, digest)
        new = f"{entry}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(hashlib.sha256(text).digest() + text)
            os.rename(new, entry)
        except OSError as error:
            with suppress(OSError):
                os.unlink(new)
            self._may_write = False
            _log.warning("code cache not written path=%s: %s", entry, error.strerror)

    def prune(self, keep: Iterable[tuple[str, str]], older_than: float = _DAY) -> int:
        """Delete entries older than *older_than* seconds, except those of *keep*; return how many.

        *keep* is (path, digest) of every source that a generation might be reborn from.
        """
        if self._folder is None:
            return 0
        kept = {_entry(path, digest) for path, digest in keep}
        before = time.time() - older_than  # wall clock: it is compared with mtimes
        count = 0
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    is_code = _SUFFIX in entry.name  # also what a killed put() left
                    if is_code and entry.name not in kept and entry.stat().st_mtime < before:
                        os.unlink(entry.path)
                        count += 1
        return count


def _entry(path: str, digest: str) -> str:
    key = f"{digest}\0{path}\0{_INTERPRETER}"
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest() + _SUFFIX


def _own_folder(folder: Path) -> Path | None:
    """Make *folder* if need be; return it if it is ours alone, else None with a word in the log."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, f"belongs to uid {found.st_uid}")
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        _log.warning("code cache not used path=%s: %s", folder, error.strerror)
        return None
    return folder
