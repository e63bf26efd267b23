"""What a service may not leave behind, and where it is looked for.

A process is a service's own by a variable of its environment, which every descendant inherits.
"""

from __future__ import annotations

import ctypes
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.service.daemon import Service

MARKER = "PROCD_TEST_ID"
RECORDS = (Path("/run/procd"), Path(os.environ.get("XDG_RUNTIME_DIR", "/run/nobody")) / "procd")
CLONE_NEWIPC = 0x08000000


@cache
def unshare_queues() -> bool:
    """Give this process SysV queues of its own, so that suites side by side see only theirs.

    Once: a second time, what runs already would see others than we do. False where the kernel
    refuses (no CAP_SYS_ADMIN); the queues are then the machine's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWIPC) == 0)


def marked(marker: str) -> set[int]:
    """The living processes that carry *marker*; a zombie has no environment and is not found."""
    word = f"{MARKER}={marker}".encode()
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            if word in environment.split(b"\0"):
                found.add(int(entry.name))
    return found


def children(parent: int) -> dict[int, str]:
    """The children of *parent*, zombies too: pid → state letter of proc(5)."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:
                continue
            state, ppid = text.rpartition(")")[2].split()[:2]
            if int(ppid) == parent:
                found[int(entry.name)] = state
    return found


def zombies(parent: int) -> set[int]:
    return {pid for pid, state in children(parent).items() if state == "Z"}


def queues() -> set[int]:
    """The ids of the SysV message queues that this process sees."""
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    return {int(row.split()[1]) for row in rows}


def _queue(number: int) -> str:
    """A queue's row: key, id, mode, bytes, messages, who sent, received, made it, and when."""
    rows = Path("/proc/sysvipc/msg").read_text().splitlines()[1:]
    return next((row for row in rows if int(row.split()[1]) == number), str(number))


def sockets_and_pids(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*") if folder.is_dir() else ():
        mode = path.lstat().st_mode
        if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) or path.suffix == ".pid":
            yield path


def arenas(folder: Path) -> list[Path]:
    """Task arenas in a state_dir, which only tasks that were kept may hold there."""
    return [p for p in folder.rglob("*") if "arena" in p.name] if folder.is_dir() else []


def beside_ledger(folder: Path) -> list[str]:
    """What SQLite needs only while a ledger is open, and ledgers that were found damaged."""
    return [path.name for path in folder.glob("ledger.*") if path.name != "ledger.sqlite"]


def records(of: Path) -> list[Path]:
    """The master's records outside run_dir that name *of*."""
    word = str(of).encode()
    found = []
    for path in [path for folder in RECORDS if folder.is_dir() for path in folder.rglob("*")]:
        with suppress(OSError):  # another service's, which has just removed it
            if path.is_file() and word in path.read_bytes():
                found.append(path)
    return found


def prove_nothing_left(service: Service) -> None:
    """AssertionError that names what the service left behind after its stop."""
    deadline = time.monotonic() + 1
    while service.alive() and time.monotonic() < deadline:
        os.sched_yield()
    left = {
        "processes": [_describe(pid) for pid in service.alive()],
        "queues": [_queue(number) for number in sorted(queues() - service.queues_before)],
        "sockets and pid files": sorted(map(str, sockets_and_pids(service.root))),
        "records": sorted(map(str, records(service.root))),
        "arenas": [] if service.keeps_tasks else arenas(service.root / "state"),
        "beside the ledger": sorted(beside_ledger(service.root / "state")),
        "spools": [] if service.keeps_tasks else sorted((service.root / "state").glob("spool*")),
    }
    assert not any(left.values()), {what: found for what, found in left.items() if found}


def _describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        words = "gone meanwhile"
    return f"{pid} {words}"
