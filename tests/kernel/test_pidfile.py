"""The master's pid file as a lock, and the workers' as a list, on a real file system."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from procd.errors import AlreadyRunning, ProcdError
from procd.master import pidfile
from procd.master.pidfile import MasterPidFile
from tests.kernel.forked import NOBODY, Say, forked, needs_root, outcome, wait_for_ever


@pytest.fixture(name="path")
def place(tmp_path: Path) -> Path:
    return tmp_path / "master.pid"


def master(path: Path, pid: int | None = None) -> Callable[[Say], None]:
    """A body of a child that is the master of *path*; its pid may be another than it says."""

    def body(say: Say) -> None:
        file = MasterPidFile(path)
        file.acquire()
        file.write(pid or os.getpid())
        wait_for_ever(say)

    return body


def acquire(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    file.release()


# ---------------------------------------------------------------- one master


def test_a_master_leaves_its_pid_and_takes_it_away(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    file.write(12345)
    assert path.read_text() == "12345\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    file.release()
    assert not path.exists()
    assert file.fd is None
    file.release()  # twice is no error


def test_a_shorter_pid_leaves_nothing_of_a_longer_one(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    file.write(4194304)
    file.write(7)
    assert path.read_text() == "7\n"
    file.release()


def test_a_second_master_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    with forked(master(path)) as first:
        assert first.line() == "ready"
        with pytest.raises(AlreadyRunning, match=f"process {first.pid} holds {path}"):
            MasterPidFile(path).acquire()
        assert path.read_text() == f"{first.pid}\n"


def test_a_holder_that_has_not_written_its_pid_yet_is_named_all_the_same(path: Path) -> None:
    def body(say: Say) -> None:
        MasterPidFile(path).acquire()
        wait_for_ever(say)

    with forked(body) as first:
        # The pid in the file is empty; the object is gone, its fd stays open.
        assert first.line() == "ready"
        with pytest.raises(AlreadyRunning, match=f"process {first.pid} "):
            MasterPidFile(path).acquire()


def test_after_kill_9_of_the_master_the_next_one_takes_over_at_once(path: Path) -> None:
    with forked(master(path)) as first:
        assert first.line() == "ready"
        first.kill()
        assert path.exists()
        acquire(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"1\n", b"999999999\n", b"-1", b"0", b"\xff\0\xfe", b"12 13", b"x" * 100_000, b"9" * 500],
)
def test_whatever_stands_in_an_unlocked_file_is_overwritten(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert pidfile.running_pid(path) is None
    file = MasterPidFile(path)
    file.acquire()
    file.write(os.getpid())
    assert path.read_text() == f"{os.getpid()}\n"
    file.release()


def test_a_reused_pid_is_no_master(path: Path) -> None:
    path.write_text(f"{os.getppid()}\n")  # alive, and a stranger
    assert pidfile.running_pid(path) is None
    acquire(path)


def test_a_lock_of_somebody_who_only_asks_does_not_refuse_a_start(path: Path) -> None:
    path.write_text(f"{os.getpid()}\n")
    with forked(lambda say: _ask_for_ever(path, say)) as asker:
        assert asker.line() == "ready"
        for _ in range(200):
            file = MasterPidFile(path)
            file.acquire()
            file.write(os.getpid())
            if file.fd is not None:
                os.close(file.fd)  # as by kill -9: the content stays, and is asked about


def _ask_for_ever(path: Path, say: Say) -> None:
    say("ready")
    while True:
        pidfile.running_pid(path)


def test_a_forked_child_holds_the_lock_until_it_closes_the_fd(path: Path) -> None:
    def body(say: Say) -> None:
        file = MasterPidFile(path)
        file.acquire()
        close_reader, close_writer = os.pipe()
        if os.fork() == 0:
            os.close(close_writer)
            os.read(close_reader, 1)  # until the master is dead
            say(_is_free(path))
            if file.fd is not None:
                os.close(file.fd)
            say(_is_free(path))
            os._exit(0)
        os.close(close_reader)
        wait_for_ever(say)

    with forked(body) as first:
        assert first.line() == "ready"
        first.kill()
        assert first.line() == "False"
        assert first.line() == "True"


def _is_free(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_the_fd_is_not_inherited_over_exec(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    assert file.fd is not None
    assert not os.get_inheritable(file.fd)
    file.release()


def test_a_file_that_somebody_else_put_there_is_not_removed(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    path.unlink()
    path.write_text("precious")
    file.release()
    assert path.read_text() == "precious"


def test_a_file_removed_by_somebody_is_made_anew(path: Path) -> None:
    file = MasterPidFile(path)
    file.acquire()
    path.unlink()
    file.release()
    acquire(path)


def test_no_path_means_no_file() -> None:
    file = MasterPidFile(None)
    file.acquire()
    file.write(1)
    assert file.fd is None
    file.release()


# ---------------------------------------------------------------- who asks


def test_the_running_pid_is_that_of_the_holder(path: Path) -> None:
    with forked(master(path)) as first:
        assert first.line() == "ready"
        assert pidfile.running_pid(path) == first.pid
        first.kill()
        assert pidfile.running_pid(path) is None


def test_a_locked_file_with_a_dead_pid_names_nobody(path: Path) -> None:
    with forked(master(path, pid=2**22 - 1)) as first:
        assert first.line() == "ready"
        assert pidfile.running_pid(path) is None


def test_there_is_no_running_pid_without_a_file(path: Path) -> None:
    assert pidfile.running_pid(path) is None
    assert pidfile.running_pid(path / "below" / "nothing") is None
    assert pidfile.running_pid(path.parent) is None


# ---------------------------------------------------------------- bad places


def one_line(body: Callable[[], object]) -> str:
    with pytest.raises(ProcdError) as caught:
        body()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_in_its_place_is_named(path: Path) -> None:
    path.mkdir()
    assert f"{path}: it is a folder" in one_line(lambda: acquire(path))


def test_a_missing_folder_is_named(path: Path) -> None:
    below = path / "run" / "master.pid"
    assert f"{below.parent} does not exist" in one_line(lambda: acquire(below))


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    target = path.with_name("precious")
    target.write_text("precious")
    path.symlink_to(target)
    assert "symbolic link" in one_line(lambda: acquire(path))
    assert target.read_text() == "precious"
    assert pidfile.running_pid(path) is None


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_file_is_neither_opened_nor_waited_for(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    else:
        path = Path("/dev/null")
    assert "no regular file" in one_line(lambda: acquire(path))
    assert pidfile.running_pid(path) is None


@needs_root
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    def body() -> None:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        acquire(Path("/etc/master.pid"))

    said = outcome(body)
    assert said.startswith("ProcdError")
    assert f"uid {NOBODY} may not write it in /etc" in said
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_is_one_clear_line(path: Path) -> None:
    def body() -> None:
        file = MasterPidFile(path)
        file.acquire()
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        file.write(os.getpid())

    said = outcome(body)
    assert said.startswith("ProcdError")
    assert f"{path}: File too large" in said
