"""What the kernel is to allow the processes of an app: limits by name, CPUs by number. Pure."""

from __future__ import annotations

import resource

from procd.config.fault import Wrong, quoted

MOST_CPUS = 8192  # NR_CPUS of the largest kernels

# By the names of limits.conf and systemd's Limit*=: those that bound a server.
RESOURCES = {
    "as": resource.RLIMIT_AS,
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "rtprio": resource.RLIMIT_RTPRIO,
    "sigpending": resource.RLIMIT_SIGPENDING,
    "stack": resource.RLIMIT_STACK,
}
UNLIMITED = "unlimited"


def cpus(text: str) -> list[int]:
    """Return the CPUs of a set as taskset(1) writes it: 3, 0-3, 0,2,4-7. Raises Wrong."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (_is_number(first) and _is_number(last)) or int(first) > int(last):
            raise Wrong(f"{quoted(text)} is no set of CPUs")
        if int(last) >= MOST_CPUS:
            raise Wrong(f"{quoted(text)}: there is no CPU {int(last)}")
        found |= set(range(int(first), int(last) + 1))
    return sorted(found)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def words(rlimits: dict[str, int | None]) -> str:
    """Return limits as they are written: {core: unlimited, nofile: 65536}."""
    said = (f"{name}: {UNLIMITED if n is None else n}" for name, n in sorted(rlimits.items()))
    return f"{{{', '.join(said)}}}"
