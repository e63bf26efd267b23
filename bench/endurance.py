"""`make endurance`: what a thousand reloads leave behind, and what a large app costs a save.

    python -m bench.endurance [reloads] [tree] [--reloads N] [--saves N] [--preload auto]

reloads: the app with numpy and pandas is saved N times under load, each save as soon as the one
before it is served. Compared with as long a run without reloads, and the service's footprint at
the 100th reload with that at the last one.
tree: one module of TREE_MODULES is saved; beside `python -c import` of the same tree with valid
bytecode, in turns.

Prints a table of promises as bench.torture does; exit status 1 when one broke.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from bench import apps, rounds, servers
from bench.load import Load
from bench.torture import no_failures, told
from bench.verdict import Verdict
from tests.service import leftovers
from tests.service.daemon import eventually, pause

LOAD = replace(rounds.LOAD, kept=4)
EARLY = 100  # the reload after which the first footprint is taken
LOOKS, LOOK_SECONDS = 10, 0.05  # at the descriptors of a process
ALLOWED_SILENCE = 0.150  # seconds beyond the quiet run's
ALLOWED_GROWTH = 2_000_000  # bytes of RSS, of the master and of the base
TIMES_PLAIN = 2.0  # a save of the tree may take at most as many plain imports


# -- a thousand reloads under load -------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """What a service occupies: fds and RSS in bytes of master and base, number of processes."""

    fds: dict[str, int]
    rss: dict[str, int]
    processes: int


def reloads(options: argparse.Namespace) -> Iterator[Verdict]:
    count = options.reloads
    early = min(EARLY, max(1, count // 2))
    with servers.running(servers.PROCD, "pandas", rounds.WORKERS, options.preload) as server:
        server.wait_until_warm()
        begun, seconds = time.monotonic(), list[float | None]()
        with Load(server.address, LOAD) as load:
            seconds += [server.reload() for _ in range(early)]
            before = footprint(server)
            seconds += [server.reload() for _ in range(count - early)]
            after = footprint(server)
        lasted = time.monotonic() - begun
        with Load(server.address, LOAD) as quiet:
            pause(lasted)
    print(f"  with {count} reloads: {load.tally}\n  without:          {quiet.tally}")
    served = [spent for spent in seconds if spent is not None]
    halves = (served[:early], served[-early:])
    text = f"{count - len(served)} missed" + "".join(
        f", {median(half) * 1e3:.0f} ms {when}"
        for half, when in zip(halves, ("at first", "at last"), strict=True)
        if half
    )
    yield Verdict(f"each of {count} saves is served", text, len(served) == count)
    yield no_failures("no request fails", load.tally)
    allowed = quiet.tally.longest_silence + ALLOWED_SILENCE
    text = f"{load.tally.longest_silence * 1e3:.0f} of {allowed * 1e3:.0f} ms"
    is_kept = load.tally.longest_silence <= allowed
    yield Verdict("longest silence at most that of the quiet run + 150 ms", text, is_kept)
    yield from compared(before, after, early)


def compared(before: Footprint, after: Footprint, early: int) -> Iterator[Verdict]:
    for role, fds in before.fds.items():
        text = f"{fds} → {after.fds[role]}"
        yield Verdict(f"fds of the {role} as at reload {early}", text, fds == after.fds[role])
    text = f"{before.processes} → {after.processes}"
    yield Verdict("processes likewise", text, before.processes == after.processes)
    for role, size in before.rss.items():
        grown = after.rss[role] - size
        text = f"{size / 1e6:.0f} MB {grown / 1e6:+.1f} MB"
        yield Verdict(f"RSS of the {role} flat", text, grown < ALLOWED_GROWTH)


def footprint(server: servers.Server) -> Footprint:
    """Weigh the service once nothing of an older generation is left."""
    rows = eventually(lambda: of_one_generation(server), 60, "the end of the drains")
    roles = {role: pid for role, pid in rows if role in {"master", "base"}}
    return Footprint(
        {role: open_files(pid) for role, pid in roles.items()},
        {role: rss(pid) for role, pid in roles.items()},
        len(rows),
    )


def of_one_generation(server: servers.Server) -> list[tuple[str, int]]:
    """Role and pid of every process, empty while one boots, drains or is still to come."""
    found = server.status()["processes"]
    assert isinstance(found, list)
    rows = [("master", server.process.pid), *((row["role"], row["pid"]) for row in found)]
    is_steady = all(row["state"] == "ready" for row in found)
    is_steady = is_steady and any(row["role"] == "spare" for row in found)
    is_whole = {pid for _, pid in rows} == leftovers.marked(server.marker)
    return rows if is_steady and is_whole else []


def open_files(pid: int) -> int:
    """Count descriptors, the fewest of some looks: a command that has just asked is one more."""
    looks = []
    for _ in range(LOOKS):
        looks.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        time.sleep(LOOK_SECONDS)
    return min(looks)


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# -- a large app -------------------------------------------------------------------------------


def tree(options: argparse.Namespace) -> Iterator[Verdict]:
    saves, plain = [], []
    with servers.running(servers.PROCD, "tree", rounds.WORKERS, options.preload) as server:
        server.wait_until_warm()
        server.settle()
        for _ in range(options.saves):
            saves.append(server.reload())
            server.settle()
            plain_import(server)  # compiles what was saved
            plain.append(plain_import(server))
    lines = apps.TREE_MODULES * apps.TREE_LINES
    what = f"save in {apps.TREE_MODULES} modules, {lines:,} lines"
    served = [spent for spent in saves if spent is not None]
    if len(served) < len(saves):
        text = f"{len(saves) - len(served)} missed"
        yield Verdict(f"{what}: served", text, is_kept=False)
        return
    ratio = median(spent / bare for spent, bare in zip(served, plain, strict=True))
    text = f"{ratio:.1f} x ({median(served) * 1e3:.0f} / {median(plain) * 1e3:.0f} ms)"
    yield Verdict(f"{what}: at most {TIMES_PLAIN:g} plain imports", text, ratio <= TIMES_PLAIN)


def plain_import(server: servers.Server) -> float:
    """Seconds of `python -c import`, the interpreter's own start included."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import tree"],
        cwd=server.root / "app",
        env=server.environment(),
        check=True,
        timeout=60,
    )
    return time.monotonic() - began


CASES: dict[str, Callable[[argparse.Namespace], Iterator[Verdict]]] = {
    "reloads": reloads,
    "tree": tree,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--reloads", type=int, default=1000)
    parser.add_argument("--saves", type=int, default=7, help="of a module of the tree")
    parser.add_argument("--preload", type=servers.preload, default="auto", help="procd's key")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers are ended then, too
    leftovers.unshare_queues()
    return told({name: partial(CASES[name], options) for name in options.cases or CASES})


if __name__ == "__main__":
    sys.exit(main())
