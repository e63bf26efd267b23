"""Torture: the heavy promises in their full counts, against the real daemon.

    python -m bench.torture [--divide N] [reloads] [kills] [bursts] [stop] [tiers] [power]

Prints a table of promises, what was measured and whether it was kept; exit status 1 when one broke.
--divide runs an N-th of each count.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median, quantiles

from bench import tiers
from bench.load import Load, Plan, Tally
from bench.verdict import Verdict
from tests.service import leftovers
from tests.service.daemon import Service, eventually, pause, serving

OLD_ENOUGH = 5.5  # seconds alive after which a death restarts at once (backoff resets at 5)
SEATS = 8  # of each role while processes are killed
FULL = 2 * SEATS


# -- 100 reloads under load --------------------------------------------------------------------


def reloads(divide: int) -> Iterator[Verdict]:
    count = max(8, 100 // divide)
    with serving(max_wait_time=3, worker_num=2, task_worker_num=2) as service:
        master = service.master
        service.reload()
        settled(service)
        before = footprint(service, master)
        most = 0
        begun = time.monotonic()
        with Load(service.address, Plan(new=14, kept=6)) as load:
            for _ in range(count):
                service.reload()
                most = max(most, len(draining(service)))
        lasted = time.monotonic() - begun
        settled(service)
        after = footprint(service, master)
        with Load(service.address, Plan(new=14, kept=6)) as quiet:
            pause(lasted)
    print(f"  with {count} reloads: {load.tally}\n  without:          {quiet.tally}")
    yield no_failures(f"{count} reloads fail no request", load.tally)
    allowed = quiet.tally.longest_silence + 0.150
    silence = f"{load.tally.longest_silence * 1000:.0f} of {allowed * 1000:.0f} ms"
    is_kept = load.tally.longest_silence <= allowed
    yield Verdict("longest silence at most that of the quiet run + 150 ms", silence, is_kept)
    yield Verdict("at most 3 old generations drain", str(most), most <= 3)
    yield Verdict("fds of the master as before", f"{before[0]} → {after[0]}", before[0] == after[0])
    yield Verdict("processes as before", f"{before[1]} → {after[1]}", before[1] == after[1])
    grown = after[2] - before[2]
    yield Verdict("RSS of the master flat", f"{grown / 1e6:+.1f} MB", grown < 2_000_000)


def draining(service: Service) -> set[int]:
    rows = service.status()["processes"]
    return {p["generation"] for p in rows if p["state"] == "draining" and "id" in p}


def settled(service: Service) -> None:
    eventually(lambda: not draining(service), 30, "the end of the drains")
    pause(1)


def footprint(service: Service, master: int) -> tuple[int, int, int]:
    """The master's fds, the service's processes, the master's RSS in bytes."""
    pages = int(Path(f"/proc/{master}/statm").read_text().split()[1])
    fds = len(list(Path(f"/proc/{master}/fd").iterdir()))
    return fds, len(service.alive()), pages * 4096


def no_failures(promise: str, tally: Tally) -> Verdict:
    detail = f": {tally.failures[0]}" if tally.failures else ""
    return Verdict(
        promise, f"{tally.failed} of {tally.ok + tally.failed} failed{detail}", not tally.failed
    )


# -- 1,000 random kill -9 under load -----------------------------------------------------------


