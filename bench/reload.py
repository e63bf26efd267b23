"""`make bench-reload`: from a save to the first new answer, procd beside its peers, in one run.

    python -m bench.reload [--apps tiny,pandas] [--rounds N] [--preload auto] [--only procd]
                           [--json FILE] [--picture FILE]

For each app, procd, the bare limit and every peer, in turns: save to first new answer, how long
old code still answered, silence and failed requests of a reload under a light load, cold start,
and PSS of the whole process tree. Exit status 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from statistics import median

from bench import apps, picture, rounds, servers
from bench.rounds import Result
from bench.torture import row
from bench.verdict import Verdict
from tests.service import leftovers

MINE = (servers.PROCD, servers.PROCD_HUP)
KINDS = {"procd": MINE, None: (*MINE, *servers.PEERS)}  # by --only
ROUNDS = {"tiny": 10, "pandas": 6}
TIMES_FASTER = {"tiny": 1.0, "pandas": 10.0}  # than the best peer
TIMES_BARE = 2.0  # at most
TITLES = {"tiny": "tiny app", "pandas": "app with numpy and pandas"}
COLUMNS = (
    *("save → new, ms", "min..max", "missed", "old code until, ms", "silence, ms", "failed"),
    *("cold start, ms", "PSS, MB (workers)"),
)


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers are ended then, too
    leftovers.unshare_queues()
    began = time.monotonic()
    results = []
    for app in options.apps:
        count = options.rounds or ROUNDS[app]
        preload = options.preload if apps.MODULES[app] else "auto"
        results += rounds.race(app, KINDS[options.only], count, preload, progress)
    machine = machine_line(time.monotonic() - began)
    print(machine)
    for app, found in groupby(results, lambda result: result.app):
        print(f"\n{table(TITLES[app], list(found))}")
    verdicts = [verdict for app in options.apps for verdict in judged(app, results)]
    print()
    for verdict in verdicts:
        print(row(verdict))
    if options.json:
        rows = [result.as_json() for result in results]
        text = json.dumps({"machine": machine, "results": rows}, indent=1)
        Path(options.json).write_text(f"{text}\n")
    if options.picture:
        Path(options.picture).write_text(drawn(machine, results))
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = list(apps.IMPORTS)
    parser.add_argument("--apps", type=lambda text: text.split(","), default=names)
    parser.add_argument("--rounds", type=int, help="saves of each server")
    parser.add_argument("--preload", type=servers.preload, default="auto", help="procd's key")
    parser.add_argument("--only", choices=["procd"], help="no peers")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--picture", metavar="FILE", help="an SVG")
    options = parser.parse_args()
    if set(options.apps) - set(names):
        parser.error(f"--apps: only {','.join(names)}")
    return options


def progress(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the promises


def judged(app: str, results: list[Result]) -> Iterator[Verdict]:
    """Give each way of procd beside the peers that go the same way, then both beside all."""
    mine = [result for result in results if result.app == app]
    procds = [result for result in mine if result.kind == "procd"]
    peers = [result for result in mine if result.kind == "peer"]
    (bare,) = (result for result in mine if result.kind == "bare")
    for procd in procds:
        who = f"{TITLES[app]}, {procd.name}"
        text = procd.error or f"{procd.missed} missed"
        is_kept = bool(procd.saves) and not procd.missed and not procd.error
        yield Verdict(f"{who}: each save is served", text, is_kept)
        same = [result for result in peers if result.is_hup == procd.is_hup]
        yield from faster(f"{who}, its like", [procd], same, TIMES_FASTER[app])
        yield from near(who, procd, bare)
        text = f"{procd.failed} of {procd.requests}"
        yield Verdict(f"{who}: no request fails", text, not procd.failed)
    yield from faster(f"{TITLES[app]}, watching or told", procds, peers, TIMES_FASTER[app])


def faster(what: str, procds: list[Result], peers: list[Result], least: float) -> Iterator[Verdict]:
    mine = [result.middle for result in procds if result.middle]
    theirs = [(result.middle, result.name) for result in peers if result.middle]
    if mine and theirs:
        best, (rival, name) = min(mine), min(theirs)
        text = f"{rival / best:.1f} x {name} ({rival * 1e3:.0f} / {best * 1e3:.0f} ms)"
        yield Verdict(f"{what}: {least:g} x as fast", text, rival / best > least)


def near(who: str, procd: Result, bare: Result) -> Iterator[Verdict]:
    if procd.middle and bare.middle:
        ratio = procd.middle / bare.middle
        text = f"{ratio:.1f} x ({procd.middle * 1e3:.1f} / {bare.middle * 1e3:.1f} ms)"
        yield Verdict(f"{who}: at most {TIMES_BARE:g} x bare", text, ratio <= TIMES_BARE)


# ---------------------------------------------------------------- what is shown


def machine_line(seconds: float) -> str:
    cpus = len(os.sched_getaffinity(0))
    return (
        f"Python {platform.python_version()}, Linux {platform.release()}, {cpus} CPUs, "
        f"load {os.getloadavg()[0]:.1f}; {rounds.WORKERS} workers, medians, {seconds:.0f} s in all"
    )


def table(title: str, results: list[Result]) -> str:
    """Markdown that is a table without a renderer, too; the fastest first."""
    results = sorted(results, key=lambda result: result.middle or float("inf"))
    lines = [(title, *COLUMNS), *((result.name, *cells(result)) for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [
        "| "
        + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def cells(result: Result) -> tuple[str, ...]:
    if not result.saves:
        return (result.error or "none served", "", str(result.missed), "", "", "", "", "")
    span = f"{ms(min(result.saves))}..{ms(max(result.saves))}"
    if result.kind == "bare":
        return (ms(result.middle), span, str(result.missed), "", "", "", "", "")
    return (
        ms(result.middle),
        span,
        str(result.missed),
        ms(max(result.old_code)),
        ms(result.silence),
        f"{result.failed} of {result.requests}",
        ms(median(result.cold) if result.cold else None),
        ", ".join(f"{size / 1e6:.0f} ({count})" for count, size in sorted(result.pss.items())),
    )


def ms(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:,.{0 if seconds >= 0.01 else 1}f}"


def drawn(machine: str, results: list[Result]) -> str:
    groups = [
        picture.Group(
            TITLES[app],
            [picture.Bar(r.name, r.middle * 1e3, r.kind) for r in found if r.middle is not None],
        )
        for app, found in groupby(results, lambda result: result.app)
    ]
    title = "From a save to the first new answer (log scale; shorter is better)"
    return picture.drawn(title, machine, groups)


if __name__ == "__main__":
    sys.exit(main())
