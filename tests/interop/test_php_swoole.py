"""Swoole's two headers as PHP packs them, byte for byte beside ours."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from procd.ipc import Queue, SwooleTask
from procd.ipc.foreign import php as codec
from procd.ipc.foreign.swoole import TaskMessage, TmpFile, build, parse
from tests.interop import php

DATA: list[object] = ["Hello from PHP!", {"n": 7, "list": [1, 2.5, None]}, "x" * 10000]


def sent(queue: Queue) -> list[tuple[bytes, int]]:
    return [queue.receive(timeout=0) for _ in DATA]


def value_of(message: TaskMessage) -> object:
    """What a task worker would get; the file is read and deleted, as Swoole does."""
    body = message.body
    if isinstance(body, TmpFile):
        path = Path(os.fsdecode(body.path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = path.read_bytes()
        path.unlink()
        assert len(content) == body.data_bytes
        body = content
    return codec.load(body) if message.is_serialized else body.decode()


def test_the_short_header_is_what_php_packs() -> None:
    numbers = [(1, 15, 0, 4), (2**31 - 1, 65535, -1, 7), (-5, 0, 300, 128)]
    for task_id, length, worker, flags in numbers:
        packed = php.evaluate(
            "echo bin2hex(pack('lSsCCS', $argv[1], $argv[2], $argv[3], 7, 0, $argv[4]));",
            *map(str, (task_id, length, worker, flags)),
        )
        body: Any = TmpFile(b"/x", 1) if flags & 1 else b"x" * length
        ours = build(TaskMessage(task_id, body, flags, worker), 12)[:12]
        theirs = bytes.fromhex(packed)
        # With a file, the length is 152 whatever was sent.
        assert ours == (theirs[:4] + b"\x98\0" + theirs[6:] if flags & 1 else theirs)


@pytest.mark.parametrize("size", [12, 40])
def test_the_client_in_php_sends_what_ours_sends(queue: Queue, tmp_path: Path, size: Any) -> None:
    done = php.run("swoole_client.php", str(queue.key), str(tmp_path), str(size), "1")
    assert (done.returncode, done.stdout) == (0, "1\n2\n3\n"), done
    theirs = sent(queue)
    tasks = SwooleTask(queue, header_bytes=size, tmpdir=tmp_path)
    for data in DATA:
        tasks.dispatch(data, 1)
    ours = sent(queue)
    for (their_data, their_type), (our_data, our_type) in zip(theirs, ours, strict=True):
        assert their_type == our_type == 2
        them, us = parse(their_data)[0], parse(our_data)[0]
        assert (them.task_id, them.flags, them.event) == (us.task_id, us.flags, us.event)
        if not isinstance(us.body, TmpFile):
            head = 32 if size == 40 else size  # behind it the time of sending
            assert their_data[:head] + their_data[size:] == our_data[:head] + our_data[size:]
        assert value_of(them) == value_of(us) == DATA[us.task_id - 1]
    assert list(tmp_path.iterdir()) == []


def test_the_client_in_php_refuses_a_queue_that_nobody_made(tmp_path: Path) -> None:
    done = php.run("swoole_client.php", "822133180", str(tmp_path))
    assert done.returncode == 255
    assert "is the server running" in done.stdout + done.stderr


def test_the_clients_have_the_same_limit_for_what_a_message_holds(queue: Queue) -> None:
    code = """
        require $argv[2] . '/SwooleTask.php';
        $tasks = new SwooleTask((int) $argv[1], (int) $argv[3]);
        echo $tasks->dispatch(str_repeat('x', 8192 - $argv[3] - 1), 0), ' ';
        try { $tasks->dispatch(str_repeat('x', 8192 - $argv[3]), 0); }
        catch (LengthException $e) { echo $e->getMessage(); }
    """
    for size in (12, 40):
        printed = php.evaluate(code, str(queue.key), str(php.EXAMPLES), str(size))
        assert printed == "1 too long for a message, and no tmpdir was named"
        message, found = parse(queue.receive(1, timeout=0)[0])
        assert isinstance(message.body, bytes)
        assert (len(message.body), found) == (8191 - size, size)
