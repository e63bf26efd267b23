"""`make bench-tasks`: tasks with a result, procd's three tiers beside the task queues of the field.

    python -m bench.tasktable [--rounds N] [--seconds S] [--only procd]

In turns: each round starts every queue anew, measures and ends it, so that a machine that grows
slower does so for all. The bare limit is a System V queue out and a SEQPACKET pair back
(bench.tasks). Prints the table, then the promises; exit status 1 when one broke. Needs
redis-server on the PATH for those that have it as their broker.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench import tasks
from bench.taskpeers import DRIVER, PEERS, REDIS_SYNCED, TASKS, Peer
from bench.torture import row
from bench.verdict import Verdict
from tests.service import leftovers
from tests.service.daemon import eventually, serving

WINDOW = tasks.WINDOW
PATIENCE = 60.0  # for a peer's first result
TIERS = ("at_least_once", "at_most_once", "durable")
TIMES_PEER, TIMES_DURABLE, OF_BARE, TRIPS_OF_BARE = 10.0, 5.0, 0.20, 6.0

APP = """\
import json
import time
from collections import deque

from procd import Server, task

server = Server()
PAYLOAD = "x" * {payload}


@task
def echo(value):
    return value


@server.on_receive
async def receive(conn, data):
    what, tier, seconds = data.decode().split()
    sends = echo.options(delivery=tier).send
    answer = await {{"rate": rate, "trips": trips}}[what](sends, float(seconds))
    conn.send(json.dumps(answer).encode() + b"\\n")


async def rate(send, seconds):
    refs, done, began = deque(), 0, time.monotonic()
    while time.monotonic() < began + seconds:
        refs.append(send(PAYLOAD))
        if len(refs) == {window}:
            await refs.popleft()
            done += 1
    for ref in refs:
        await ref
    return (done + len(refs)) / (time.monotonic() - began)


async def trips(send, seconds):
    took, until = [], time.monotonic() + seconds
    while (at := time.monotonic()) < until:
        await send(PAYLOAD)
        took.append(time.monotonic() - at)
    return took
