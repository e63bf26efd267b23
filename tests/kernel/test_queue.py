"""procd.ipc.Queue as a library of its own, and ftok against libc's."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest
import sysv_ipc

from procd import ipc
from procd.ipc import (
    MessageTooBig,
    Queue,
    QueueDenied,
    QueueEmpty,
    QueueError,
    QueueExists,
    QueueFull,
    QueueGone,
    ftok,
)
from tests.kernel import queues
from tests.kernel.forked import NOBODY, Say, as_nobody, forked, needs_root, outcome


@pytest.fixture(autouse=True)
def _no_queue_is_left() -> Iterator[None]:
    with queues.no_queue_left():
        yield


@pytest.fixture(name="queue")
def made_queue() -> Iterator[Queue]:
    queue = Queue.create()
    yield queue
    queue.remove()


def fill(queue: Queue) -> None:
    with contextlib.suppress(QueueFull):
        while True:
            queue.send(b"x" * 1000, timeout=0)


# ---------------------------------------------------------------- sending and receiving


def test_two_handles_of_one_key_meet(queue: Queue) -> None:
    Queue.open(queue.key, "w").send(b"hello", mtype=3)
    assert Queue.open(queue.key, "r").receive() == (b"hello", 3)
    assert queue.messages == 0


def test_a_type_is_selected_as_msgrcv_does(queue: Queue) -> None:
    for mtype in (9, 4, 2):
        queue.send(b"", mtype)
    assert queue.receive(4) == (b"", 4)
    assert queue.receive(-9) == (b"", 2)
    assert queue.receive() == (b"", 9)


def test_data_is_bytes_only(queue: Queue) -> None:
    text: Any = "text"
    with pytest.raises(TypeError, match="bytes"):
        queue.send(text)


def test_what_can_never_fit_does_not_wait(queue: Queue) -> None:
    with pytest.raises(MessageTooBig):
        queue.send(b"x" * 8193)


def test_every_error_is_exported_and_is_a_queue_error() -> None:
    names = {name for name in ipc.__all__ if name.startswith("Queue")} - {"Queue", "QueueStat"}
    assert len(names) == 6
    assert all(issubclass(getattr(ipc, name), QueueError) for name in names)


# ---------------------------------------------------------------- waiting


def test_no_timeout_at_all_tries_once(queue: Queue) -> None:
    with pytest.raises(QueueEmpty):
        queue.receive(timeout=0)
    fill(queue)
    with pytest.raises(QueueFull):
        queue.send(b"x" * 1000, timeout=0)


@pytest.mark.parametrize("seconds", [0.001, 0.05])
def test_a_timeout_is_waited_out_and_not_much_longer(queue: Queue, seconds: float) -> None:
    begin = time.monotonic()
    with pytest.raises(QueueEmpty):
        queue.receive(timeout=seconds)
    fill(queue)
    with pytest.raises(QueueFull):
        queue.send(b"x" * 1000, timeout=seconds)
    assert 2 * seconds <= time.monotonic() - begin < 2 * seconds + 1


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan])
def test_a_timeout_that_is_no_time_is_refused(queue: Queue, seconds: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        queue.receive(timeout=seconds)


def test_without_a_timeout_a_reader_waits_for_the_message(queue: Queue) -> None:
    def body(say: Say) -> object:
        say("waiting")
        return queue.receive(5)

    with forked(body) as child:
        assert child.line() == "waiting"
        queue.send(b"other", 4)
        queue.send(b"mine", 5)
        assert child.line() == "(b'mine', 5)"
    assert queue.receive(timeout=0) == (b"other", 4)


def test_a_sender_waits_for_room(queue: Queue) -> None:
    fill(queue)

    def body(say: Say) -> object:
        say("waiting")
        queue.send(b"y" * 1000)
        return "sent"

    with forked(body) as child:
        assert child.line() == "waiting"
        assert queue.receive()[0] == b"x" * 1000
        assert child.line() == "sent"
    assert queue.messages == 16


def test_a_waiting_reader_learns_that_the_queue_is_gone() -> None:
    queue = Queue.create()

    def body(say: Say) -> None:
        say("waiting")
        queue.receive()

    with forked(body) as child:
        assert child.line() == "waiting"
        queue.remove()
        assert child.line().startswith("QueueGone")


class Stopped(Exception):
    """What the handler of the alarm raises."""


def stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise Stopped


def test_no_signal_is_lost_however_close_before_the_wait_it_comes(queue: Queue) -> None:
    """msgrcv(2) itself would sleep on for ever in some of these rounds."""
    rng = random.Random(2)

    def receive_under_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 3e-4))
        queue.receive()

    old = signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(300):
            with pytest.raises(Stopped):
                receive_under_alarm()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


# ---------------------------------------------------------------- making and finding


def test_a_queue_of_a_known_key_is_made_once(queue: Queue) -> None:
    with pytest.raises(QueueExists):
        Queue.create(queue.key)


def test_a_queue_that_is_not_there_is_not_opened() -> None:
    with pytest.raises(QueueGone):
        Queue.open(queues.free_key())


def test_a_queue_of_ones_own_is_shared_if_it_is_no_wider_than_asked_for() -> None:
    key = queues.free_key()
    queue = Queue.create(key, 0o660, exist_ok=True)
    try:
        assert Queue.create(key, 0o660, exist_ok=True).id == queue.id
        assert Queue.create(key, 0o666, exist_ok=True).id == queue.id
        with pytest.raises(QueueDenied, match="mode 0660, wider than 0600"):
            Queue.create(key, exist_ok=True)
    finally:
        queue.remove()


@needs_root
@pytest.mark.parametrize("given_away", [False, True])
def test_a_queue_of_another_user_is_not_shared(given_away: bool) -> None:  # noqa: FBT001 - a case
    key = queues.free_key()

    def squat() -> object:
        squatted = sysv_ipc.MessageQueue(key, sysv_ipc.IPC_CREX, 0o600)
        if given_away:
            # Its creator keeps the rights of an owner.
            squatted.uid = 0
        return squatted.uid

    assert outcome(as_nobody(squat)) == repr(0 if given_away else NOBODY)
    try:
        with pytest.raises(QueueDenied, match=f"belongs to uid {NOBODY}, not to 0"):
            Queue.create(key, exist_ok=True)
    finally:
        Queue.open(key).remove()


@needs_root
def test_access_is_what_the_mode_gives() -> None:
    queue = Queue.create(mode=0o622)

    def use() -> object:
        Queue.open(queue.key, "w").send(b"written")
        try:
            Queue.open(queue.key)
        except QueueDenied:
            return "denied"
        return "opened"

    try:
        assert outcome(as_nobody(use)) == repr("denied")
        assert queue.receive() == (b"written", 1)
    finally:
        queue.remove()


def test_a_queue_tells_its_size_mode_and_owner(queue: Queue) -> None:
    assert queue.bytes_max > 0
    assert queue.mode == 0o600
    assert queue.owner_uid == os.geteuid()
    assert f"{queue.key:08x}" in repr(queue)


def test_removing_twice_is_no_error(queue: Queue) -> None:
    queue.remove()
    queue.remove()
    with pytest.raises(QueueGone):
        queue.send(b"x")


# ---------------------------------------------------------------- ftok


def test_ftok_is_that_of_libc(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    paths = [tmp_path / f"file{number}" for number in range(20)]
    for path in paths:
        path.touch()
    for path in (*paths, Path("/"), Path("/proc"), tmp_path, Path("/dev/null")):
        for proj in (1, 65, 0x7F, 0x80, 0xFF, 0x1FF, -1):
            assert ftok(path, proj) == libc.ftok(os.fsencode(path), proj)


def test_ftok_takes_the_letter_that_php_takes(tmp_path: Path) -> None:
    assert ftok(tmp_path, "a") == ftok(str(tmp_path), ord("a"))


def test_ftok_of_a_replaced_file_is_another_key(tmp_path: Path) -> None:
    path, new = tmp_path / "key", tmp_path / "key.new"
    path.touch()
    before = ftok(path, "a")
    new.touch()
    new.rename(path)
    assert ftok(path, "a") != before


def test_ftok_fails_where_libcs_says_minus_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ftok(tmp_path / "none", "a")


@pytest.mark.parametrize("proj", [0, 256, "\0"])
def test_ftok_refuses_a_project_of_zero(tmp_path: Path, proj: int | str) -> None:
    with pytest.raises(ValueError, match="project"):
        ftok(tmp_path, proj)
