"""The log file: rotated, full, flooded; and the service goes on."""

from __future__ import annotations

import re
import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service
from tests.service.logbook import cpu_seconds, logger_pid, of_two_workers, peak_bytes

HELD = re.compile(r"warning logger\[\d+\] held back ([\d,]+) lines of worker [01] in the last")
FLOOD = (
    "[print('x' * 60) for end in [time.time() + {}]"
    " for _ in iter(lambda: time.time() < end, False)] and 1"
)


def log_of(service: Service) -> Path:
    return service.run_dir / "procd.log"


def test_a_file_that_was_moved_away_is_opened_anew_without_a_signal(service: Service) -> None:
    log = log_of(service)
    log.rename(log.with_suffix(".1"))
    service.wait_for(lambda: service.ask("print('again')") or "again" in service.log(), 10)
    old = log.with_suffix(".1")
    service.wait_for(lambda: "log reopened" in service.log() + old.read_text(), 5)


def test_a_file_that_was_replaced_is_left(service: Service) -> None:
    log = log_of(service)
    log.rename(log.with_suffix(".1"))
    log.touch()  # as logrotate's `create`
    service.wait_for(lambda: service.ask("print('again')") or "again" in service.log(), 10)


def test_a_file_that_was_emptied_goes_on_at_its_beginning(service: Service) -> None:
    log = log_of(service)
    shutil.copy(log, log.with_suffix(".1"))  # as logrotate's `copytruncate`
    with log.open("r+") as file:
        file.truncate(0)
    service.ask("print('again')")
    service.wait_for(lambda: "again" in service.log(), 5)
    assert "\0" not in service.log()


def test_nothing_is_lost_by_rotations_under_load(make: Serve) -> None:
    service = make(log_rate=None, worker_num=1).start()
    log, names = log_of(service), []
    for number in range(6):
        service.ask(f"[print('line', {number} * 100 + n) for n in range(100)] and 1")
        names.append(log.with_suffix(f".{number}"))
        log.rename(names[-1])
        service.kill(service.master, signal.SIGWINCH)
        service.wait_for(log.exists, 5)
    service.stop()
    text = "".join(path.read_text() for path in (*names, log))
    assert sorted(map(int, re.findall(r"\] line (\d+)\n", text))) == list(range(600))


def test_a_link_to_elsewhere_is_followed_on_a_signal_only(make: Serve) -> None:
    service = make()
    service.run_dir.mkdir()
    real, other = service.root / "real.log", service.root / "other.log"
    log_of(service).symlink_to(real)
    service.start()
    log_of(service).unlink()
    log_of(service).symlink_to(other)
    service.ask("print('one')")
    service.wait_for(lambda: "one" in real.read_text(), 5)
    service.kill(service.master, signal.SIGWINCH)
    service.wait_for(other.exists, 5)
    service.ask("print('two')")
    service.wait_for(lambda: "two" in other.read_text(), 5)


def test_a_full_disk_is_counted_and_said_once_it_is_over(make: Serve) -> None:
    service = make()
    service.run_dir.mkdir()
    log_of(service).symlink_to("/dev/full")
    service.start()
    for number in range(10):
        assert service.ask(f"print('lost {number}')") is None
    assert service.reload().returncode == 0
    service.wait_for(lambda: service.status()["log"]["error"] == "No space left on device", 5)
    service.wait_for(lambda: service.status()["log"]["lost"] >= 10, 5)
    log_of(service).unlink()
    service.kill(service.master, signal.SIGWINCH)
    service.wait_for(lambda: "log written again" in service.log(), 5)
    service.ask("print('kept')")
    service.wait_for(lambda: "kept" in service.log(), 5)
    found = re.findall(r"log written again lost=(\d+) why='No space left on device'", service.log())
    assert len(found) == 1
    assert int(found[0]) >= 10
    service.wait_for(lambda: service.status()["log"]["error"] is None, 5)


def test_a_log_that_cannot_be_reopened_goes_on_where_it_is(service: Service) -> None:
    log = log_of(service)
    log.rename(log.with_suffix(".1"))
    log.mkdir()
    service.kill(service.master, signal.SIGWINCH)
    old = log.with_suffix(".1")
    service.wait_for(lambda: "log not reopened" in old.read_text(), 5)
    service.ask("print('goes on')")
    service.wait_for(lambda: "goes on" in old.read_text(), 5)
    log.rmdir()


# ---------------------------------------------------------------- floods


def flooded(service: Service, seconds: float) -> None:
    """Have a worker print as fast as it can; ask the other one meanwhile."""
    with of_two_workers(service) as (loud, quiet):
        asking = threading.Thread(target=lambda: loud.ask(FLOOD.format(seconds), 60))
        asking.start()
        answers = 0
        while asking.is_alive():
            assert quiet.ask("1 + 1", 5) == 2
            answers += 1
        asking.join()
        assert answers > 10


@pytest.mark.heavy
def test_a_flood_is_held_back_counted_and_hurts_nobody(service: Service) -> None:
    logger, master = logger_pid(service), service.master
    before = cpu_seconds(master)
    flooded(service, 3)
    service.wait_for(lambda: HELD.search(service.log()), 15)
    assert cpu_seconds(master) - before < 0.5
    assert peak_bytes(logger) < 100 << 20
    held = sum(int(found.replace(",", "")) for found in HELD.findall(service.log()))
    assert held > 1000
    assert log_of(service).stat().st_size < 4 << 20
    service.wait_for(lambda: service.status()["log"]["held_back"] == held, 5)


def test_the_rate_is_changed_while_it_runs(make: Serve) -> None:
    service = make(log_rate=1).start()
    service.ask("print('\\n'.join('x' * 20)) or 1")
    service.wait_for(lambda: "held back" in service.log(), 10)
    service.configure(log_rate=None)
    service.reload()
    service.ask("print('\\n'.join('y' * 5000)) or 1")
    service.wait_for(lambda: service.log().count("] y\n") == 5000, 10)
