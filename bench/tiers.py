"""Torture of the task path: every role killed at random under tasks of all tiers.

Cases of bench.torture. What a client was told and what ran are compared at the end:
- default and durable: each accepted task runs at least once; twice only if a process that ran it
  before was killed;
- at_most_once: no task runs twice; one that did not run was in the hands of a process that died,
  and lies in the dead letters.
A durable task is accepted when accepted() has returned, any other when send() has.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Load, Plan
from bench.verdict import Verdict
from procd.client.client import Client
from procd.errors import ProcdError
from tests.service.daemon import Service, eventually, pause, serving

SEATS = 4  # of each role
TASKS, KILLS, MASTER_KILLS, POWER_CUTS = 50_000, 2_000, 100, 50
ROLES = ("worker", "task", "template", "base", "spare", "gate", "ledger")
TIERS = ("default", "durable", "at_most_once", "outside")
NAP_SECONDS = 0.005  # that a task takes, so that some are killed while they run
NAP = f"time.sleep({NAP_SECONDS})"
KILL_SECONDS = 0.04  # between two looks for somebody to kill
SETTLE_SECONDS = 120.0  # for what was accepted to run
CONFIG = {
    "worker_num": SEATS,
    "task_worker_num": SEATS,
    "task_max_attempts": 60,  # a task is killed by us, not by itself
    "task_slots": 32768,
}


def request(number: int) -> bytes:
    """Ask a worker for one task; its number tells the tier."""
    text = {
        0: f"flood('ran({{}}) and {NAP}', {number}, 1)",
        1: f"await stored({number}, 1, {NAP_SECONDS})",
        2: f"work.options(delivery='at_most_once').send('ran({number}) and {NAP}') and 1",
    }[number % 3]
    return text.encode() + b"\n"


@dataclass
class Accepted:
    """What senders were told, by tier: numbers of tasks."""

    numbers: dict[str, list[int]] = field(default_factory=lambda: {tier: [] for tier in TIERS})

    def heard(self, number: int, line: bytes) -> bool:
        """Note an answer to request(); tell whether it is one that may come."""
        if line == b"1\n":
            self.numbers[TIERS[number % 3]].append(number)
            return True
        return b"TaskQueueFull" in line or b"TaskRejected" in line

    def total(self) -> int:
        return sum(map(len, self.numbers.values()))


# ---------------------------------------------------------------- who is killed


def role_of(pid: int) -> str:
    """As the process calls itself: `procd: ROLE ...`."""
    with suppress(OSError):
        title = Path(f"/proc/{pid}/comm").read_text()
        return title.removeprefix("procd: ").split()[0]
    return ""


class Killer:
    """Kills processes of all roles in turn, and now and then the master, which is started again."""

    def __init__(self, service: Service, rng: random.Random) -> None:
        self.service = service
        self.rng = rng
        self.killed: Counter[str] = Counter()
        self.pids: set[int] = set()

    def strike(self) -> None:
        """Kill one process of some role that has one."""
        role = self.rng.choices(ROLES, (4, 6, 1, 1, 1, 1, 3))[0]
        found = [p for p in self.service.alive() - self.pids if role_of(p).startswith(role)]
        if found:
            pid = self.rng.choice(found)
            self.pids.add(pid)
            self.killed[role] += 1
            self.service.kill(pid)

    def strike_master(self) -> None:
        """Kill the master, all of its processes with it, and start again."""
        there = self.service.alive()
        self.pids |= there
        self.killed["master"] += 1
        self.service.kill(self.service.master)
        eventually(lambda: not self.service.alive() & there, 20, "the end of all")
        self.service.start()

    def cut_the_power(self) -> None:
        """Kill everything at once; what was not synced is gone then."""
        there = self.service.alive()
        self.pids |= there
        self.killed["all"] += 1
        # The master first: it would replace the others.
        for pid in (self.service.master, *there):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.service.alive() & there, 20, "the end of all")
        (self.service.root / "state" / "arena").unlink(missing_ok=True)
        self.service.start()


class Outside(threading.Thread):
    """A program that sends through procd.Client, as long as it is not told to end."""

    def __init__(self, config: Path, accepted: list[int]) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.accepted = accepted
        self.is_over = False
        self.refused = 0

    def run(self) -> None:
        number = 1_000_000_000
        with Client(self.config) as client:
            while not self.is_over:
                number += 1
                try:
                    client.send("app.ran", number)
                    self.accepted.append(number)
                except ProcdError:
                    self.refused += 1  # or nobody can tell: not counted as accepted
                pause(0.005)


# ---------------------------------------------------------------- the cases


def tiers(divide: int) -> Iterator[Verdict]:
    """Kill every role, and the master, under tasks of all tiers."""
    tasks, kills, masters = (n // divide for n in (TASKS, KILLS, MASTER_KILLS))
    accepted = Accepted()
    with serving("repl.py", **CONFIG) as service:
        killer = Killer(service, random.Random(divide))
        outside = Outside(service.config_path, accepted.numbers["outside"])
        outside.start()
        plan = Plan(new=4, kept=16, rest=0.02, request=request, is_good=accepted.heard)
        with Load(service.address, plan) as load:
            every = max(1, kills // max(1, masters))
            turns = 0
            while killer.killed.total() < kills + masters or accepted.total() < tasks:
                if killer.killed.total() < kills + masters:
                    killer.strike()
                    turns += 1
                    if turns % every == 0 and killer.killed["master"] < masters:
                        killer.strike_master()
                        load.address = service.address
                pause(KILL_SECONDS)
            outside.is_over = True
            outside.join()
        print(f"  {dict(killer.killed)}\n  {load.tally}")
        yield from compared(service, accepted, killer)
        yield emptied(service)
    yield Verdict("no process, queue, file left after the stop", "", is_kept=True)


def power(divide: int) -> Iterator[Verdict]:
    """Kill everything at once, the arena lost with it, under durable tasks."""
    cuts = max(2, POWER_CUTS // divide)
    accepted = Accepted()
    plan = Plan(
        new=2,
        kept=8,
        rest=0.01,
        request=lambda n: request(3 * n + 1),
        is_good=lambda n, line: accepted.heard(3 * n + 1, line),
    )
    with serving("repl.py", **CONFIG) as service:
        killer = Killer(service, random.Random(divide))
        with Load(service.address, plan) as load:
            for _ in range(cuts):
                before = accepted.total()
                eventually(lambda b=before: accepted.total() > b + 20, 60, "tasks")  # type: ignore[misc]
                pause(killer.rng.random() * 0.5)
                killer.cut_the_power()
                load.address = service.address
        print(f"  {dict(killer.killed)}\n  {load.tally}")
        yield from compared(service, accepted, killer)
        yield emptied(service)


def compared(service: Service, accepted: Accepted, killer: Killer) -> Iterator[Verdict]:
    """Compare what senders were told with what ran."""
    surely = [n for tier in TIERS if tier != "at_most_once" for n in accepted.numbers[tier]]
    deadline = time.monotonic() + SETTLE_SECONDS
    while set(surely) - set(service.runs()) and time.monotonic() < deadline:
        pause(0.5)
    eventually(lambda: is_quiet(service), SETTLE_SECONDS, "an empty queue")
    ran: dict[int, list[int]] = {}
    for number, pid in service.ledger("ran"):
        ran.setdefault(number, []).append(pid)
    for tier in TIERS:
        numbers = accepted.numbers[tier]
        if not numbers:
            continue
        lost = [n for n in numbers if n not in ran]
        twice = [n for n in numbers if len(ran.get(n, ())) > 1]
        text = f"{len(lost)} of {len(numbers)}"
        if tier == "at_most_once":
            letters = len(dead(service))
            yield Verdict(f"{tier}: none runs twice", str(len(twice)), not twice)
            text += f", {letters} dead letters"
            yield Verdict(f"{tier}: not run are dead letters", text, len(lost) <= letters)
            continue
        yield Verdict(f"{tier}: no accepted task is lost", f"{text} {lost[:5]}", not lost)
        unfounded = [n for n in twice if not set(ran[n][:-1]) <= killer.pids]
        text = f"{len(twice)} twice, {len(unfounded)} without a death"
        yield Verdict(f"{tier}: twice only where a process died", text, not unfounded)


def dead(service: Service) -> list[object]:
    limit = str(TASKS)
    found = service.ok("task", "list", "--state", "dead", "--json", "--limit", limit).stdout
    letters: list[object] = json.loads(found)
    return letters


def is_quiet(service: Service) -> bool:
    counts = service.status()["tasks"]
    return counts["queued"] == counts["running"] == counts["delayed"] == 0


def emptied(service: Service) -> Verdict:
    counts = service.status()["tasks"]
    return Verdict("nothing queued or running at the end", str(counts), is_quiet(service))
