"""The record by which a command finds its service."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from procd.errors import ProcdError
from procd.linux import process
from procd.service import record
from tests.kernel.forked import NOBODY, forked, needs_root, outcome, wait_for_ever


@pytest.fixture(name="config")
def config_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config whose records lie below tmp_path, whoever runs the tests."""
    for name in ("system", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(record, "_SYSTEM", tmp_path / "system" / "procd")
    monkeypatch.setattr(record, "_own_folders", lambda: iter([tmp_path / "tmp" / "procd"]))
    return tmp_path / "procd.yaml"


def write(config: Path, pid: int | None = None, pid_file: Path | None = None) -> None:
    pid = pid or os.getpid()
    record.write(config, pid, process.start_time(pid), config.parent / "run", pid_file)


def file_of(config: Path) -> Path:
    (found,) = (config.parent / "tmp" / "procd").iterdir()
    return found


def test_a_record_is_read_as_it_was_written(config: Path) -> None:
    write(config, pid_file=Path("/run/app/master.pid"))
    found = record.read(config)
    assert found == record.Record(
        config_path=config,
        pid=os.getpid(),
        start_time=process.start_time(os.getpid()) or 0,
        run_dir=config.parent / "run",
        pid_file=Path("/run/app/master.pid"),
        alive=True,
        uid=os.geteuid(),
    )


def test_there_is_no_record_before_one_is_written(config: Path) -> None:
    assert record.read(config) is None
    record.remove(config, os.getpid())


def test_a_service_without_a_pid_file_has_none_in_its_record(config: Path) -> None:
    write(config)
    found = record.read(config)
    assert found is not None
    assert found.pid_file is None


def test_the_record_of_a_killed_master_says_dead(config: Path) -> None:
    with forked(wait_for_ever) as child:
        assert child.line() == "ready"
        write(config, child.pid)
        found = record.read(config)
        assert found is not None
        assert found.alive
        child.kill()
    found = record.read(config)
    assert found is not None
    assert not found.alive


def test_a_reused_pid_is_not_the_master(config: Path) -> None:
    start = process.start_time(os.getpid())
    assert start is not None
    record.write(config, os.getpid(), start - 1, config.parent, None)
    found = record.read(config)
    assert found is not None
    assert not found.alive


def test_without_a_start_time_nothing_is_written(config: Path) -> None:
    record.write(config, os.getpid(), None, config.parent, None)
    assert record.read(config) is None


def test_each_config_has_its_own_record(config: Path) -> None:
    other = config.with_name("other.yaml")
    write(config)
    write(other, os.getppid())
    one, two = record.read(config), record.read(other)
    assert one is not None
    assert two is not None
    assert (one.pid, two.pid) == (os.getpid(), os.getppid())


def test_a_config_is_the_same_from_any_folder(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    write(Path("./run/../procd.yaml"))
    monkeypatch.chdir("/")
    found = record.read(config)
    assert found is not None
    assert found.config_path == config


def test_a_symbolic_link_to_a_config_is_a_service_of_its_own(config: Path) -> None:
    config.touch()
    link = config.with_name("link.yaml")
    link.symlink_to(config)
    write(link)
    assert record.read(config) is None
    assert record.read(link) is not None


def test_the_next_master_replaces_the_record_of_the_last(config: Path) -> None:
    write(config, os.getppid())
    write(config)
    found = record.read(config)
    assert found is not None
    assert found.pid == os.getpid()
    file_of(config)  # one file, and no temporary


def test_only_the_master_that_left_it_removes_a_record(config: Path) -> None:
    write(config)
    record.remove(config, os.getppid())
    assert record.read(config) is not None
    record.remove(config, os.getpid())
    assert record.read(config) is None


GOOD = {"config_path": "", "pid": 1, "start_time": 1, "run_dir": "/r", "pid_file": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\0",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'"text"',
        json.dumps({**GOOD, "pid": "1"}).encode(),
        json.dumps({**GOOD, "pid": -1}).encode(),
        json.dumps({**GOOD, "pid": 10**4000}).encode(),
        json.dumps({**GOOD, "start_time": None}).encode(),
        json.dumps({**GOOD, "run_dir": ["/r"]}).encode(),
        json.dumps({**GOOD, "config_path": "/another"}).encode(),
        json.dumps({"pid": 1}).encode(),
    ],
)
def test_garbage_is_no_record_and_is_overwritten(config: Path, content: bytes) -> None:
    write(config)
    file_of(config).write_bytes(
        content.replace(b'"config_path": ""', b'"config_path": "%b"' % bytes(config))
    )
    assert record.read(config) is None
    write(config)
    assert record.read(config) is not None


def test_a_record_may_have_more_in_it_than_this_version_knows(config: Path) -> None:
    write(config)
    path = file_of(config)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": [1]}))
    assert record.read(config) is not None


def test_what_is_no_file_is_no_record(config: Path) -> None:
    write(config)
    path = file_of(config)
    path.unlink()
    os.mkfifo(path)
    assert record.read(config) is None
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert record.read(config) is None


# ---------------------------------------------------------------- folders


def test_a_folder_that_others_can_write_is_not_believed(config: Path) -> None:
    write(config)
    file_of(config).parent.chmod(0o777)
    assert record.read(config) is None
    with pytest.raises(ProcdError, match="not this user's own folder"):
        write(config)


@needs_root
def test_a_folder_of_another_user_is_not_believed(config: Path) -> None:
    write(config)
    os.chown(file_of(config).parent, NOBODY, NOBODY)
    assert record.read(config) is None
    with pytest.raises(ProcdError, match="not this user's own folder"):
        write(config)


def test_a_link_in_place_of_the_folder_is_not_believed(config: Path) -> None:
    elsewhere = config.parent / "elsewhere"
    elsewhere.mkdir(0o700)
    (config.parent / "tmp" / "procd").symlink_to(elsewhere)
    with pytest.raises(ProcdError, match=str(config)):
        write(config)
    assert list(elsewhere.iterdir()) == []


def test_a_user_sees_the_record_of_a_service_of_root(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_own_folders", lambda: iter([record._SYSTEM]))
    write(config)
    monkeypatch.setattr(record, "_own_folders", lambda: iter([config.parent / "tmp" / "procd"]))
    found = record.read(config)
    assert found is not None
    assert found.alive


def folders(uid: int, session: str | None) -> Callable[[], list[str]]:
    def body() -> list[str]:
        os.setresuid(uid, uid, uid)
        os.environ.pop("XDG_RUNTIME_DIR", None)
        if session is not None:
            os.environ["XDG_RUNTIME_DIR"] = session
        return [str(folder) for folder in record._own_folders()]

    return body


@needs_root
def test_records_lie_where_the_user_and_nobody_else_can_write() -> None:
    assert outcome(folders(0, "/run/user/0")) == repr(["/run/procd", "/tmp/procd-0"])
    assert outcome(folders(1234, "/run/user/1234")) == repr(
        ["/run/user/1234/procd", "/tmp/procd-1234"]
    )
    assert outcome(folders(1234, None)) == repr(["/tmp/procd-1234"])
    assert outcome(folders(1234, "")) == repr(["/tmp/procd-1234"])


@needs_root
def test_without_a_session_a_user_gets_a_private_folder_in_tmp() -> None:
    uid = 54321
    folder = Path(f"/tmp/procd-{uid}")

    def body() -> object:
        os.setresuid(uid, uid, uid)
        os.environ["XDG_RUNTIME_DIR"] = "/nowhere"
        config = Path("/etc/procd.yaml")
        write(config)
        found = record.read(config)
        mode = stat.S_IMODE(folder.stat().st_mode)
        record.remove(config, os.getpid())
        return found is not None and found.alive, oct(mode), list(folder.iterdir())

    try:
        assert outcome(body) == repr((True, "0o700", []))
    finally:
        folder.rmdir()
