"""Limits and versions of this machine: read, never changed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import pwd
import re
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

from procd.doctor.facts import Inotify, Queues, Unit, Version, Who
from procd.linux import sysvtable
from procd.linux.sysv import QueueError
from procd.service.daemon import DESCRIPTORS_MAX
from procd.spawn.territory import Territory

_FOLDERS_MAX = 100_000  # counted; more are as bad
_KERNEL = (5, 4)  # pidfd_open(2) is 5.3, the long-term kernel after it 5.4
_CONFS = ("usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd")  # last wins
_PROPERTIES = ("Type", "Restart", "RemoveIPC", "TimeoutStopUSec")
_SECONDS = 3.0


def queues() -> Queues | None:
    """Return the limits on message queues; None without System V IPC or /proc."""
    try:
        return Queues(
            msgmnb=_number("/proc/sys/kernel/msgmnb"),
            msgmax=_number("/proc/sys/kernel/msgmax"),
            msgmni=_number("/proc/sys/kernel/msgmni"),
            count=len(sysvtable.rows()),
        )
    except (OSError, ValueError, QueueError):
        return None


def who(uid: int) -> Who:
    """Return the account of that uid, which may have no name."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Who(uid, name, is_system=uid <= _last_system_uid())


def _last_system_uid() -> int:
    with suppress(OSError):
        text = Path("/etc/login.defs").read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^\s*SYS_UID_MAX\s+(\d+)", text, re.MULTILINE)
        if found is not None:
            return int(found[1])
    return 999


def removes_ipc(root: Path = Path("/")) -> str | None:
    """Return where logind's RemoveIPC= is on (that is its default); None if off or no logind."""
    if not (root / "run/systemd/seats").is_dir():
        return None
    main = [root / folder / "logind.conf" for folder in reversed(_CONFS)]
    files = [next((path for path in main if path.is_file()), main[0])]
    drop_ins: dict[str, Path] = {}
    for folder in _CONFS:
        drop_ins |= {path.name: path for path in (root / folder / "logind.conf.d").glob("*.conf")}
    files += [drop_ins[name] for name in sorted(drop_ins)]
    where: str | None = str(files[0])
    for path in files:
        with suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            for value in re.findall(r"^\s*RemoveIPC\s*=\s*(\S*)", text, re.MULTILINE):
                where = None if value.lower() in ("no", "false", "off", "0") else str(path)
    return where


def inotify(uid: int, chdir: Path) -> Inotify | None:
    """Return the limits on watches of a user, and how many folders the app's sources are in."""
    try:
        watches = _number("/proc/sys/fs/inotify/max_user_watches")
        instances = _number("/proc/sys/fs/inotify/max_user_instances")
    except (OSError, ValueError):
        return None
    return Inotify(watches, instances, _instances(uid), _source_folders(chdir))


def _instances(uid: int) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == uid:
                links = (os.readlink(fd.path) for fd in os.scandir(process / "fd"))
                count += sum(link == "anon_inode:inotify" for link in links)
    return count


def _source_folders(chdir: Path) -> int:
    territory, count = Territory(str(chdir)), 0
    for seen, (folder, folders, files) in enumerate(os.walk(chdir)):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and territory.owns(os.path.join(folder, name))
        ]
        count += any(name.endswith(".py") for name in files)
        if seen >= _FOLDERS_MAX:
            break
    return count


def descriptors_max(master_pid: int | None) -> int:
    """Return how many files a process of the service may open: the master raises it that far."""
    with suppress(OSError, ValueError, IndexError):
        if master_pid is not None:
            text = Path(f"/proc/{master_pid}/limits").read_text(encoding="ascii")
            line = next(line for line in text.splitlines() if line.startswith("Max open files"))
            found = line.split()[3]
            return DESCRIPTORS_MAX if found == "unlimited" else int(found)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)


def versions() -> tuple[Version, ...]:
    """Return what procd stands on: Linux, Python, and the packages with their lower bounds."""
    kernel = platform.release()
    found = [
        Version(
            "Python", platform.python_version(), "3.11", is_enough=True
        ),  # else we were not here
        Version("Linux", kernel, "5.4", is_enough=_numbers(kernel)[:2] >= _KERNEL),
    ]
    try:
        lines = importlib.metadata.requires("procd-server") or []
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        lines = []
    for line in lines:
        parts = re.fullmatch(r"([\w.-]+)\s*>=\s*([\w.]+)", line)
        if parts is not None:  # without a condition: needed by everybody
            found.append(_package(parts[1], parts[2]))
    return tuple(found)


def _package(name: str, needed: str) -> Version:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Version(name, None, needed, is_enough=False)
    return Version(name, version, needed, is_enough=_numbers(version) >= _numbers(needed))


def has_uvloop() -> bool:
    return importlib.util.find_spec("uvloop") is not None


def unit(name: str | None) -> Unit | None:
    """Return the properties of a unit that matter here, as `systemctl show` has them."""
    if name is None:
        return None
    command = ["systemctl", "show", name, *(f"--property={one}" for one in _PROPERTIES)]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program; the name is systemd's own
            command, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return Unit(name, {key: value for key, equals, value in pairs if equals})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _number(path: str) -> int:
    return int(Path(path).read_text(encoding="ascii"))
