"""`make bench`: what procd costs, beside the same done barely on this machine, in one table.

Medians of ROUNDS rounds, procd and bare in turns, so that a machine which grows slower does so for
both. The ratio is what travels to another machine; it stands first. Takes about half a minute.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench import tasks
from tests.service import leftovers

ROUNDS = 5
SECONDS = 0.8  # of each measurement in a round
RELOADS = 3  # in each round; the round counts as their median
SETTLE = 0.1  # seconds between two saves

Row = tuple[str, float, float, float, Callable[[float], str]]


def main() -> int:
    """Run all rounds and print the table."""
    # A stale .pyc of the app must not help or hurt either side.
    sys.dont_write_bytecode = True
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    leftovers.unshare_queues()
    began = time.monotonic()
    rows = [*task_rows(), reload_row()]
    show(rows, time.monotonic() - began)
    return 0


def task_rows() -> list[Row]:
    with tasks.procd() as service:
        tasks.procd_tasks(service, SECONDS / 4)  # warm
        pairs = [
            (tasks.procd_tasks(service, SECONDS), tasks.bare_tasks(SECONDS)) for _ in range(ROUNDS)
        ]
    return [
        row("tasks/s, 128 under way", [(p.per_second, b.per_second) for p, b in pairs], whole),
        row("round trip of one task, p50", [(p.p50, b.p50) for p, b in pairs], microseconds),
        row("round trip of one task, p99", [(p.p99, b.p99) for p, b in pairs], microseconds),
    ]


def reload_row() -> Row:
    pairs = []
    with tempfile.TemporaryDirectory() as folder, tasks.procd() as service:
        bare_path = Path(folder, "app.py")
        for turn in range(ROUNDS):
            versions = range(turn * RELOADS + 1, (turn + 1) * RELOADS + 1)
            procd = median(settled(lambda v=v: tasks.procd_reload(service, v)) for v in versions)  # type: ignore[misc]
            bare = median(settled(lambda v=v: tasks.bare_reload(bare_path, v)) for v in versions)  # type: ignore[misc]
            pairs.append((procd, bare))
    return row("save -> first new answer", pairs, milliseconds)


def settled(measure: Callable[[], float]) -> float:
    time.sleep(SETTLE)
    return measure()


def row(name: str, pairs: list[tuple[float, float]], unit: Callable[[float], str]) -> Row:
    """The median ratio, not the ratio of medians: each round's two sides belong together."""
    ratio = median(procd / bare for procd, bare in pairs)
    return name, ratio, median(p for p, _ in pairs), median(b for _, b in pairs), unit


def whole(value: float) -> str:
    return f"{value:,.0f}"


def microseconds(value: float) -> str:
    return f"{value * 1e6:,.0f} us"


def milliseconds(value: float) -> str:
    return f"{value * 1e3:,.1f} ms"


def show(rows: list[Row], seconds: float) -> None:
    loop = "uvloop" if find_spec("uvloop") else "asyncio"
    cpus = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, {loop}, Linux {platform.release()}, {cpus} CPUs, "
        f"load {load:.1f}; medians of {ROUNDS}, {seconds:.0f} s in all"
    )
    print(f"1 worker, {tasks.TASK_PROCESSES} task workers, {len(tasks.PAYLOAD)} B out and back\n")
    print(f"{'':<30}{'procd / bare':>14}{'procd':>12}{'bare':>12}")
    for name, ratio, procd, bare, unit in rows:
        print(f"{name:<30}{ratio:>14.2f}{unit(procd):>12}{unit(bare):>12}")


if __name__ == "__main__":
    sys.exit(main())
