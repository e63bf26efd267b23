"""Where a running service can be found, by its config's path: one small file a service.

A command finds the master by it however broken the config is by now. The file lies
  - in /run/procd, for a master that is root;
  - else in $XDG_RUNTIME_DIR/procd, where a login session has set that;
  - else, and where those cannot be written, in /tmp/procd-UID (mode 0700).
The name is a hash of the config's absolute path, symbolic links in it kept: the service is what
`-c` says, and a release link that moves does not change that.

Rules:
- A record is a hint: the pid counts only with its start time, and the master's own lock decides.
- Only what root or this user wrote is believed; a folder in /tmp that others could have made or
  can write is not looked into.
- A file that cannot be read or makes no sense is no record: never an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from procd.errors import ProcdError
from procd.linux import process

_SYSTEM = Path("/run/procd")
_RECORD_BYTES = 65536  # paths have 4 KiB at most: more is no record
_PID_MAX = 2**22  # proc(5), pid_max


@dataclass(frozen=True, slots=True)
class Record:
    """What a master has left about itself."""

    config_path: Path
    pid: int
    start_time: int  # of that pid, in clock ticks since boot
    run_dir: Path
    pid_file: Path | None
    alive: bool  # as of the reading: that very process runs
    state_dir: Path | None = None
    uid: int = -1  # of who wrote it


def write(
    config_path: Path,
    pid: int,
    start_time: int | None,
    run_dir: Path,
    pid_file: Path | None,
    state_dir: Path | None = None,
) -> None:
    """Leave the record of this service, in place of an older one, seen whole or not at all.

    Without *start_time* (no /proc) nothing is written, for nobody would believe it. Raises
    ProcdError if no folder can take it.
    """
    if start_time is None:
        return None
    content = json.dumps(
        {
            "config_path": _absolute(config_path),
            "pid": pid,
            "start_time": start_time,
            "run_dir": _absolute(run_dir),
            "pid_file": None if pid_file is None else _absolute(pid_file),
            "state_dir": None if state_dir is None else _absolute(state_dir),
        }
    )
    faults = []
    for folder in _own_folders():
        try:
            _make(folder)
            return _replace(folder / _name(config_path), content)
        except OSError as error:
            faults.append(f"{folder}: {error.strerror or error}")
    raise ProcdError(f"no place for the record of {config_path}: {'; '.join(faults)}")


def read(config_path: Path) -> Record | None:
    """The record of this service, of a living master if there is one; None if there is none."""
    records = list(_found(config_path))
    alive = (record for record in records if record.alive)
    return next(alive, records[0] if records else None)


def living() -> list[Record]:
    """Every service that runs and that this user may know of: his own and root's, root: all."""
    found = {(one.pid, one.config_path): one for _, one in _all() if one.alive}
    return list(found.values())


def dead() -> list[tuple[Path, Record]]:
    """Every record of a service that does not run any more, where it lies; as far as living()."""
    return [(path, found) for path, found in _all() if not found.alive]


def remove(config_path: Path, pid: int) -> None:
    """Remove the record that *pid* left; one of another master stays."""
    for folder in _own_folders():
        path = folder / _name(config_path)
        record = _parsed(path, config_path)
        if record is not None and record.pid == pid:
            with contextlib.suppress(OSError):
                os.unlink(path)


def remove_dead(path: Path, found: Record) -> None:
    """Remove a record that dead() told of, unless a master has come to life there since."""
    if _parsed(path) == found:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _own_folders() -> Iterator[Path]:
    """Where this user's masters leave records, the best place first."""
    if os.geteuid() == 0:
        yield _SYSTEM
    elif os.path.isabs(session := os.environ.get("XDG_RUNTIME_DIR", "")):
        yield Path(session) / "procd"
    yield Path(f"/tmp/procd-{os.geteuid()}")  # noqa: S108 - made 0700, its owner checked


def _found(config_path: Path) -> Iterator[Record]:
    folders = list(_own_folders())
    if _SYSTEM not in folders:
        folders.append(_SYSTEM)  # root's services can at least be told to be there
    for folder in folders:
        if _is_trusted(folder) and (record := _parsed(folder / _name(config_path), config_path)):
            yield record


def _all() -> Iterator[tuple[Path, Record]]:
    folders = {*_own_folders(), _SYSTEM}
    if os.geteuid() == 0:
        folders |= {*Path("/run/user").glob("*/procd"), *Path("/tmp").glob("procd-*")}  # noqa: S108 - as above
    for folder in sorted(folders):
        if _is_trusted(folder, anybodys=os.geteuid() == 0):
            for path in sorted(folder.glob("*.json")):
                if (record := _parsed(path)) is not None:
                    yield path, record


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # keeps symbolic links, which Path.resolve() does not


def _name(config_path: Path) -> str:
    return hashlib.sha256(os.fsencode(_absolute(config_path))).hexdigest()[:32] + ".json"


def _make(folder: Path) -> None:
    """Make *folder*, or prove that nobody else can write into the one that is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o755 if folder == _SYSTEM else 0o700)
    if not _is_trusted(folder):
        raise PermissionError(0, "it is not this user's own folder: remove it")


def _is_trusted(folder: Path, *, anybodys: bool = False) -> bool:
    try:
        found = os.stat(folder, follow_symlinks=False)
    except OSError:
        return False
    is_ours = anybodys or found.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(found.st_mode) and is_ours and not found.st_mode & 0o022


def _replace(path: Path, content: str) -> None:
    new = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o644), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(content)
    os.rename(new, path)


def _parsed(path: Path, config_path: Path | None = None) -> Record | None:
    """Return what stands in *path*, or None unless all of it is as write() leaves it.

    Without *config_path*: of whatever service it is.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with open(os.open(path, flags), "rb") as file:
            found = json.loads(file.read(_RECORD_BYTES))
            uid = os.fstat(file.fileno()).st_uid
    except (OSError, ValueError, RecursionError):
        return None
    match found:
        case {
            "config_path": str(config),
            "pid": int(pid),
            "start_time": int(start_time),
            "run_dir": str(run_dir),
            "pid_file": str() | None as pid_file,
        } if 0 < pid <= _PID_MAX and config == _absolute(config_path or Path(config)):
            if _name(Path(config)) != path.name:
                return None
            state_dir = found.get("state_dir")
            return Record(
                config_path=Path(config),
                pid=pid,
                start_time=start_time,
                run_dir=Path(run_dir),
                pid_file=None if pid_file is None else Path(pid_file),
                alive=process.is_alive(pid, start_time),
                state_dir=Path(state_dir) if isinstance(state_dir, str) else None,
                uid=uid,
            )
    return None
