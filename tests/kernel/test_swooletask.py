"""SwooleTask: what stands in the queue, and in the file beside it, after a dispatch."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procd.errors import MessageTooBig
from procd.ipc import Queue, QueueFull, QueueGone, SwooleTask
from procd.ipc.foreign import php
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile, inline_max, parse
from tests.kernel import queues

both_headers = pytest.mark.parametrize("size", [12, 40])
REPLY = {12: Flag(0), 40: Flag.NOREPLY}


@pytest.fixture(name="queue")
def made_queue() -> Iterator[Queue]:
    with queues.no_queue_left():
        queue = Queue.create()
        yield queue
        queue.remove()


def received(queue: Queue, mtype: int) -> tuple[TaskMessage, int]:
    return parse(queue.receive(mtype, timeout=0)[0])


def file_of(message: TaskMessage) -> Path:
    assert isinstance(message.body, TmpFile)
    return Path(os.fsdecode(message.body.path))


@both_headers
def test_a_text_goes_as_it_is_and_a_value_as_php_has_it(queue: Queue, size: Any) -> None:
    tasks = SwooleTask(queue, header_bytes=size, src_worker_id=3)
    begin = time.time()
    ids = []
    for data, body, kind in (
        ("Hello", b"Hello", Flag(0)),
        (b"\xff", b"\xff", Flag(0)),
        ({"n": [1, None]}, php.dump({"n": [1, None]}), Flag.SERIALIZE),
        (7, b"i:7;", Flag.SERIALIZE),
    ):
        ids.append(tasks.dispatch(data, dst_worker_id=1))
        message, found = received(queue, 2)
        assert (message.task_id, message.body, found) == (ids[-1], body, size)
        assert message.flags == Flag.NONBLOCK | kind | REPLY[size]
        assert (message.src_worker_id, message.event) == (3, 7)
        assert message.time == 0 if size == 12 else begin <= message.time <= time.time()
    assert ids == [1, 2, 3, 4]


@both_headers
def test_what_is_too_large_goes_into_a_file_of_ones_own(
    queue: Queue, tmp_path: Path, size: Any
) -> None:
    tasks = SwooleTask(queue, header_bytes=size, tmpdir=tmp_path)
    old = os.umask(0)
    try:
        tasks.dispatch(b"x" * inline_max(size), 1)
        tasks.dispatch(b"y" * (inline_max(size) + 1), 1)
        tasks.dispatch(["z" * 100_000], 1)
    finally:
        os.umask(old)
    assert received(queue, 2)[0].body == b"x" * inline_max(size)
    for content in (b"y" * (inline_max(size) + 1), php.dump(["z" * 100_000])):
        message, _ = received(queue, 2)
        path = file_of(message)
        assert path.parent == tmp_path
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert message.body == TmpFile(os.fsencode(path), len(content))
        assert message.flags & Flag.TMPFILE


@both_headers
def test_without_a_folder_it_is_refused(queue: Queue, size: Any) -> None:
    tasks = SwooleTask(queue, header_bytes=size)
    with pytest.raises(MessageTooBig, match="name a tmpdir"):
        tasks.dispatch(b"x" * (inline_max(size) + 1), 1)
    assert queue.messages == 0


def test_a_task_that_is_not_sent_leaves_no_file(queue: Queue, tmp_path: Path) -> None:
    tasks = SwooleTask(queue, tmpdir=tmp_path)
    queue.set(bytes_max=400)
    tasks.dispatch(b"x" * 9000, 1)
    with pytest.raises(QueueFull):
        tasks.dispatch(b"x" * 9000, 1, timeout=0)
    queue.remove()
    with pytest.raises(QueueGone):
        tasks.dispatch(b"x" * 9000, 1)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_whose_name_swoole_has_no_room_for_is_refused(
    queue: Queue, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 150)
    deep.mkdir()
    with pytest.raises(ValueError, match="too long a path for Swoole"):
        SwooleTask(queue, header_bytes=12, tmpdir=deep).dispatch(b"x" * 9000, 1)
    assert list(deep.iterdir()) == []
    SwooleTask(queue, header_bytes=40, tmpdir=deep).dispatch(b"x" * 9000, 1)
    assert file_of(received(queue, 2)[0]).parent == deep


def test_a_folder_that_is_not_there_is_an_error_of_the_file(queue: Queue, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SwooleTask(queue, tmpdir=tmp_path / "none").dispatch(b"x" * 9000, 1)


def test_arguments_that_make_no_sense_are_refused(queue: Queue) -> None:
    wrong: Any = 16
    with pytest.raises(ValueError, match="12 or 40"):
        SwooleTask(queue, header_bytes=wrong)
    with pytest.raises(ValueError, match="absolute"):
        SwooleTask(queue, tmpdir="here")
    with pytest.raises(ValueError, match="worker id"):
        SwooleTask(queue).dispatch("x", -1)
    with pytest.raises(TypeError, match="a set cannot be sent to PHP"):
        SwooleTask(queue).dispatch({1}, 1)
    assert queue.messages == 0
