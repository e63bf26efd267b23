"""Answers to foreign programs, from a running service, and what may not disturb them."""

from __future__ import annotations

import pytest

from procd.ipc import Queue
from procd.ipc.foreign import envelope, php
from procd.ipc.foreign.envelope import Envelope, Status
from procd.ipc.foreign.swoole import Flag, TaskMessage, TmpFile, build
from tests.service.ingress import SECONDS, Foreign, page, rejected, seen, why

TYPE = 2**22 + 77


def ask(queue: Queue, value: object, number: int, reply_type: int = TYPE) -> None:
    body = php.dump(value)
    data = envelope.build(Envelope("php", Status.REQUEST, reply_type, number, body))
    queue.send(data, 1, timeout=SECONDS)


def answer(queue: Queue, reply_type: int = TYPE) -> tuple[int, Status, object]:
    found = envelope.parse(queue.receive(reply_type, timeout=SECONDS)[0])
    return found.number, found.status, php.load(found.body)


def test_a_request_in_an_envelope_is_answered_in_one(foreign: Foreign) -> None:
    _, queue = foreign()
    ask(queue, {"n": [1, 2]}, 5)
    assert answer(queue) == (5, Status.RESULT, {"n": [1, 2]})
    ask(queue, "fail badly", 6)
    number, status, text = answer(queue)
    assert (number, status) == (6, Status.FAILURE)
    assert str(text).startswith("ValueError: badly")
    ask(queue, "big 9000", 7)
    number, status, text = answer(queue)
    assert (number, status, "too large for a message" in str(text)) == (7, Status.FAILURE, True)
    ask(queue, "bytes", 8)
    assert answer(queue) == (8, Status.RESULT, b"\xff\0")


def test_the_config_may_name_one_type_for_all(foreign: Foreign) -> None:
    service, queue = foreign(message_queue_reply_type=TYPE)
    queue.send(b"[1]", 1)
    assert queue.receive(TYPE, timeout=SECONDS)[0] == b"[1]"
    queue.send(b"fail badly", 1)
    assert queue.receive(TYPE, timeout=SECONDS)[0].startswith(b"error: ValueError: badly")
    queue.send(build(TaskMessage(9, b"hello", Flag.NONBLOCK), 12), 1)
    assert queue.receive(TYPE, timeout=SECONDS)[0][:4] == b"\x09\0\0\0"
    assert page(service)["answers"] == 3


def test_a_reply_type_that_requests_have_is_refused(foreign: Foreign) -> None:
    service, queue = foreign()
    ask(queue, "x", 5, reply_type=2**22)
    ask(queue, "y", 6, reply_type=0)
    assert seen(service, 1)[0][0] == "y"
    assert rejected(service, 1) == {"reply_type": 1}
    assert page(service)["answers"] == 0


def test_unread_answers_leave_room_for_requests(foreign: Foreign) -> None:
    service, queue = foreign()
    for number in range(40):
        ask(queue, "x" * 1000, number)
    seen(service, 40)
    for number in range(40, 60):
        ask(queue, "y", number, reply_type=0)
    seen(service, 60)
    assert queue.stat().bytes <= queue.bytes_max // 2
    assert [answer(queue)[1] for _ in range(40)] == [Status.RESULT] * 40
    assert page(service)["answers"] == 40


def test_answers_that_are_owed_at_a_stop_are_sent(foreign: Foreign) -> None:
    service, queue = foreign(max_wait_time=10)
    held = service.root / "held"
    held.touch()
    ask(queue, f"hold {held}", 5)
    service.wait_for(lambda: service.status()["tasks"]["running"] == 1, SECONDS)
    service.kill(service.master, 15)
    service.wait_for(lambda: service.processes("ingress", "draining"), SECONDS)
    held.unlink()
    assert answer(queue) == (5, Status.RESULT, f"hold {held}")
    service.wait_for(lambda: not service.alive(), SECONDS)


def test_types_above_all_pids_are_never_taken_for_tasks(foreign: Foreign) -> None:
    service, queue = foreign()
    for mtype in (2**22 + 1, 2**31 + 5, 2**63 - 1):
        queue.send(b"no task", mtype)
    queue.send(b"a task", 2**22)
    assert [row[0] for row in seen(service, 1)] == ["a task"]
    left = [2**22 + 1, 2**31 + 5, 2**63 - 1]  # a task is taken off once it is stored
    service.wait_for(lambda: sorted(mtype for _, mtype in queue.peek_all()) == left, SECONDS)
    for _ in range(3):
        queue.receive(0, 0)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("header_bytes", [12, 40])
def test_a_file_is_a_task_and_then_deleted(foreign: Foreign, header_bytes: int) -> None:
    service, queue = foreign()
    folder = service.root / "spool"
    folder.mkdir(mode=0o700)
    service.configure(task_tmpdir=str(folder))
    service.reload()
    service.wait_for(lambda: len(service.processes("ingress")) == 1, SECONDS)
    path = folder / "data"
    path.write_bytes(php.dump(["x" * 1000] * 200))
    file = TmpFile(bytes(path), path.stat().st_size)
    flags = Flag.TMPFILE | Flag.SERIALIZE
    queue.send(build(TaskMessage(1, file, flags), header_bytes), 1)
    assert seen(service, 1)[0][0] == ["x" * 1000] * 200
    service.wait_for(lambda: list(folder.iterdir()) == [], SECONDS)


def test_hostile_files_are_refused_and_untouched(foreign: Foreign) -> None:
    service, queue = foreign()
    folder = service.root / "spool"
    folder.mkdir(mode=0o700)
    outside = service.root / "outside"
    outside.write_bytes(b"hello")
    (folder / "link").symlink_to(outside)
    service.configure(task_tmpdir=str(folder))
    service.reload()
    names = [b"/etc/passwd", b"../outside", bytes(outside), bytes(folder / "link"), b"missing"]
    for name in names:
        queue.send(build(TaskMessage(1, TmpFile(name, 5), Flag.TMPFILE), 12), 1)
    queue.send(b"after them", 1)
    assert seen(service, 1)[0][0] == "after them"
    assert rejected(service, 5) == {"file": 5}
    assert "it is not in" in why(service)[0]
    assert outside.read_bytes() == b"hello"
    assert (folder / "link").is_symlink()


def test_without_a_folder_no_file_is_read(foreign: Foreign) -> None:
    service, queue = foreign()
    path = service.root / "data"
    path.write_bytes(b"hello")
    queue.send(build(TaskMessage(1, TmpFile(bytes(path), 5), Flag.TMPFILE), 40), 1)
    assert rejected(service, 1) == {"no_tmpdir": 1}
    assert path.read_bytes() == b"hello"


def test_a_file_larger_than_a_task_may_be_is_refused(foreign: Foreign) -> None:
    service, queue = foreign(task_max_bytes="1K")
    folder = service.root / "spool"
    folder.mkdir(mode=0o700)
    service.configure(task_tmpdir=str(folder))
    service.reload()
    (folder / "data").write_bytes(b"x" * 2000)
    queue.send(build(TaskMessage(1, TmpFile(b"data", 2000), Flag.TMPFILE), 40), 1)
    queue.send(b"y" * 1100, 1)
    assert rejected(service, 2) == {"too_big": 2}
