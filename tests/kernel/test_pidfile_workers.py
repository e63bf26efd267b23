"""The workers' pid file: a list that a reader never sees half written."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from procd.errors import ProcdError
from procd.master import pidfile
from tests.kernel.forked import Say, forked, outcome


def test_workers_stand_one_a_line_in_the_order_given(tmp_path: Path) -> None:
    path = tmp_path / "worker.pid"
    umask = os.umask(0o077)
    try:
        pidfile.write_worker_pids(path, [30, 10, 20])
    finally:
        os.umask(umask)
    assert path.read_text() == "30\n10\n20\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    pidfile.write_worker_pids(path, [])
    assert path.read_text() == ""
    assert os.listdir(tmp_path) == ["worker.pid"]


def test_a_reader_of_the_workers_sees_a_whole_list(tmp_path: Path) -> None:
    path = tmp_path / "worker.pid"
    lists = [list(range(1, 2000)), list(range(5000, 9000))]
    pidfile.write_worker_pids(path, lists[0])

    def body(say: Say) -> None:
        say("ready")
        while True:
            for pids in lists:
                pidfile.write_worker_pids(path, pids)

    with forked(body) as writer:
        assert writer.line() == "ready"
        for _ in range(200):
            assert [int(line) for line in path.read_text().split()] in lists


def test_the_temporary_of_a_killed_master_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / ".worker.pid.new").symlink_to("/etc/passwd")
    pidfile.write_worker_pids(tmp_path / "worker.pid", [1])
    assert os.listdir(tmp_path) == ["worker.pid"]


def test_a_list_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "worker.pid"
    pidfile.write_worker_pids(path, [1])

    def body() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        pidfile.write_worker_pids(path, [2])

    assert outcome(body).startswith("ProcdError")
    assert path.read_text() == "1\n"
    assert os.listdir(tmp_path) == ["worker.pid"]


def test_bad_places_of_the_list_are_one_clear_line(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ProcdError, match="it is a folder"):
        pidfile.write_worker_pids(folder, [1])
    with pytest.raises(ProcdError, match="none does not exist: create it"):
        pidfile.write_worker_pids(tmp_path / "none" / "worker.pid", [1])
    assert os.listdir(tmp_path) == ["folder"]


def test_a_removed_list_is_gone_and_none_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "worker.pid"
    pidfile.write_worker_pids(path, [1])
    pidfile.remove(path)
    assert not path.exists()
    pidfile.remove(path)
    pidfile.remove(None)
    pidfile.write_worker_pids(None, [1])
