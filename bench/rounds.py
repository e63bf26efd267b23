"""The measurements of bench.reload: every server, from its cold start to its end, in turns.

A round is one save. The rounds are spread over PASSES, in each of which every server has its turn:
a machine that grows slower does so for all of them. procd's rounds are taken in turns with those
of the bare limit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench import apps, bare, servers
from bench.load import Load, Plan

WORKERS = 2
MORE_WORKERS = 4  # PSS only
PASSES = 3  # each with a cold start and a reload under load; worst silence, sum of failures
BEFORE, AFTER = 0.5, 1.0  # seconds of load around a reload
REST = 1.0  # seconds for every worker to have come up, before the tree is weighed

# Light: four clients, each connects for a request and rests 5 ms.
LOAD = Plan(
    new=4,
    kept=0,
    request=lambda _n: apps.REQUEST,
    is_good=lambda _n, body: re.fullmatch(rb"version \d+\n", body) is not None,
    is_http=True,
)


@dataclass
class Result:
    """One row of the table; times in seconds, memory in bytes."""

    name: str
    app: str
    kind: str = "peer"  # or procd, bare
    is_hup: bool = False
    saves: list[float] = field(default_factory=list)  # to the first new answer
    missed: int = 0  # not served in PATIENCE; the server was then started anew
    old_code: list[float] = field(default_factory=list)  # from a save to the last old answer
    silence: float | None = None
    failed: int = 0
    requests: int = 0
    cold: list[float] = field(default_factory=list)
    pss: dict[int, int] = field(default_factory=dict)  # by number of workers
    error: str = ""

    @property
    def middle(self) -> float | None:
        """The median save; None when no save was served."""
        return median(self.saves) if self.saves else None

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"median": self.middle}

    @property
    def rounds(self) -> int:
        return len(self.saves) + self.missed


def race(
    app: str,
    kinds: tuple[servers.Kind, ...],
    rounds: int,
    preload: object = "auto",
    progress: Callable[[str], None] = lambda _text: None,
) -> list[Result]:
    """All results of *app*: one for each server, and the bare limit."""
    limit = Result("bare fork and import", app, "bare")
    results = [
        Result(kind.name, app, "procd" if kind.is_procd else "peer", kind.is_hup) for kind in kinds
    ]
    passes = min(PASSES, rounds)
    for turn in range(passes):
        until = rounds * (turn + 1) // passes
        for kind, result in zip(kinds, results, strict=True):
            progress(f"{app} {turn + 1}/{passes}: {kind.name}")
            with ExitStack() as stack:
                beside = None
                if kind.is_procd:
                    beside = Beside(stack.enter_context(bare.running(app)), limit)
                one_pass(kind, result, until, preload, beside)
    for kind, result in zip(kinds, results, strict=True):
        if kind.has_workers and not result.error:
            progress(f"{app}: {kind.name} with {MORE_WORKERS} workers")
            weigh(kind, result, preload)
    return [*results, limit]


@dataclass(frozen=True)
class Beside:
    """The bare limit, measured after each save of a server."""

    bare: bare.Bare
    result: Result


def one_pass(
    kind: servers.Kind, result: Result, until: int, preload: object, beside: Beside | None
) -> None:
    """Start, save until there are that many saves, reload under load, end.

    A server that does not come up is a row that says so.
    """
    try:
        while result.rounds < until and not result.error:
            # Normally once; anew after a missed save, or what one save broke would count for all.
            with servers.running(kind, result.app, WORKERS, preload) as server:
                result.cold.append(server.cold)
                settle(server)
                result.pss.setdefault(WORKERS if kind.has_workers else 1, server.pss())
                if saves(server, result, until, beside):
                    reload_under_load(server, result)
    except servers.FailedToStartError as error:
        result.error = str(error)


def settle(server: servers.Server) -> None:
    """Wait until it is as it stays."""
    server.wait_until_warm()
    server.settle()
    time.sleep(REST)


def saves(server: servers.Server, result: Result, until: int, beside: Beside | None) -> bool:
    """False when one was missed."""
    while result.rounds < until:
        spent = server.reload()
        if spent is None:
            result.missed += 1
            return False
        result.saves.append(spent)
        result.old_code.append(max(spent, server.settle() - server.saved))
        if beside is not None:
            limit = beside.bare.reload()
            if limit is not None:
                beside.result.saves.append(limit)
            time.sleep(apps.SETTLE)
    return True


def reload_under_load(server: servers.Server, result: Result) -> None:
    with Load(server.address, LOAD) as load:
        time.sleep(BEFORE)
        if server.reload() is None:
            result.missed += 1
        server.settle()
        time.sleep(AFTER)
    result.silence = max(result.silence or 0.0, load.tally.longest_silence)
    result.failed += load.tally.failed
    result.requests += load.tally.ok + load.tally.failed


def weigh(kind: servers.Kind, result: Result, preload: object) -> None:
    """Add what the tree of MORE_WORKERS weighs."""
    try:
        with servers.running(kind, result.app, MORE_WORKERS, preload) as server:
            settle(server)
            result.pss[MORE_WORKERS] = server.pss()
    except servers.FailedToStartError as error:
        result.error = str(error)
