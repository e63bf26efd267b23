"""The benches run, without the peers that they would have to install; and a little torture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench import rounds, servers
from tests.service.daemon import REPOSITORY


def test_procd_and_the_bare_limit_are_measured_in_one_run(tmp_path: Path) -> None:
    found, picture = tmp_path / "out.json", tmp_path / "out.svg"

    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.reload", "--apps", "tiny", "--rounds", "1"),
            *("--only", "procd", "--json", found, "--picture", picture),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert done.returncode in {0, 1}, done.stderr  # 1: too slow, which a noisy machine may be
    rows: list[dict[str, Any]] = json.loads(found.read_text())["results"]
    assert [row["name"] for row in rows] == ["procd", "procd HUP", "bare fork and import"]
    assert all(row["error"] == "" and row["missed"] == 0 for row in rows), rows
    assert all(row["median"] > 0 for row in rows), rows
    for row in rows[:2]:
        assert (row["failed"], row["requests"] > 0) == (0, True), row
        assert set(row["pss"]) == {"2", "4"}, row
        assert len(row["cold"]) == 1, row
        assert f"| {row['name']}" in done.stdout
    assert "<svg" in picture.read_text()
    assert not with_temporary_folder(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path not in {found, picture}]


def with_temporary_folder(folder: Path) -> list[psutil.Process]:
    """Every process that was started with it, servers and their children."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended meanwhile
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process)
    return found


def test_a_peer_that_is_not_there_is_a_row_that_says_so() -> None:
    kind = servers.Kind("nobody", "no_such_server", "", lambda _port, _workers: [])

    result, _ = rounds.race("tiny", (kind,), 1)

    assert (result.error, result.saves) == ("not installed", [])


def test_a_peer_that_does_not_start_is_a_row_with_its_last_words() -> None:
    kind = servers.Kind("broken", "this", "", lambda _port, _workers: ["this"])

    result, _ = rounds.race("tiny", (kind,), 1)

    assert "Namespaces are one honking great idea" in result.error


def test_the_three_tiers_are_measured_beside_the_bare_limit() -> None:
    words = ("bench.tasktable", "--rounds", "1", "--seconds", "0.1", "--only", "procd")

    done = ran(*words)

    assert done.returncode in {0, 1}, done.stderr  # 1: too slow, as above
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    names = [cells[1].strip() for cells in rows]
    tiers = ["procd, at_least_once", "procd, at_most_once", "procd, durable"]
    assert names == ["", "bare: sysv_ipc out, SEQPACKET back", *tiers]
    assert all(float(cells[2].replace(",", "")) > 0 for cells in rows[1:]), done.stdout


def test_no_task_is_lost_in_a_fiftieth_of_the_torture() -> None:
    done = ran("bench.torture", "--divide", "50", "tiers", "power")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 of 13 promises kept" in done.stdout


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