@dataclass
class Killer:
    """Kills processes of a service at random; measures how soon those that lived long return."""

    service: Service
    rng: random.Random
    killed: set[int] = field(default_factory=set)
    seen: dict[int, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    never: int = 0

    def look(self) -> list[int]:
        seats = self.service.seats()
        for pid in seats:
            self.seen.setdefault(pid, time.monotonic())
        return [pid for pid in seats if pid not in self.killed]

    def strike(self) -> None:
        seats = self.look()
        old = [pid for pid in seats if time.monotonic() - self.seen[pid] > OLD_ENOUGH]
        if len(seats) == FULL and old:
            self.kill(self.rng.choice(old))
            self.measure()
        elif seats and self.rng.random() < 0.3:
            self.kill(self.rng.choice(seats))
        else:
            return

    def kill(self, pid: int) -> None:
        self.killed.add(pid)
        self.service.kill(pid)

    def measure(self) -> None:
        begun = time.monotonic()
        while len(self.look()) < FULL:
            if time.monotonic() > begun + 5:
                self.never += 1
                return
            pause(0.001)
        self.seconds.append(time.monotonic() - begun)


def kills(divide: int) -> Iterator[Verdict]:
    count = max(20, 1000 // divide)
    accepted: list[int] = []

    def is_accepted(number: int, line: bytes) -> bool:
        if line == b"1\n":
            accepted.append(number)
        return line == b"1\n" or b"TaskQueueFull" in line

    plan = Plan(
        new=10,
        kept=10,
        rest=0.02,
        request=lambda n: f"flood('ran({{}}) and time.sleep(0.01)', {n}, 1)\n".encode(),
        is_good=is_accepted,
    )
    seats = {"worker_num": SEATS, "task_worker_num": SEATS}
    with serving("repl.py", **seats, task_max_attempts=50, task_slots=32768) as service:
        master = service.master
        killer = Killer(service, random.Random(divide))
        with Load(service.address, plan) as load:
            while len(killer.killed) < count:
                killer.strike()
                pause(0.1)
        print(f"  {len(killer.killed)} killed: {load.tally}")
        yield from ledger(service, accepted, killer.killed)
        yield Verdict("no zombie", "", not leftovers.zombies(master))
        rows = eventually(lambda: service.status()["tasks"], 5)
        is_empty = rows["queued"] == rows["running"] == rows["dead"] == 0
        yield Verdict("queue empty at the end", str(rows), is_empty)
    yield from replacements(killer)
    yield Verdict("no orphan, queue or arena left after the stop", "", is_kept=True)


def ledger(service: Service, accepted: list[int], killed: set[int]) -> Iterator[Verdict]:
    """Compare what clients were told with what ran."""
    deadline = time.monotonic() + 60
    while set(accepted) - set(service.runs()) and time.monotonic() < deadline:
        pause(0.5)
    rows = sorted(service.ledger("ran"), key=lambda row: int(row[0]))
    ran = {number: [row[1] for row in group] for number, group in groupby(rows, lambda r: r[0])}
    lost = set(accepted) - set(ran)
    text = f"{len(lost)} of {len(accepted)} lost {sorted(lost)[:5]}"
    yield Verdict("every accepted task runs", text, not lost)
    twice = {number: pids for number, pids in ran.items() if len(pids) > 1}
    unfounded = {n: pids for n, pids in twice.items() if not set(pids[:-1]) <= killed}
    text = f"{len(twice)} twice, {len(unfounded)} without a death {list(unfounded.items())[:3]}"
    yield Verdict("runs twice only where a process died", text, not unfounded)


def replacements(killer: Killer) -> Iterator[Verdict]:
    spent = killer.seconds
    if len(spent) < 2:
        yield Verdict("replaced within 100 ms (median)", "nothing measured", is_kept=False)
        return
    middle, late = median(spent), quantiles(spent, n=20)[-1]
    yield Verdict("replaced within 100 ms (median)", f"{middle * 1000:.0f} ms", middle <= 0.1)
    text = f"{late * 1000:.0f} ms, {killer.never} never, of {len(spent)}"
    yield Verdict("95 % within 400 ms", text, late <= 0.4 and not killer.never)


# -- bursts ------------------------------------------------------------------------------------


def bursts(divide: int) -> Iterator[Verdict]:
    yield burst(20_000 // divide, f"flood('{{}}', 0, {20_000 // divide}) and blocking(5)", 32768)
    yield burst(100_000 // divide, f"await persist('{{}}', {100_000 // divide})", 8192)


def burst(count: int, question: str, slots: int) -> Verdict:
    with serving(task_slots=slots) as service, service.connect() as client:
        worker = client.ask("os.getpid()")
        begun = time.monotonic()
        client.ask(question, 300)
        eventually(lambda: client.ask("len(finished)", 60) >= count, 300, "every result")
        spent = time.monotonic() - begun
        is_whole = client.ask("sorted(r for _, r in finished) == list(range(len(finished)))", 60)
        rss = int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096
    text = f"in {spent:.1f} s, worker {rss / 1e6:.0f} MB"
    return Verdict(f"{count} tasks in a burst: every result once", text, is_whole and rss < 3e8)


# -- stop with a full queue --------------------------------------------------------------------


def stop(divide: int) -> Iterator[Verdict]:
    count, wait = 10_000 // divide, 3
    with serving(max_wait_time=wait, task_slots=16384) as service:
        held = service.occupy(2)
        service.ask(f"flood('ran({{}})', 0, {count})", 60)
        begun = time.monotonic()
        done = service.stop()
        spent = time.monotonic() - begun
        yield Verdict("stop ends within max_wait_time + 1 s", f"{spent:.1f} s", spent <= wait + 1)
        said = done.stdout.strip() or done.stderr.strip()
        is_told = f"{count + 2} tasks kept" in said  # with the two that ran to the end
        yield Verdict("says how many it kept", said, is_told)
        held.unlink()
        service.start()
        deadline = time.monotonic() + 60
        while len(service.runs()) < count and time.monotonic() < deadline:
            pause(0.2)
        pause(1)
        is_exact = service.runs() == dict.fromkeys(range(count), 1)
        text = f"{service.runs().total()} runs of {len(service.runs())} tasks"
        yield Verdict(f"the next start runs exactly those {count}", text, is_exact)


# -- the table ---------------------------------------------------------------------------------

CASES: dict[str, Callable[[int], Iterator[Verdict]]] = {
    "reloads": reloads,
    "kills": kills,
    "bursts": bursts,
    "stop": stop,
    "tiers": tiers.tiers,
    "power": tiers.power,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE")
    parser.add_argument("--divide", type=int, default=1, help="run an N-th of each count")
    options = parser.parse_args()
    leftovers.unshare_queues()
    return told({name: partial(CASES[name], options.divide) for name in options.cases or CASES})


def told(cases: Mapping[str, Callable[[], Iterator[Verdict]]]) -> int:
    """Run the cases, print their verdicts; the exit status: 1 when a promise is broken."""
    verdicts: list[Verdict] = []
    for name, case in cases.items():
        print(f"{name}:")
        try:
            for verdict in case():
                verdicts.append(verdict)
                print(f"  {row(verdict)}", flush=True)
        except Exception as error:  # noqa: BLE001 - a case that breaks is a broken promise
            verdicts.append(Verdict(f"{name} runs to its end", repr(error), is_kept=False))
            print(f"  {row(verdicts[-1])}", flush=True)
    broken = [verdict for verdict in verdicts if not verdict.is_kept]
    print(f"{len(verdicts) - len(broken)} of {len(verdicts)} promises kept")
    for verdict in broken:
        print(row(verdict))
    return 1 if broken else 0


def row(verdict: Verdict) -> str:
    return f"{'kept  ' if verdict.is_kept else 'BROKEN'} {verdict.promise:<58} {verdict.measured}"


if __name__ == "__main__":
    sys.exit(main())
