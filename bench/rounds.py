"""One server through all measurements of bench.reload, from its cold start to its end.

A round is one save. procd's rounds are taken in turns with those of the bare limit, so that a
machine which grows slower does so for both.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench import apps, bare, servers
from bench.load import Load, Plan, Tally

WORKERS = 2
MORE_WORKERS = 4  # PSS only
COLD_STARTS = 3
LOADED_RELOADS = 2  # under load; the worst silence counts, the failures are added up
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

    def add(self, spent: float | None) -> None:
        if spent is None:
            self.missed += 1
        else:
            self.saves.append(spent)


def of_procd(app: str, rounds: int, preload: object) -> Iterator[Result]:
    """Give procd watching, then procd told by HUP, then the bare limit beside both."""
    limit = Result("bare fork and import", app, kind="bare")
    for kind in (servers.PROCD, servers.PROCD_HUP):
        with bare.running(app) as beside:
            yield measured(kind, app, rounds, preload, (beside, limit))
    yield limit


def of_peers(app: str, rounds: int) -> Iterator[Result]:
    for kind in servers.PEERS:
        yield measured(kind, app, rounds)


def measured(
    kind: servers.Kind,
    app: str,
    rounds: int,
    preload: object = "auto",
    beside: tuple[bare.Bare, Result] | None = None,
) -> Result:
    """All measurements of one server; one that does not come up is a row that says so."""
    result = Result(kind.name, app, "procd" if kind.is_procd else "peer", kind.is_hup)
    try:
        while len(result.saves) + result.missed < rounds:
            # Normally once; anew after a missed save, or what one save broke would count for all.
            with servers.running(kind, app, WORKERS, preload) as server:
                settle(server, result)
                run(server, result, rounds, beside)
        for _ in range(min(COLD_STARTS, rounds) - len(result.cold)):
            with servers.running(kind, app, WORKERS, preload) as server:
                result.cold.append(server.cold)
        if kind.has_workers:
            with servers.running(kind, app, MORE_WORKERS, preload) as server:
                settle(server, None)
                result.pss[MORE_WORKERS] = server.pss()
    except servers.FailedToStartError as error:
        result.error = str(error)
    return result


def settle(server: servers.Server, result: Result | None) -> None:
    """Wait until it is as it stays, and weigh it then."""
    server.wait_until_warm()
    server.settle()
    time.sleep(REST)
    if result is not None:
        result.cold.append(server.cold)
        result.pss.setdefault(WORKERS if server.kind.has_workers else 1, server.pss())


def run(
    server: servers.Server,
    result: Result,
    rounds: int,
    beside: tuple[bare.Bare, Result] | None,
) -> None:
    while len(result.saves) + result.missed < rounds:
        spent = server.reload()
        result.add(spent)
        if spent is None:
            return
        result.old_code.append(max(spent, server.settle() - server.saved))
        if beside is not None:
            beside[1].add(beside[0].reload())
            time.sleep(apps.SETTLE)
    tallies = [reload_under_load(server) for _ in range(min(LOADED_RELOADS, rounds))]
    result.silence = max(tally.longest_silence for tally in tallies)
    result.failed = sum(tally.failed for tally in tallies)
    result.requests = sum(tally.ok + tally.failed for tally in tallies)


def reload_under_load(server: servers.Server) -> Tally:
    with ExitStack() as stack:
        load = stack.enter_context(Load(server.address, LOAD))
        time.sleep(BEFORE)
        server.reload()
        server.settle()
        time.sleep(AFTER)
    return load.tally
