"""procd logs: the log by worker and level, and as it grows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.conftest import Serve
from tests.service.daemon import Service, eventually

EXTRA = """
import logging


def talk() -> int:
    print("printed")
    logging.getLogger("shop").warning("warned\\nin two lines")
    logging.getLogger("shop").error("failed")
    return server.worker_id


def spin() -> int:"""


@pytest.fixture(params=["text", "json"])
def talkative(request: pytest.FixtureRequest, make: Serve) -> Service:
    service = make(log_format=request.param)
    service.edit("def spin() -> int:", EXTRA)
    return service.start()


def said(service: Service, *options: str) -> list[tuple[str, str]]:
    """Level and message of what `procd logs` shows."""
    lines = service.ok("logs", "--json", *options).stdout.splitlines()
    return [(one["level"], one["message"]) for one in map(json.loads, lines)]


OF_TALK = [("info", "printed"), ("warning", "warned\nin two lines"), ("error", "failed")]


def test_the_last_entries_are_shown_by_worker_and_level(talkative: Service) -> None:
    number = talkative.ask("talk()")
    talkative.wait_for(lambda: "failed" in talkative.log(), 5)
    of_worker = ("--worker", str(number))
    assert said(talkative, *of_worker) == OF_TALK
    assert said(talkative, *of_worker, "-n", "2") == OF_TALK[1:]
    assert said(talkative, *of_worker, "--level", "warning") == OF_TALK[1:]
    assert said(talkative, "--level", "error") == OF_TALK[2:]
    assert said(talkative, "-n", "0") == []
    assert len(said(talkative, "-n", "5")) == 5
    assert said(talkative, "--worker", "99") == []
    text = talkative.ok("logs", *of_worker).stdout
    assert f"] {OF_TALK[1][1]}\n" in text
    assert f" warning worker-{number}@1[" in text


def test_a_service_that_does_not_run_has_its_log_still(talkative: Service) -> None:
    talkative.ask("talk()")
    talkative.stop()
    assert said(talkative, "-n", "1") == [("info", "stopped tasks_kept=0")]


def test_much_is_looked_through_for_what_is_rare(service: Service) -> None:
    log = service.run_dir / "procd.log"
    service.wait_for(lambda: "started" in service.log(), 5)
    service.stop()
    line = "2026-11-23T15:04:05.123 {} worker-7@1[7] {}\n"
    with log.open("a") as file:
        file.write(line.format("error", "rare"))
        for _ in range(20):
            file.write(line.format("info", "x" * 100) * 10_000)
    assert log.stat().st_size > 20 << 20
    assert said(service, "--worker", "7", "--level", "error") == [("error", "rare")]
    assert said(service, "-n", "3") == [("info", "x" * 100)] * 3


@contextmanager
def following(service: Service, *options: str) -> Iterator[Path]:
    """`procd logs -f`, and the file with what it has shown."""
    out = service.root / "followed"
    with out.open("wb") as file:
        shown = subprocess.Popen(
            service.argv("logs", "-f", *options), env=service.environment(), stdout=file
        )
    try:
        yield out
    finally:
        shown.send_signal(signal.SIGINT)
        assert shown.wait(10) == 0


def test_what_is_added_is_followed_over_rotations(service: Service) -> None:
    log = service.run_dir / "procd.log"
    number = service.ask("print('zero') or server.worker_id")
    service.wait_for(lambda: "zero" in service.log(), 5)
    with following(service, "--level", "info") as out:
        eventually(lambda: "zero" in out.read_text(), 10)
        service.ask("print('one') or print('two')")
        eventually(lambda: "one" in out.read_text() and "two" in out.read_text(), 10)
        log.rename(log.with_suffix(".1"))
        service.kill(service.master, signal.SIGWINCH)
        service.wait_for(log.exists, 5)
        service.ask("print('three')")
        eventually(lambda: "three" in out.read_text(), 10)
        os.truncate(log, 0)
        service.ask("print('four')")
        eventually(lambda: "four" in out.read_text(), 10)
    text = out.read_text()
    for word in ("zero", "one", "two", "three", "four"):
        assert text.count(f"] {word}\n") == 1
    assert number in (0, 1)


def test_a_reader_that_has_enough_is_no_failure(service: Service) -> None:
    command = " ".join(service.argv("logs", "-n", "1000"))
    service.wait_for(lambda: "started" in service.log(), 5)
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {command} | head -n 1"],
        env=service.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_without_a_file_it_is_said_where_the_log_is(make: Serve) -> None:
    service = make(log_file=None)
    done = service.run("logs")
    assert done.returncode == 3
    assert "log_file is null" in done.stderr
    assert "journalctl -n 20 -t " in done.stderr
    service.start_foreground()
    done = service.run("logs", "-f")
    assert done.returncode == 1
    assert f"the log goes to the stderr of pid {service.master}" in done.stderr


def test_a_log_that_cannot_be_read_is_said_to(make: Serve) -> None:
    service = make()
    done = service.run("logs")
    assert done.returncode == 1
    assert f"cannot read the log {service.run_dir / 'procd.log'}: No such file" in done.stderr
