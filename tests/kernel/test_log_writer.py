"""A writer of the log: what waits is bounded, what is lost is counted and said, nobody waits."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from procd.logger.entry import Entry, Who
from procd.logger.target import Target
from procd.logger.writer import MOST_BYTES, TOO_SLOW, Writer
from tests.service.daemon import eventually

WHO = Who("worker", 71, 0, 3)
SECONDS = 10


def entry(message: str) -> Entry:
    return Entry(1.0, "info", WHO, message)


Begin = Callable[[Target], Writer]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Writers, each ended at the end of the test; moves are noted in `moved`."""
    writers = []

    def start(target: Target) -> Writer:
        writers.append(Writer(target, lambda: None))
        return writers[-1]

    yield start
    for writer in writers:
        writer.close(SECONDS)
        assert not writer._thread.is_alive()


def test_all_is_written_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("ab") as file:
        writer = Writer(Target(file.fileno()), lambda: None)
        for number in range(1000):
            writer.put([entry(f"a {number}"), entry(f"b {number}")])
        writer.close(SECONDS)
    lines = [line.partition("] ")[2] for line in path.read_text().splitlines()]
    assert lines == [f"{letter} {n}" for n in range(1000) for letter in "ab"]
    assert (writer.lost, writer.why) == (0, None)


def test_a_full_disk_loses_lines_and_says_so_once(tmp_path: Path, begin: Begin) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = begin(Target(full))
    for number in range(10):
        writer.put([entry(f"lost {number}")])
    eventually(lambda: writer.lost == 10, SECONDS)
    assert writer.why == "No space left on device"
    with (tmp_path / "log").open("ab") as file:
        os.dup2(file.fileno(), full)
    writer.put([entry("kept")])
    eventually(lambda: writer.why is None, SECONDS)
    writer.put([entry("and more")])
    writer.close(SECONDS)
    os.close(full)
    lines = (tmp_path / "log").read_text().splitlines()
    assert re.search(r"warning logger\[\d+\] log written again lost=10 why='No space", lines[0])
    assert [line.partition("] ")[2] for line in lines[1:]] == ["kept", "and more"]
    assert writer.lost == 10


def test_who_does_not_read_holds_up_nobody_and_costs_no_memory() -> None:
    reader, pipe = os.pipe()
    writer = Writer(Target(pipe), lambda: None)
    begun = time.monotonic()
    for _ in range(100):
        writer.put([entry("x" * 1000)] * 1000)
    assert time.monotonic() - begun < SECONDS
    assert writer.lost >= 100_000 - 2 * MOST_BYTES // 1000
    assert writer.why == TOO_SLOW
    os.set_blocking(reader, False)

    def is_over() -> bool:
        with suppress(BlockingIOError):
            os.read(reader, 1 << 20)
        writer.close(0)
        return not writer._thread.is_alive()

    eventually(is_over, SECONDS)
    os.close(pipe)
    os.close(reader)


@pytest.mark.parametrize("change", ["gone", "replaced"])
def test_a_file_that_is_gone_or_replaced_is_asked_for(tmp_path: Path, change: str) -> None:
    path, moved = tmp_path / "log", list[int]()
    with path.open("ab") as file:
        writer = Writer(Target(file.fileno(), path=path), lambda: moved.append(1))
        path.rename(tmp_path / "log.1")
        if change == "replaced":
            path.touch()
        writer.put([entry("one")])
        writer.close(SECONDS)
    assert moved == [1]


def test_a_file_that_is_there_is_not_asked_for(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", list[int]()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with path.open("ab") as file:
        for name in (path, link):
            writer = Writer(Target(file.fileno(), path=name), lambda: moved.append(1))
            writer.put([entry("one")])
            writer.close(SECONDS)
    assert not moved