"""


@dataclass
class Row:
    """One line of the table: lists over the rounds; seconds and bytes."""

    name: str
    is_procd: bool = False
    is_durable: bool = False
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)

    def add(self, found: tasks.Tasks, cold: float | None = None, pss: int | None = None) -> None:
        self.rates.append(found.per_second)
        self.p50.append(found.p50)
        self.p99.append(found.p99)
        self.cold += [cold] if cold is not None else []
        self.pss += [pss] if pss is not None else []


def main() -> int:
    """Run all rounds, print table and promises."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--only", choices=["procd"], help="no peers")
    options = parser.parse_args()
    leftovers.unshare_queues()
    peers = [] if options.only else [peer for peer in PEERS if has(peer)]
    bare = Row("bare: sysv_ipc out, SEQPACKET back")
    mine = [Row(f"procd, {t}", is_procd=True, is_durable=t == "durable") for t in TIERS]
    theirs = [Row(peer.name, is_durable=peer.is_durable) for peer in peers]
    began = time.monotonic()
    for turn in range(options.rounds):
        print(f"  round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
        bare.add(tasks.bare_tasks(options.seconds))
        procd(mine, options.seconds)
        for peer, line in zip(peers, theirs, strict=True):
            measure(peer, line, options.seconds)
    cpus, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    took = f"medians of {options.rounds}, {time.monotonic() - began:.0f} s in all"
    print(f"{cpus} CPUs, load {load:.1f}; {took}; {WINDOW} under way, 2 worker processes\n")
    show([bare, *mine, *theirs])
    verdicts = list(judged(bare, mine, theirs))
    print()
    for verdict in verdicts:
        print(row(verdict))
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


def has(peer: Peer) -> bool:
    lacks = [peer.module] if find_spec(peer.module) is None else []
    if peer.broker and shutil.which("redis-server") is None:
        lacks.append("redis-server")
    if lacks:
        print(f"  left out: {peer.name} (no {', '.join(lacks)})", file=sys.stderr)
    return not lacks


# ---------------------------------------------------------------- procd


def procd(rows: list[Row], seconds: float) -> None:
    """One service for the three tiers: they share everything but the option."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "app.py")
        path.write_text(APP.format(payload=len(tasks.PAYLOAD), window=WINDOW))
        before = time.monotonic()
        with (
            serving(str(path), worker_num=1, task_worker_num=tasks.TASK_PROCESSES) as service,
            service.connect() as client,
        ):
            client.ask("trips at_least_once 0", PATIENCE)
            cold = time.monotonic() - before
            for line, tier in zip(rows, TIERS, strict=True):
                client.ask(f"rate {tier} 0.2", PATIENCE)
                rate = client.ask(f"rate {tier} {seconds}", PATIENCE)
                trips = client.ask(f"trips {tier} {seconds}", PATIENCE)
                line.add(tasks.tasks_of(rate, trips), cold, pss_of(service.alive()))


# ---------------------------------------------------------------- a peer


def measure(peer: Peer, line: Row, seconds: float) -> None:
    root = Path(tempfile.mkdtemp(prefix="pq"))
    marker = uuid.uuid4().hex
    environment = {**os.environ, leftovers.MARKER: marker, "PYTHONPATH": str(root)}
    socket = root / "redis"
    (root / "peer_app.py").write_text(
        peer.app.replace("{socket!r}", repr(str(socket))).replace("{socket}", str(socket))
    )
    (root / "peer_tasks.py").write_text(TASKS)
    (root / "drive.py").write_text(DRIVER)
    try:
        with broker(peer, socket, root, environment):
            before = time.time()
            command = [sys.executable, "-m", *peer.argv]
            if peer.module == "rq":
                command += ["-u", f"unix://{socket}", "-q"]
            for _ in range(peer.copies):
                start(command, root, environment)
            words = [str(seconds), str(WINDOW), str(len(tasks.PAYLOAD))]
            done = subprocess.run(
                [sys.executable, "drive.py", *words],
                cwd=root,
                env={**environment, leftovers.MARKER: f"{marker}-driver"},
                capture_output=True,
                text=True,
                timeout=PATIENCE + 10 * seconds,
                check=False,
            )
            if done.returncode:
                log = (root / "workers.out").read_text()[-2000:]
                raise RuntimeError(f"{peer.name}: {done.stderr[-2000:]}\n{log}")
            told = json.loads(done.stdout)
            pss = pss_of(leftovers.marked(marker))
            line.add(tasks.tasks_of(told["rate"], told["trips"]), told["first"] - before, pss)
    finally:
        end(marker)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def broker(peer: Peer, socket: Path, root: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a Redis of its own for a peer that needs one; its memory counts as the peer's."""
    if not peer.broker:
        yield
        return
    synced = ("--appendonly", "yes", "--appendfsync", "always")
    kept = synced if peer.broker == REDIS_SYNCED else ("--appendonly", "no")
    place = ("--port", "0", "--unixsocket", str(socket), "--dir", str(root), "--save", "")
    process = start(["redis-server", *place, *kept], root, environment)
    eventually(socket.exists, 10, "Redis")
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def start(command: list[str], root: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (root / "workers.out").open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def end(marker: str) -> None:
    for pid in leftovers.marked(marker):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    eventually(lambda: not leftovers.marked(marker), 10, "the end of a peer")


def pss_of(pids: set[int]) -> int:
    total = 0
    for pid in pids:
        with suppress(OSError):
            for text in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if text.startswith("Pss:"):
                    total += int(text.split()[1]) * 1024
    return total


# ---------------------------------------------------------------- what is shown


def show(rows: list[Row]) -> None:
    print("| | tasks/s | round trip p50 | p99 | first result | PSS of all |")
    print("|---|---:|---:|---:|---:|---:|")
    for line in rows:
        cells = (
            f"{median(line.rates):,.0f}",
            f"{median(line.p50) * 1e3:,.2f} ms",
            f"{median(line.p99) * 1e3:,.2f} ms",
            f"{median(line.cold):.2f} s" if line.cold else "",
            f"{median(line.pss) / 1e6:.0f} MB" if line.pss else "",
        )
        print(f"| {line.name} | {' | '.join(cells)} |")


def judged(bare: Row, mine: list[Row], theirs: list[Row]) -> Iterator[Verdict]:
    """Ratios of each round, then their median: a round's sides belong together."""
    default, _, durable = mine
    yield from beside("default tier", default, [t for t in theirs if not t.is_durable], TIMES_PEER)
    yield from beside("durable tier", durable, [t for t in theirs if t.is_durable], TIMES_DURABLE)
    share = median(a / b for a, b in zip(default.rates, bare.rates, strict=True))
    text = f"{share:.2f} of {median(bare.rates):,.0f}/s"
    yield Verdict(f"default tier: {OF_BARE} of the bare limit", text, share >= OF_BARE)
    times = median(a / b for a, b in zip(default.p50, bare.p50, strict=True))
    text = f"{times:.1f} x {median(bare.p50) * 1e6:.0f} us"
    yield Verdict(f"its round trip at most {TRIPS_OF_BARE:g} x", text, times <= TRIPS_OF_BARE)


def beside(what: str, line: Row, peers: list[Row], least: float) -> Iterator[Verdict]:
    if peers:
        best = max(peers, key=lambda peer: median(peer.rates))
        times = median(line.rates) / median(best.rates)
        text = f"{times:.1f} x {best.name} ({median(best.rates):,.0f}/s)"
        yield Verdict(f"{what}: {least:g} x the fastest peer", text, times >= least)


if __name__ == "__main__":
    sys.exit(main())
