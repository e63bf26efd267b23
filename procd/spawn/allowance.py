"""What the kernel allows the processes of an app: priority, limits, umask; CPUs for each worker.

A base takes them upon itself before it drops to `user`, for some take rights that it then has no
more, and whatever it forks inherits them. So another base is made where a config asks for others.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from dataclasses import dataclass, field

from procd import logs
from procd.config import limits
from procd.config.schema import Config
from procd.errors import ProcdError

_refused: list[str] = []  # what this process was not allowed, or the one that it was forked from


def check() -> None:
    """Raise ProcdError if the kernel has refused what this process should have."""
    if _refused:
        raise ProcdError("\n".join(_refused))


@dataclass(frozen=True, slots=True)
class Allowance:
    """The part of a config that a base carries out."""

    nice: int | None = None
    rlimits: dict[str, int | None] = field(default_factory=dict)
    umask: int = 0o027

    @classmethod
    def of(cls, config: Config) -> Allowance:
        return cls(config.nice, config.rlimits, config.umask)

    def take(self) -> None:
        """Make it this process's own, as far as the kernel lets it: check() tells."""
        os.umask(self.umask)
        refused = [self._limit(name, value) for name, value in self.rlimits.items()]
        _refused[:] = filter(None, [self._renice(), *refused])

    def _renice(self) -> str:
        try:
            if self.nice is not None and self.nice != os.getpriority(os.PRIO_PROCESS, 0):
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        except OSError:
            had = os.getpriority(os.PRIO_PROCESS, 0)
            return (
                f"nice: uid {os.geteuid()} may not go from {had} to {self.nice}: start procd as "
                f"root with CAP_SYS_NICE (Nice={self.nice} in its unit), or set {had} or more"
            )
        return ""

    def _limit(self, name: str, value: int | None) -> str:
        which, wanted = limits.RESOURCES[name], resource.RLIM_INFINITY if value is None else value
        try:
            if resource.getrlimit(which) != (wanted, wanted):
                resource.setrlimit(which, (wanted, wanted))
        except (OSError, ValueError):
            hard = resource.getrlimit(which)[1]
            most = limits.UNLIMITED if hard == resource.RLIM_INFINITY else str(hard)
            return (
                f"rlimits.{name}: uid {os.geteuid()} may not have "
                f"{limits.UNLIMITED if value is None else value}, only up to {most}: start procd "
                f"as root with CAP_SYS_RESOURCE (Limit{name.upper()}= in its unit), or set less"
            )
        return ""


def pin(config: Config, number: int) -> None:
    """Keep worker *number* on the CPUs that it is to have."""
    wanted = config.cpu_affinity
    if wanted is None:
        return
    if isinstance(wanted, str):
        mine = sorted(os.sched_getaffinity(0))
        cpus = [mine[number % len(mine)]]
    else:
        cpus = limits.cpus(wanted[number % len(wanted)])
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:  # it was there when the config was read; better served elsewhere
        logs.warning("worker not pinned", cpus=",".join(map(str, cpus)), why=error.strerror)


def give_way() -> None:
    """Have this process, when it is woken, wait for a processor that somebody works on.

    A task worker that is woken by a task would else cut short who has just sent it and serves
    connections: SCHED_BATCH (sched(7)) does that only after a slice. Another policy that somebody
    has started procd with stays.
    """
    with suppress(OSError):  # a sandbox may refuse it: it is a matter of speed
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
