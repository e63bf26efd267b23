"""The folders of a config as their users find them, and what dead services have left in them.

Whether a user may read or write is asked of the kernel, as that user, in a throw-away process:
no reading of mode bits knows of ACLs, mounts and capabilities.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from procd.config.schema import Config
from procd.doctor.facts import Left, Place, Who
from procd.errors import ProcdError
from procd.linux import mounts, process
from procd.linux.sysv import QueueError
from procd.service import record, remains
from procd.spawn import child

_READ, _WRITE, _PASS = os.R_OK | os.X_OK, os.W_OK | os.X_OK, os.X_OK
_WORDS = {_READ: "read", _WRITE: "write", _PASS: "enter"}


def look(config: Config, master: Who, workers: Who | None) -> tuple[Place, ...]:
    """Return the folders of *config* with what is wrong with them."""
    types = mounts.mounted_types()
    written = {"run_dir": config.run_dir, "state_dir": config.state_dir}
    for key in ("log_file", "master_pid_file", "worker_pid_file"):
        path = getattr(config, key)
        if path is not None and path.parent not in written.values():
            written[key] = path.parent
    problems = _problems(master, {key: (str(path), _WRITE) for key, path in written.items()})
    if workers is not None:
        by_workers = {"chdir": (str(config.chdir), _READ)}
        if config.run_dir.is_dir():
            by_workers["run_dir"] = (str(config.run_dir), _PASS)
        problems |= _problems(workers, by_workers)
    places = {"chdir": config.chdir, **written}
    return tuple(_place(key, path, types, problems.get(key)) for key, path in places.items())


def _place(key: str, path: Path, types: dict[int, str], problem: str | None) -> Place:
    there = _nearest(str(path))
    try:
        device, space = os.stat(there).st_dev, os.statvfs(there)
    except OSError as error:
        return Place(key, there, "", 0, problem or f"{there}: {error.strerror}")
    free = space.f_bavail * space.f_frsize
    return Place(key, str(path), types.get(device, ""), free, problem)


def _nearest(path: str) -> str:
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _problems(who: Who, wanted: dict[str, tuple[str, int]]) -> dict[str, str]:
    """Return what *who* may not do, by key."""
    if who.uid == os.geteuid():
        return _denied(who, wanted)
    if os.geteuid() != 0:  # only root can find out
        return {}
    return _as_user(who, lambda: _denied(who, wanted))


def _denied(who: Who, wanted: dict[str, tuple[str, int]]) -> dict[str, str]:
    found = {}
    for key, (path, mode) in wanted.items():
        there = _nearest(path)
        if not os.access(there, mode, effective_ids=os.access in os.supports_effective_ids):
            make = "" if there == path else f" (to make {path})"
            found[key] = f"{who.name} may not {_WORDS[mode]} {there}{make}"
    return found


def _as_user(who: Who, ask: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Return what *ask* returns in a process of that user."""
    reader, writer = os.pipe()

    def body() -> int:
        process.drop_privileges(str(who.uid), None)
        with open(writer, "w", encoding="utf-8") as answer:
            json.dump(ask(), answer)
        return 0

    pid = child.fork(body, {writer})
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    with suppress(ValueError):
        found: dict[str, str] = json.loads(text)
        return found
    return {}


# ---------------------------------------------------------------- what is left


def left(config: Config | None, *, runs: bool) -> tuple[Left, ...]:
    """Return what services that do not run any more have left, as far as this user may know."""
    dead = record.dead()
    found = [Left("record", str(where), str(one.config_path)) for where, one in dead]
    states = {one.state_dir: str(one.config_path) for _, one in dead if one.state_dir is not None}
    if config is not None:
        states[config.state_dir] = str(config.path)
        found += _in_state(config.state_dir, runs=runs)
    with suppress(QueueError):
        for state_dir, config_path in states.items():
            found += _queue(state_dir, config_path)
    return tuple(found)


def _in_state(state_dir: Path, *, runs: bool) -> Iterator[Left]:
    if not runs and (state_dir / "arena").exists():
        yield Left("arena", str(state_dir / "arena"))
    for path in remains.set_aside_in(state_dir):
        yield Left("damaged", str(path))


def _queue(state_dir: Path, config_path: str) -> Iterator[Left]:
    """The token queue of a killed master."""
    found = remains.token_queue(state_dir)
    if found is not None:
        yield Left("queue", hex(found.key), config_path)


def owner(config: Config, master: Who, account: Callable[[int], Who]) -> Who | None:
    """Return who the workers are; None if there is no such account."""
    from procd.master.files import owner_of

    if config.user is None:
        return master
    try:
        return account(owner_of(config)[0])
    except (ProcdError, KeyError):
        return None
