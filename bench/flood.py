"""`make bench-flood`: one worker prints as fast as it can; what that does to everybody else.

Quiet and flooded in turns, ROUNDS times: the latency of requests to the other worker, over one
connection, and then how large the log has grown, how many lines were held back, and what the
master and the logger have used of the CPU. Exit status 1 if the median of the ratios is WANTED or
more. Takes a minute and a half.
"""

from __future__ import annotations

import argparse
import platform
import sys
import threading
import time
from dataclasses import dataclass
from statistics import median

from tests.service import leftovers
from tests.service.client import Client
from tests.service.daemon import Service, serving
from tests.service.logbook import cpu_seconds, logger_pid, of_two_workers, peak_bytes

ROUNDS = 7
SECONDS = 10.0
WANTED = 2.0  # times the latency of a quiet service
PAUSE = 0.001  # between two requests
FLOOD = (
    "[print('x' * 60) for end in [time.time() + {}]"
    " for _ in iter(lambda: time.time() < end, False)] and 1"
)


@dataclass(frozen=True, slots=True)
class Round:
    """Latencies in seconds, and what SECONDS of flood cost."""

    quiet: float
    flooded: float
    master: float  # CPU seconds
    logger: float

    @property
    def ratio(self) -> float:
        return self.flooded / self.quiet


def latency(client: Client, seconds: float) -> float:
    """Return the median time of a request."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        began = time.perf_counter()
        client.ask("1")
        found.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    return median(found)


def run(service: Service, seconds: float) -> Round:
    """Measure once without a flood and once within one."""
    pids = (service.master, logger_pid(service))
    with of_two_workers(service) as (loud, other):
        quiet = latency(other, seconds / 5)
        before = [cpu_seconds(pid) for pid in pids]
        asking = threading.Thread(target=lambda: loud.ask(FLOOD.format(seconds), seconds + 60))
        asking.start()
        flooded = latency(other, seconds)
        asking.join()
        master, logger = (cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True))
    return Round(quiet, flooded, master, logger)


def main() -> int:
    """Run all rounds and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    leftovers.unshare_queues()
    with serving(task_worker_num=0) as service:
        rounds = [run(service, options.seconds) for _ in range(options.rounds)]
        service.wait_for(lambda: service.status()["log"]["held_back"], 15)
        held, peak = service.status()["log"]["held_back"], peak_bytes(logger_pid(service))
        size = (service.run_dir / "procd.log").stat().st_size
    ratio = median(each.ratio for each in rounds)
    each_ratio = ", ".join(f"{each.ratio:.2f}" for each in rounds)
    print(f"{options.rounds} floods of {options.seconds:g} s ({platform.platform()})")
    print(f"p50 quiet       {median(each.quiet for each in rounds) * 1e6:8,.0f} us")
    print(f"p50 flooded     {median(each.flooded for each in rounds) * 1e6:8,.0f} us")
    print(f"ratio           {ratio:8.2f}     wanted: < {WANTED:g} ({each_ratio})")
    print(f"lines held back {held:12,}")
    print(f"the log         {size / 1e6:8.1f} MB")
    print(f"master's CPU    {max(each.master for each in rounds):8.2f} s at most in a flood")
    print(f"logger's CPU    {max(each.logger for each in rounds):8.2f} s")
    print(f"logger's memory {peak / 1e6:8.0f} MB at most")
    return int(ratio >= WANTED)


if __name__ == "__main__":
    sys.exit(main())
